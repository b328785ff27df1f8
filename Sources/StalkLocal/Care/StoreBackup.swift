// A copy of a store that is open, which is a store of its own.

internal import Glibc
internal import StalkCore
internal import StalkFiles
internal import StalkIndex
internal import StalkLog

/// What ``LocalStore/backup(to:)`` made.
public struct BackupReport: Hashable, Sendable {
    /// Where the copy is.
    public var path: String
    /// The messages in it.
    public var messages: Int
    /// The size of its index, in bytes.
    public var bytes: Int
}

/// Makes a copy of a store beside the place where it is to be, verifies it, and gives it its name last.
///
/// A checkpoint moves the log's outcome into the index, so a snapshot of the index alone is the whole store at one frame.
/// The copy gets a number of its own: it is another store. Otherwise two lives of one store would give the same lease
/// numbers, and a receipt of the one would finish a message of the other.
struct StoreBackup {
    /// Message numbers of the copy go on this far behind: an id that the original gives out later is never the copy's.
    static let sequenceLeap: UInt64 = 1 << 32

    let source: StoreCore
    let path: String

    /// Refuses a place that holds something.
    func checkTarget() throws(StalkError) {
        guard !self.path.isEmpty else { throw StalkError(.invalidArgument, "The backup's directory has no name.") }
        let target: RealDirectory
        do throws(StalkError) {
            target = try RealDirectory(path: self.path, createIfMissing: false)
        } catch {
            guard error.code != .noSuchStore else { return }
            throw StalkError(
                .invalidArgument,
                "\(self.path) can't become a backup: name a new directory. Nothing was changed.",
                cause: error
            )
        }
        guard let name = try target.list("").first else { return }
        throw StalkError(
            .invalidArgument,
            "\(self.path) is not empty (it holds \(quoted(name))): name a new or an empty directory for the backup. "
                + "Nothing was changed."
        )
    }

    /// Copies, verifies and names the copy; blocks.
    func run() throws(StalkError) -> BackupReport {
        guard let index = self.source.tables.index as? Environment else {
            throw StalkError(.unsupported, "Only a store whose index is in LMDB can be backed up.")
        }
        var target = self.path
        while target.count > 1, target.hasSuffix("/") { target.removeLast() }
        let copy = try RealDirectory(path: "\(target).partial", createIfMissing: true)
        try copy.checkFitness()
        // Two backups to one place must not mix, and what a killed one left behind can go.
        let lock = try copy.lock(StoreOpening.lockName)
        defer { _ = lock }
        try Self.clear(copy)
        do throws(StalkError) {
            try StoreCompaction.checkRoom(for: index.statistics().liveBytes + (1 << 18), in: copy)
            try self.fill(copy, from: index)
            let report = try self.verify(copy)
            try self.checkTarget()
            try copy.move(to: target)
            return BackupReport(path: target, messages: report.messages, bytes: report.bytes)
        } catch {
            try? Self.clear(copy)
            try? copy.remove(StoreOpening.lockName)
            RealDirectory.removeEmpty(copy.path)
            throw error
        }
    }

    /// Removes what a backup can have made in its directory, and refuses anything else there.
    private static func clear(_ copy: RealDirectory) throws(StalkError) {
        let own = [
            StoreMarker.name, StoreMarker.temporaryName, StoreOpening.lockName, StoreRecovery.indexDirectory,
            Segment.directory,
        ]
        if let foreign = try copy.list("").first(where: { !own.contains($0) }) {
            throw StalkError(
                .notAStore,
                "\(copy.path), where the backup is to be made, holds \(quoted(foreign)): move it away. "
                    + "Nothing was changed."
            )
        }
        for name in try copy.list("") where [StoreMarker.name, StoreMarker.temporaryName].contains(name) {
            try copy.remove(name)
        }
        for directory in [StoreRecovery.indexDirectory, Segment.directory] {
            for name in try copy.list(directory) { try copy.remove("\(directory)/\(name)") }
            try copy.removeDirectory(directory)
        }
    }

    private func fill(_ copy: RealDirectory, from index: Environment) throws(StalkError) {
        try copy.makeDirectory(StoreRecovery.indexDirectory)
        try copy.makeDirectory(Segment.directory)
        let path = "\(copy.path)/\(StoreRecovery.indexDirectory)"
        try index.copy(to: path)
        let tables = try SettledTables(
            SettledTables.openLMDB(path: path, createIfMissing: false),
            maxBodyBytes: self.source.options.maxBodyBytes
        )
        defer { tables.index.close() }
        guard var meta = try tables.readMeta() else {
            throw StalkError(.storeDamaged, "The copy of the index says nothing of the store; run 'stalk verify'.")
        }
        let original = meta.store
        while meta.store == original { meta.store = UInt64.random(in: 1...UInt64.max) }
        meta.nextSequence += Self.sequenceLeap
        try tables.apply(SettleBatch(meta: meta, changes: [], queues: []))
        try copy.sync(StoreRecovery.indexDirectory)
        // Small, since opening makes its own.
        _ = try Segment.make(1, 1 << 18, in: copy)
        try StoreMarker(store: meta.store).write(in: copy)
    }

    private func verify(_ copy: RealDirectory) throws(StalkError) -> (messages: Int, bytes: Int) {
        let examination = try StoreExamination(copy) { _, _ in }
        if let problem = examination.problems.all.first {
            throw StalkError(
                .storeDamaged,
                "The copy is damaged, so it was removed: \(problem.file): \(problem.what). Run 'stalk verify' on the store."
            )
        }
        return (examination.index.messages, examination.index.byteCount)
    }
}

extension LocalStore {
    /// Makes a copy of the store that can be opened anywhere; publishing and taking go on meanwhile.
    ///
    /// It holds everything whose publish or finish returned before this call, as it stood at one moment; what was
    /// leased is ready in it. It is verified before it gets its name, so that a directory at `path` is a whole copy.
    /// The copy is a store of its own: receipts of this one don't finish its messages, and the two never give the same
    /// id to different messages.
    ///
    /// - Parameter path: A directory that is not there yet, or is empty.
    /// - Returns: What is in the copy.
    /// - Throws: ``StalkError`` with ``StalkError/Code/invalidArgument`` when the directory holds something,
    ///   ``StalkError/Code/storageFull`` when there is no room, ``StalkError/Code/storeDamaged`` when the copy is
    ///   damaged because the store is; there is nothing at `path` then.
    @discardableResult
    public func backup(to path: String) async throws -> BackupReport {
        // The owner of the store may stand in another directory.
        let path = path.isEmpty ? path : absolutePath(path)
        guard case .backup(let report) = try await self.carryOut(.backup(path: path)) else {
            throw StalkError.unexpectedReply
        }
        return report
    }
}

private func absolutePath(_ path: String) -> String {
    guard !path.hasPrefix("/") else { return path }
    guard let current = getcwd(nil, 0) else { return path }
    defer { free(current) }
    return "\(String(cString: current))/\(path)"
}
