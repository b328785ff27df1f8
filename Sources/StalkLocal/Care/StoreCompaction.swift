// Giving the space of finished messages back to the file system.

internal import StalkCore
internal import StalkFiles
internal import StalkIndex

/// What ``LocalStore/compact()`` did.
public struct CompactionReport: Hashable, Sendable {
    /// The size of the index before, in bytes.
    public var bytesBefore: Int
    /// The size of the index now.
    public var bytesAfter: Int
}

extension LocalStore {
    /// Makes the index's file as small as what is in it; publishing and taking go on meanwhile.
    ///
    /// LMDB uses the space of finished messages again, but gives none back. The engine compacts by itself only when less
    /// than a quarter of a file of 16 MiB or more is live; this does so at once, whatever is live. It copies
    /// what is in use into a new file, which then takes the place of the old one. Until that is done, checkpoints wait,
    /// and so does what only LMDB knows once the files are exchanged. A crash at any moment leaves one of the two files.
    ///
    /// - Returns: The file's sizes.
    /// - Throws: ``StalkError`` with ``StalkError/Code/storageFull`` when there is no room for the copy; nothing has
    ///   changed then. ``StalkError/Code/storageFailed`` when the disk failed.
    @discardableResult
    public func compact() async throws -> CompactionReport {
        guard case .compaction(let report) = try await self.carryOut(.compact) else { throw StalkError.unexpectedReply }
        return report
    }
}

/// When the engine compacts its index without being asked.
enum CompactionRule {
    /// A file of this size is too small to be worth the work, in bytes.
    static let leastFileBytes = 16 << 20
    /// While the store is busy, checkpoints wait for no larger copy than this, in bytes.
    static let mostLiveBytesWhileBusy = 64 << 20

    /// Whether it is worth counting what is live.
    static func mayApply(toFileOf fileBytes: Int) -> Bool { fileBytes >= Self.leastFileBytes }

    /// Whether less than a quarter of the file is live, and copying it holds nobody up.
    static func isWorthwhile(fileBytes: Int, liveBytes: Int, isIdle: Bool) -> Bool {
        Self.mayApply(toFileOf: fileBytes) && liveBytes < fileBytes / 4
            && (isIdle || liveBytes <= Self.mostLiveBytesWhileBusy)
    }
}

/// Puts a smaller copy of the index in its place.
enum StoreCompaction {
    static func compact(_ index: Environment, liveBytes: Int, of core: StoreCore) throws(StalkError) {
        try Self.checkRoom(for: liveBytes, in: core.directory)
        do throws(StalkError) {
            try index.compact()
        } catch {
            // Without an index the store can do nothing more: what was acknowledged is in the log and in one of the
            // two files.
            if !index.isOpen { core.step { engine, _ in engine.fail(error) } }
            throw error
        }
    }

    static func checkRoom(for bytes: Int, in directory: any StorageDirectory) throws(StalkError) {
        // A few pages more, for what the file system itself needs.
        let needed = bytes + (1 << 16)
        guard let free = directory.freeBytes, free < needed else { return }
        throw StalkError(
            .storageFull,
            "A copy of the index needs \(needed) bytes, and \(free) are free in \(directory.path): free some space "
                + "first. Nothing was changed."
        )
    }
}
