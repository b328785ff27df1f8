// Opening a store on this machine: its directory, its lock, LMDB, and the threads.

internal import StalkCore
internal import StalkFiles
internal import StalkIndex
internal import StalkLog
internal import StalkPlatform

/// Opens a store in a directory of this machine.
struct StoreOpening {
    static let lockName = "lock"

    let path: String
    let options: LocalStoreOptions
    /// What stands between the store and its directory: nothing, or a test's faults.
    var disk: @Sendable (RealDirectory) -> any StorageDirectory = { $0 }

    /// A store that is open.
    struct Opened: Sendable {
        var core: StoreCore
        var threads: StoreThreads
        var lock: DirectoryLock
        var directory: RealDirectory
        var report: RecoveryReport
    }

    /// Opens the store; blocks.
    ///
    /// - Parameter whenLocked: Run as soon as nobody else can own the store.
    func run(whenLocked: (DirectoryLock, RealDirectory) -> Void = { _, _ in }) throws(StalkError) -> Opened {
        try self.options.validate()
        let directory = try self.openDirectory()
        try directory.checkFitness()
        // Looked at before anything is touched, so that what is refused stays as it is.
        let found = try StoreMarker.read(in: directory)
        guard found != nil || self.options.createIfMissing else { throw Self.noStore(at: self.path) }
        // LMDB opens its files by their paths, and would follow links out of the store.
        try directory.refuseLinks(in: [Segment.directory, StoreRecovery.indexDirectory])
        let lock = try directory.lock(Self.lockName)
        whenLocked(lock, directory)
        let wakers = try StoreWakers()
        let index = "\(self.path)/\(StoreRecovery.indexDirectory)"
        let disk = self.disk(directory)
        let recovery = StoreRecovery(directory: disk, options: self.options) { create throws(StalkError) in
            try SettledTables.openLMDB(path: index, createIfMissing: create)
        } wake: { role in
            wakers[role].signal()
        }
        let recovered = try recovery.run()
        try Leftovers.remove(in: directory)
        let core = recovered.workers.core
        let threads = try StoreThreads(recovered.workers, wakers, lock: lock)
        core.step { _, _ in Actions(wakesLog: true, wakesScheduler: true, wakesKeeper: true) }
        return Opened(core: core, threads: threads, lock: lock, directory: directory, report: recovered.report)
    }

    private func openDirectory() throws(StalkError) -> RealDirectory {
        do throws(StalkError) {
            return try RealDirectory(path: self.path, createIfMissing: self.options.createIfMissing)
        } catch {
            if !self.options.createIfMissing, error.code == .noSuchStore { throw Self.noStore(at: self.path) }
            throw error
        }
    }

    static func noStore(at path: String) -> StalkError {
        StalkError(.noSuchStore, "There is no store at \(path): publish something first, or name another place.")
    }
}

extension LocalStoreOptions {
    func validate() throws(StalkError) {
        guard (1 << 18...1 << 30).contains(self.segmentBytes), self.segmentBytes % 4096 == 0 else {
            throw StalkError(
                .invalidArgument,
                "segmentBytes is \(self.segmentBytes): choose a multiple of 4096 from 256 KiB to 1 GiB."
            )
        }
        guard (0...self.segmentBytes / 2).contains(self.maxBodyBytes) else {
            throw StalkError(
                .invalidArgument,
                "maxBodyBytes is \(self.maxBodyBytes): it must be from 0 to half of segmentBytes (\(self.segmentBytes / 2))."
            )
        }
        guard self.checkpointBytes >= self.segmentBytes else {
            throw StalkError(
                .invalidArgument,
                "checkpointBytes is \(self.checkpointBytes): it must be at least segmentBytes (\(self.segmentBytes))."
            )
        }
        guard self.releaseRate >= 1000, self.idleCheckpointDelay >= .zero else {
            throw StalkError(
                .invalidArgument,
                "releaseRate must be at least 1000 per second, and idleCheckpointDelay not negative."
            )
        }
    }
}
