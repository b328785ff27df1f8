// What the system says of a place where a store is, or is to be.

internal import CStalkSystem
internal import Glibc
package import StalkCore

/// What can be found out about a directory, without judgement.
package struct PlaceFacts: Sendable {
    /// Repeated writes of 4 KiB with fdatasync.
    package struct SyncTimes: Sendable {
        package var count: Int
        package var medianNanoseconds: Int64
        package var slowestNanoseconds: Int64

        package init(count: Int, medianNanoseconds: Int64, slowestNanoseconds: Int64) {
            self.count = count
            self.medianNanoseconds = medianNanoseconds
            self.slowestNanoseconds = slowestNanoseconds
        }
    }

    /// The directory that was looked at: the one that was asked for, or the nearest one above that is there.
    package var path: String
    /// Whether that is the one that was asked for.
    package var isThere: Bool
    package var isDirectory: Bool
    package var mode: UInt32
    package var isOwn: Bool
    /// Whether files can be made in it.
    package var isWritable: Bool
    package var isRoot: Bool
    /// `f_type` of statfs(2).
    package var fileSystemType: Int64
    package var isReadOnly: Bool
    package var freeBytes: UInt64
    /// How many more files there can be; nil when the file system has no such limit.
    package var freeFiles: UInt64?
    /// How long syncing takes, or why it can't be said.
    package var syncTimes: Result<SyncTimes, StalkError>
    /// RLIMIT_NOFILE and RLIMIT_FSIZE; nil for no limit.
    package var openFilesMax: UInt64?
    package var fileBytesMax: UInt64?
    package var hasOpenBeneath: Bool
    package var kernel: String
    /// When the directory was last changed, in milliseconds since 1970.
    package var changedAt: Int64

    /// Looks at a directory, or the nearest one above it that is there, and leaves nothing behind.
    ///
    /// - Parameters:
    ///   - path: The directory that is asked about.
    ///   - syncsFor: How long syncing is measured.
    /// - Throws: ``StalkError`` when not even that can be opened.
    package init(at path: String, syncsFor duration: Duration) throws(StalkError) {
        let place = try Self.nearest(path)
        let descriptor = Descriptor(owning: Glibc.open(place, O_RDONLY | O_CLOEXEC))
        guard descriptor.number >= 0 else { throw StalkError(systemCall: "open", path: place, errno: errno) }
        var info = stat()
        guard fstat(descriptor.number, &info) == 0 else {
            throw StalkError(systemCall: "fstat", path: place, errno: errno)
        }
        self.path = place
        self.isThere = place == path
        self.isDirectory = info.st_mode & S_IFMT == S_IFDIR
        self.mode = info.st_mode & 0o7777
        self.isOwn = info.st_uid == geteuid()
        self.isRoot = geteuid() == 0
        self.isWritable = faccessat(AT_FDCWD, place, W_OK | X_OK, AT_EACCESS) == 0
        self.changedAt = Int64(info.st_mtim.tv_sec) * 1000 + Int64(info.st_mtim.tv_nsec) / 1_000_000
        self.fileSystemType = CStalkSystem_fileSystemType(descriptor.number)
        var space = statvfs()
        guard fstatvfs(descriptor.number, &space) == 0 else {
            throw StalkError(systemCall: "fstatvfs", path: place, errno: errno)
        }
        self.isReadOnly = space.f_flag & UInt(ST_RDONLY) != 0
        self.freeBytes = UInt64(space.f_bavail) * UInt64(space.f_frsize)
        self.freeFiles = space.f_files == 0 ? nil : UInt64(space.f_favail)
        self.openFilesMax = Self.limit(RLIMIT_NOFILE)
        self.fileBytesMax = Self.limit(RLIMIT_FSIZE)
        let probe = CStalkSystem_openBeneath(descriptor.number, ".", O_RDONLY | O_CLOEXEC, 0)
        self.hasOpenBeneath = probe >= 0 || errno != ENOSYS
        if probe >= 0 { Glibc.close(probe) }
        self.kernel = Self.kernelRelease
        do throws(StalkError) {
            self.syncTimes = .success(try Self.timeSyncs(in: place, for: duration))
        } catch {
            self.syncTimes = .failure(error)
        }
    }

    /// A path, or the nearest one above it that is there.
    private static func nearest(_ path: String) throws(StalkError) -> String {
        var place = path
        while true {
            var info = stat()
            if stat(place, &info) == 0 { return place }
            guard errno == ENOENT, place != "/", place != "." else {
                throw StalkError(systemCall: "stat", path: place, errno: errno)
            }
            place = RealDirectory.parent(of: place)
        }
    }

    private static func limit(_ resource: __rlimit_resource) -> UInt64? {
        var limits = rlimit()
        guard getrlimit(__rlimit_resource_t(resource.rawValue), &limits) == 0, limits.rlim_cur != rlim_t.max else {
            return nil
        }
        return UInt64(limits.rlim_cur)
    }

    private static var kernelRelease: String {
        var name = utsname()
        guard uname(&name) == 0 else { return "" }
        return withUnsafePointer(to: &name.release) { tuple in
            tuple.withMemoryRebound(to: CChar.self, capacity: 65) { String(cString: $0) }
        }
    }

    // MARK: Syncing

    /// Writes 4 KiB over blocks that were written before, and syncs, as the log does, in a file without a name.
    private static func timeSyncs(in directory: String, for duration: Duration) throws(StalkError) -> SyncTimes {
        let file = RealFile(
            descriptor: try Self.scratchFile(in: directory),
            path: directory,
            counters: ActivityCounters()
        )
        let size = 1 << 20
        try file.fillWithZeros(size)
        let block = [UInt8](repeating: 0x5A, count: 4096)
        var times: [Int64] = []
        let end =
            Self.now + duration.components.seconds * 1_000_000_000
            + duration.components.attoseconds / 1_000_000_000
        var offset = 0
        var now = Self.now
        while now < end || times.count < 8 {
            try file.write(block, at: offset)
            try file.sync()
            let finished = Self.now
            times.append(finished - now)
            now = finished
            offset = (offset + block.count) % size
        }
        times.sort()
        return SyncTimes(
            count: times.count,
            medianNanoseconds: times[times.count / 2],
            slowestNanoseconds: times[times.count - 1]
        )
    }

    /// A file that goes with its descriptor: without a name where the file system can do that, else one that is removed at
    /// once.
    private static func scratchFile(in directory: String) throws(StalkError) -> Descriptor {
        // O_TMPFILE, which is not in the module map.
        let unnamed = Glibc.open(directory, O_RDWR | O_CLOEXEC | 0o20_000_000 | O_DIRECTORY, 0o600)
        if unnamed >= 0 { return Descriptor(owning: unnamed) }
        guard [EOPNOTSUPP, EISDIR, EINVAL, ENOENT].contains(errno) else {
            throw StalkError(systemCall: "open", path: directory, errno: errno)
        }
        let path = "\(directory)/.stalk-doctor-\(getpid())"
        let named = Glibc.open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard named >= 0 else { throw StalkError(systemCall: "open", path: path, errno: errno) }
        unlink(path)
        return Descriptor(owning: named)
    }

    private static var now: Int64 { CStalkSystem_bootNanoseconds() }
}

extension PlaceFacts {
    /// What is known of a kind of file system.
    package enum FileSystem: Hashable, Sendable {
        /// Syncs and locks are what a store needs.
        case local(String)
        /// It is gone when the machine stops.
        case memory(String)
        /// Locks and syncs can't be trusted.
        case network(String)
        /// It may do, but a store has not been shown to be safe there.
        case unproven(String)
    }

    /// The file system, by the number that statfs(2) gives.
    package var fileSystem: FileSystem {
        if let name = RealDirectory.networkFileSystems[self.fileSystemType] { return .network(name) }
        switch self.fileSystemType {
        case 0xEF53: return .local("ext4")
        case 0x5846_5342: return .local("XFS")
        case 0x0102_1994: return .memory("tmpfs")
        case 0x8584_58F6: return .memory("ramfs")
        case 0x9123_683E: return .unproven("btrfs")
        case 0x2FC1_2FC1: return .unproven("ZFS")
        case 0xF2F5_2010: return .unproven("F2FS")
        case 0x794C_7630: return .unproven("overlayfs")
        case 0x6573_5546: return .unproven("FUSE")
        case 0x4D44: return .unproven("FAT")
        case 0x2011_BAB0: return .unproven("exFAT")
        case 0x7366_746E, 0x5346_544E: return .unproven("NTFS")
        default: return .unproven("of the type 0x\(String(self.fileSystemType, radix: 16))")
        }
    }
}
