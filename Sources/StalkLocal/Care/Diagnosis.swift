// Is a place fit for a store? The judgement, made from facts alone.

internal import StalkCore
internal import StalkFiles

/// What ``LocalStore/diagnose(_:)`` says of a place.
public struct Diagnosis: Hashable, Sendable {
    /// How good something is.
    public enum Grade: String, Hashable, Sendable {
        /// As it should be.
        case ok
        /// A store works, and something is worth knowing.
        case warning
        /// A store does not work here, or does not keep its promises.
        case bad
    }

    /// One thing that was looked at.
    public struct Finding: Hashable, Sendable {
        /// What was looked at: `directory`, `sync`, `clock` and so on.
        public var subject: String
        /// How good it is.
        public var grade: Grade
        /// What was found.
        public var what: String
        /// What to do about it; empty when there is nothing to do.
        public var advice: String
    }

    /// The directory that was asked about.
    public var path: String
    /// What was found, each thing once.
    public var findings: [Finding] = []

    /// Whether a store keeps its promises here.
    public var isFit: Bool { self.findings.allSatisfy { $0.grade != .bad } }

    mutating func add(_ subject: String, _ grade: Grade, _ what: String, _ advice: String = "") {
        self.findings.append(Finding(subject: subject, grade: grade, what: what, advice: advice))
    }
}

/// What is read of clocks and libraries besides ``PlaceFacts``.
struct MachineFacts: Sendable {
    /// The wall clock, in milliseconds since 1970.
    var wall: Int64
    /// The time since boot, in milliseconds.
    var sinceBoot: Int64
    var bootID: String
    var lmdb: String
    var zstd: String
}

extension Diagnosis {
    /// Writes of 4 KiB that are synced faster than this were not synced: flushing a fast device with a protected cache
    /// takes more.
    static let fastestSyncNanoseconds: Int64 = 10_000
    private static let slowSyncNanoseconds: Int64 = 20_000_000
    /// What a new store takes: three segments, the ballast, and an index.
    private static let neededBytes: UInt64 = 40 << 20
    private static let comfortableBytes: UInt64 = 1 << 30
    /// 2024-01-01 and 2100-01-01.
    private static let soundWall: Range<Int64> = 1_704_067_200_000..<4_102_444_800_000

    /// Judges a place.
    ///
    /// - Parameters:
    ///   - path: The directory that was asked about.
    ///   - place: What the system says of it, or why it could not be looked at.
    ///   - store: Whether there is a store, or why what is there is none.
    ///   - machine: Clocks and libraries.
    init(
        path: String,
        _ place: Result<PlaceFacts, StalkError>,
        store: Result<Bool, StalkError>,
        _ machine: MachineFacts
    ) {
        self.init(path: path)
        switch place {
        case .failure(let error): self.add("directory", .bad, error.message, "name a directory that can be read")
        case .success(let place):
            self.judgeDirectory(place)
            self.judge(store)
            self.judgeFileSystem(place)
            self.judgeSyncs(place)
            self.judgeSpace(place)
            self.judgeLimits(place)
            self.judgeKernel(place)
        }
        self.judgeClock(machine, newest: (try? place.get())?.changedAt)
        self.judgeLibraries(machine)
    }

    private mutating func judgeDirectory(_ place: PlaceFacts) {
        let mode = "mode \(String(place.mode, radix: 8))"
        if !place.isDirectory {
            self.add("directory", .bad, "\(place.path) is a file", "name a directory")
        } else if place.isReadOnly {
            self.add(
                "directory",
                .bad,
                "\(place.path) is on a read-only mount",
                "mount it for writing, or take another place"
            )
        } else if !place.isWritable {
            self.add(
                "directory",
                .bad,
                "this user may not write to \(place.path)",
                "run as its owner, or take another place"
            )
        } else if !place.isThere {
            self.add("directory", .ok, "\(self.path) is not there yet and can be made in \(place.path)")
        } else if place.mode & 0o022 != 0 {
            self.add("directory", .bad, "others may write to it (\(mode))", "run chmod 700 on it")
        } else if !place.isOwn {
            self.add("directory", .warning, "it belongs to another user", "run as its owner, or chown it")
        } else if place.mode & 0o055 != 0 {
            self.add("directory", .warning, "others may read its names (\(mode))", "run chmod 700 on it")
        } else {
            self.add("directory", .ok, "it belongs to this user alone (\(mode))")
        }
    }

    private mutating func judge(_ store: Result<Bool, StalkError>) {
        switch store {
        case .success(true): self.add("store", .ok, "there is a store, of the format \(StoreMeta.formatVersion)")
        case .success(false): self.add("store", .ok, "there is no store yet")
        case .failure(let error): self.add("store", .bad, error.message, "name another directory, or run stalk repair")
        }
    }

    private mutating func judgeFileSystem(_ place: PlaceFacts) {
        switch place.fileSystem {
        case .local(let name): self.add("file system", .ok, name)
        case .memory(let name):
            self.add("file system", .bad, "\(name) is memory: all of it is gone when the machine stops", "take a disk")
        case .network(let name):
            self.add(
                "file system",
                .bad,
                "\(name) is a network file system, where locks and syncs can't be trusted: stores are refused there",
                "take a local disk"
            )
        case .unproven(let name):
            self.add(
                "file system",
                .warning,
                "\(name): stores are tested on ext4 and XFS",
                "run stalk torture --store on a new directory there, or take a disk with ext4 or XFS"
            )
        }
    }

    private mutating func judgeSyncs(_ place: PlaceFacts) {
        switch place.syncTimes {
        case .failure(let error): self.add("sync", .bad, error.message, "without syncs nothing survives a power cut")
        case .success(let times):
            let figures =
                "4 KiB are written and synced in \(Self.text(times.medianNanoseconds)) "
                + "(median of \(times.count), slowest \(Self.text(times.slowestNanoseconds)))"
            if times.medianNanoseconds < Self.fastestSyncNanoseconds {
                self.add(
                    "sync",
                    .warning,
                    "\(figures): no device is that fast, so syncs seem to do nothing",
                    "look for a mount or a virtual disk that ignores flushes"
                )
            } else if times.medianNanoseconds > Self.slowSyncNanoseconds {
                self.add(
                    "sync",
                    .warning,
                    "\(figures): every publish waits for that",
                    "publish in batches, or take a faster disk"
                )
            } else {
                self.add("sync", .ok, figures)
            }
        }
    }

    private mutating func judgeSpace(_ place: PlaceFacts) {
        let free = "\(place.freeBytes >> 20) MiB are free"
        if place.freeBytes < Self.neededBytes {
            self.add("space", .bad, free, "a new store takes \(Self.neededBytes >> 20) MiB: free some space")
        } else if place.freeBytes < Self.comfortableBytes {
            self.add("space", .warning, free, "a backlog needs room: free some space")
        } else {
            self.add("space", .ok, free)
        }
        guard let files = place.freeFiles else {
            return self.add("inodes", .ok, "the file system has no limit for files")
        }
        let grade: Grade = files < 64 ? .bad : files < 1024 ? .warning : .ok
        self.add(
            "inodes",
            grade,
            "\(files) more files can be made",
            grade == .ok ? "" : "remove files that are not wanted"
        )
    }

    private mutating func judgeLimits(_ place: PlaceFacts) {
        let open = place.openFilesMax ?? .max
        let grade: Grade = open < 64 ? .bad : open < 256 ? .warning : .ok
        self.add(
            "open files",
            grade,
            place.openFilesMax.map { "\($0) descriptors are allowed (RLIMIT_NOFILE)" } ?? "no limit",
            grade == .ok ? "" : "raise it with ulimit -n: a store takes about 40"
        )
        guard let size = place.fileBytesMax else { return self.add("file size", .ok, "no limit") }
        self.add(
            "file size",
            size < Self.neededBytes ? .bad : .warning,
            "files may have \(size >> 20) MiB (RLIMIT_FSIZE)",
            "raise it with ulimit -f: the index can't grow beyond it"
        )
    }

    private mutating func judgeKernel(_ place: PlaceFacts) {
        self.add(
            "kernel",
            place.hasOpenBeneath ? .ok : .bad,
            "Linux \(place.kernel), \(place.hasOpenBeneath ? "with" : "without") openat2",
            place.hasOpenBeneath ? "" : "take Linux 5.6 or newer, or a sandbox that allows openat2"
        )
    }

    private mutating func judgeClock(_ machine: MachineFacts, newest: Int64?) {
        if !Self.soundWall.contains(machine.wall) || machine.sinceBoot <= 0 {
            let now = Timestamp(millisecondsSince1970: machine.wall)
            self.add("clock", .bad, "the wall clock says \(now)", "set it: delays that last across a boot go by it")
        } else if let newest, newest > machine.wall + 60_000 {
            self.add(
                "clock",
                .warning,
                "the wall clock is \((newest - machine.wall) / 1000) seconds behind the directory's last change",
                "set it, or let it be set by the network"
            )
        } else if machine.bootID.isEmpty {
            self.add(
                "clock",
                .warning,
                "the boot's identity can't be read",
                "mount /proc: without it each opening goes by the wall clock"
            )
        } else {
            self.add("clock", .ok, "wall clock and time since boot are sound, the boot is \(machine.bootID)")
        }
    }

    private mutating func judgeLibraries(_ machine: MachineFacts) {
        for (name, version, oldest) in [("liblmdb", machine.lmdb, [0, 9, 24]), ("libzstd", machine.zstd, [1, 4, 0])] {
            let parts = version.split(separator: ".").map { Int($0) ?? 0 }
            let isOld = parts.lexicographicallyPrecedes(oldest)
            let text = oldest.map(String.init).joined(separator: ".")
            self.add(
                name,
                isOld ? .warning : .ok,
                version,
                isOld ? "Stalk is tested with \(text) and newer: upgrade it" : ""
            )
        }
    }

    private static func text(_ nanoseconds: Int64) -> String {
        nanoseconds < 10_000_000 ? "\(nanoseconds / 1000) µs" : "\(nanoseconds / 1_000_000) ms"
    }
}
