// The store's directory on a real file system.

internal import CStalkSystem
internal import Glibc
public import StalkCore

/// A directory of the real file system, held open, so that a later rename of its path changes nothing.
public final class RealDirectory: StorageDirectory {
    /// The path that it was opened by.
    public let path: String
    let descriptor: Descriptor
    private let counters = ActivityCounters()

    /// Opens a directory.
    ///
    /// - Parameters:
    ///   - path: The directory.
    ///   - createIfMissing: Whether to make it and its parents, with mode 0700.
    /// - Throws: ``StalkError`` saying what stands in the way.
    public init(path: String, createIfMissing: Bool) throws(StalkError) {
        CStalkSystem_ignoreFileSizeSignal()
        if createIfMissing { try Self.makePath(path) }
        let number = retryingInterrupts { Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
        guard number >= 0 else {
            let code = errno
            if code == ENOTDIR {
                throw StalkError(.notAStore, "\(path) is a file, not a directory: name the directory of a store.")
            }
            throw StalkError(systemCall: "open", path: path, errno: code)
        }
        self.path = path
        self.descriptor = Descriptor(owning: number)
    }

    private static func makePath(_ path: String) throws(StalkError) {
        var prefixes: [String] = []
        var rest = path[...]
        while !rest.isEmpty, rest != "/" {
            prefixes.append(String(rest))
            guard let slash = rest.dropLast().lastIndex(of: "/") else { break }
            rest = rest[..<slash]
        }
        for prefix in prefixes.reversed() {
            guard mkdir(prefix, 0o700) != 0, errno != EEXIST else {
                Self.syncParent(of: prefix)
                continue
            }
            // A parent that is there already may refuse mkdir for another reason: only a missing one matters.
            let code = errno
            if access(prefix, F_OK) != 0 { throw StalkError(systemCall: "mkdir", path: prefix, errno: code) }
        }
    }

    /// The directory that holds a path's last component.
    static func parent(of path: String) -> String {
        let components = path.split(separator: "/")
        if path.hasPrefix("/") { return "/" + components.dropLast().joined(separator: "/") }
        return components.count < 2 ? "." : components.dropLast().joined(separator: "/")
    }

    private static func syncParent(of path: String) {
        let number = Glibc.open(Self.parent(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard number >= 0 else { return }
        fsync(number)
        Glibc.close(number)
    }

    /// Opens a file.
    public func open(_ name: String, _ creation: FileCreation) throws(StalkError) -> any StorageFile {
        let flags =
            switch creation {
            case .readOnly: O_RDONLY
            case .existing: O_RDWR
            case .new: O_RDWR | O_CREAT | O_EXCL
            case .ifMissing: O_RDWR | O_CREAT
            }
        let shown = "\(self.path)/\(name)"
        return RealFile(
            descriptor: try Descriptor(
                below: self.descriptor.number,
                name,
                flags: flags,
                mode: 0o600,
                shown: shown
            ),
            path: shown,
            counters: self.counters
        )
    }

    /// The names in a subdirectory, sorted; empty when it is missing.
    public func list(_ subdirectory: String) throws(StalkError) -> [String] {
        let shown = "\(self.path)/\(subdirectory)"
        let number = retryingInterrupts {
            CStalkSystem_openBeneath(
                self.descriptor.number,
                subdirectory.isEmpty ? "." : subdirectory,
                O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                0
            )
        }
        guard number >= 0 else {
            let code = errno
            if code == ENOENT { return [] }
            throw StalkError(systemCall: "openat2", path: shown, errno: code)
        }
        // fdopendir takes the descriptor over; closedir closes it.
        guard let stream = fdopendir(number) else {
            let code = errno
            Glibc.close(number)
            throw StalkError(systemCall: "fdopendir", path: shown, errno: code)
        }
        defer { closedir(stream) }
        var names: [String] = []
        errno = 0
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { tuple in
                tuple.withMemoryRebound(to: CChar.self, capacity: Int(NAME_MAX) + 1) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
            errno = 0
        }
        guard errno == 0 else { throw StalkError(systemCall: "readdir", path: shown, errno: errno) }
        return names.sorted()
    }

    /// Makes a subdirectory with mode 0700, unless it is there, and makes its name durable.
    public func makeDirectory(_ name: String) throws(StalkError) {
        let place = try Place(of: name, below: self.descriptor.number, shown: "\(self.path)/\(name)")
        if mkdirat(place.directory, place.name, 0o700) != 0 {
            guard errno == EEXIST else {
                throw StalkError(systemCall: "mkdirat", path: "\(self.path)/\(name)", errno: errno)
            }
            // What is there may be a file or a link.
            _ = try Descriptor(
                below: self.descriptor.number,
                name,
                flags: O_RDONLY | O_DIRECTORY,
                mode: 0,
                shown: "\(self.path)/\(name)"
            )
        }
        try self.sync("")
    }

    /// Renames a file.
    public func rename(_ name: String, to newName: String) throws(StalkError) {
        let old = try Place(of: name, below: self.descriptor.number, shown: "\(self.path)/\(name)")
        let new = try Place(of: newName, below: self.descriptor.number, shown: "\(self.path)/\(newName)")
        guard renameat(old.directory, old.name, new.directory, new.name) == 0 else {
            throw StalkError(systemCall: "renameat", path: "\(self.path)/\(name)", errno: errno)
        }
    }

    /// Removes a file.
    public func remove(_ name: String) throws(StalkError) {
        let place = try Place(of: name, below: self.descriptor.number, shown: "\(self.path)/\(name)")
        guard unlinkat(place.directory, place.name, 0) == 0 else {
            throw StalkError(systemCall: "unlinkat", path: "\(self.path)/\(name)", errno: errno)
        }
    }

    /// Makes the names in a subdirectory durable.
    public func sync(_ subdirectory: String) throws(StalkError) {
        let shown = "\(self.path)/\(subdirectory)"
        let directory = try Descriptor(
            below: self.descriptor.number,
            subdirectory.isEmpty ? "." : subdirectory,
            flags: O_RDONLY | O_DIRECTORY,
            mode: 0,
            shown: shown
        )
        guard retryingInterrupts({ fsync(directory.number) }) == 0 else {
            throw StalkError(systemCall: "fsync", path: shown, errno: errno)
        }
        self.counters.noteSync()
    }

    /// What was asked of the disk through this directory since it was opened.
    public var activity: FileActivity { self.counters.activity }

    /// Takes the store's lock, which the system gives back when the process ends, however it ends.
    ///
    /// - Parameter name: The lock file; it is made when it is missing.
    /// - Returns: What holds the lock for as long as it lives.
    /// - Throws: ``StalkError`` with ``StalkError/Code/storeBusy``, naming the owner's process.
    public func lock(_ name: String) throws(StalkError) -> DirectoryLock {
        let shown = "\(self.path)/\(name)"
        let lock = try self.lock(self.lockFile(name), shown: shown)
        let text = Array("\(getpid())\n".utf8)
        // The process number only serves the message above: failing to write it is no reason to refuse.
        _ = ftruncate(lock.descriptor.number, 0)
        _ = pwrite(lock.descriptor.number, text, text.count, 0)
        return lock
    }

    /// Opens a lock file, made when it is missing.
    func lockFile(_ name: String) throws(StalkError) -> Descriptor {
        try Descriptor(
            below: self.descriptor.number,
            name,
            flags: O_RDWR | O_CREAT,
            mode: 0o600,
            shown: "\(self.path)/\(name)"
        )
    }

    /// Locks an open file.
    func lock(_ descriptor: consuming Descriptor, shown: String) throws(StalkError) -> DirectoryLock {
        guard retryingInterrupts({ CStalkSystem_lockExclusive(descriptor.number) }) == 0 else {
            let code = errno
            guard code == EWOULDBLOCK else { throw StalkError(systemCall: "flock", path: shown, errno: code) }
            var text = [UInt8](repeating: 0, count: 32)
            let count = pread(descriptor.number, &text, text.count, 0)
            let owner = String(decoding: text[..<max(count, 0)].prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
            throw StalkError(
                .storeBusy,
                "The store \(self.path) is open in \(owner.isEmpty ? "another process" : "process \(owner)"): "
                    + "wait until it ends, or use another store."
            )
        }
        return DirectoryLock(descriptor: descriptor)
    }

    /// Refuses places where locks and syncs can't be trusted or where others could write.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/networkFileSystem`` or ``StalkError/Code/permissionDenied``.
    public func checkFitness() throws(StalkError) {
        let type = CStalkSystem_fileSystemType(self.descriptor.number)
        if let name = Self.networkFileSystems[type] {
            throw StalkError(
                .networkFileSystem,
                "\(self.path) is on a network file system (\(name)), where locks and syncs can't be trusted: "
                    + "put the store on a local disk."
            )
        }
        var info = stat()
        guard fstat(self.descriptor.number, &info) == 0 else {
            throw StalkError(systemCall: "fstat", path: self.path, errno: errno)
        }
        if info.st_mode & 0o022 != 0 {
            throw StalkError(
                .permissionDenied,
                "Others may write to \(self.path) (mode \(String(info.st_mode & 0o777, radix: 8))): "
                    + "a store must be its owner's alone. Run chmod 700 on it."
            )
        }
    }

    /// Free bytes on the file system, for an unprivileged process; `nil` when the system does not say.
    public var freeBytes: Int? {
        let bytes = CStalkSystem_freeBytes(self.descriptor.number)
        return bytes < 0 ? nil : Int(bytes)
    }

    /// The `f_type` values of statfs(2) that name network file systems.
    static let networkFileSystems: [Int64: String] = [
        0x6969: "NFS", 0x517B: "SMB", 0xFF53_4D42: "CIFS", 0xFE53_4D42: "SMB2", 0x00C3_6400: "Ceph",
        0x5346_414F: "AFS", 0x6B41_4653: "AFS", 0x7375_7245: "Coda", 0x0BD0_0BD0: "Lustre", 0x4750_4653: "GPFS",
        0x0102_1997: "9P", 0x013A_13B1: "OrangeFS",
    ]
}

/// A store's lock; given back when it is released.
public final class DirectoryLock: Sendable {
    let descriptor: Descriptor

    init(descriptor: consuming Descriptor) {
        self.descriptor = descriptor
        // A child that goes on without another program would hold the lock after its parent has ended.
        _ = CStalkSystem_closeInChildren(self.descriptor.number)
    }

    /// Writes a word behind the owner's process number, for others to read; failing to is no reason to refuse.
    package func note(_ word: String) {
        let text = Array("\(getpid())\n\(word)\n".utf8)
        _ = pwrite(self.descriptor.number, text, text.count, 0)
    }

    /// Writes over the beginning of the lock file, for others to read.
    ///
    /// - Returns: Whether all of it is there.
    package func overwrite(_ bytes: [UInt8]) -> Bool {
        retryingInterrupts { pwrite(self.descriptor.number, bytes, bytes.count, 0) } == bytes.count
    }

    deinit {
        CStalkSystem_keepInChildren(self.descriptor.number)
        // Closing is not enough: a child that was just forked still has the descriptor until it runs its program.
        _ = CStalkSystem_unlock(self.descriptor.number)
    }
}
