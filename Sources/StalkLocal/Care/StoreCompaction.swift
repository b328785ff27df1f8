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
    /// The index never shrinks by itself: the space of finished messages is used again, but not given back. This copies
    /// what is in use into a new file, which then takes the place of the old one. Until that is done, checkpoints wait,
    /// and so does what only LMDB knows once the files are exchanged. A crash at any moment leaves one of the two files.
    ///
    /// - Returns: The file's sizes.
    /// - Throws: ``StalkError`` with ``StalkError/Code/storageFull`` when there is no room for the copy; nothing has
    ///   changed then. ``StalkError/Code/storageFailed`` when the disk failed.
    @discardableResult
    public func compact() async throws -> CompactionReport {
        // What was finished since the last checkpoint is still in the file. Without room it stays there.
        do {
            try await self.checkpoint()
        } catch let error as StalkError where error.code == .storageFull {}
        return try await onOwnThread("stalk-compact") { () throws(StalkError) in
            guard let index = self.core.tables.index as? Environment else {
                throw StalkError(.unsupported, "Only an index in LMDB can be compacted.")
            }
            let before = index.fileBytes
            try Self.checkRoom(for: index.statistics().liveBytes, in: self.core.directory)
            do throws(StalkError) {
                try index.compact()
            } catch {
                // Without an index the store can do nothing more: what was acknowledged is in the log and in one of the
                // two files.
                if !index.isOpen { self.core.step { engine, _ in engine.fail(error) } }
                throw error
            }
            return CompactionReport(bytesBefore: before, bytesAfter: index.fileBytes)
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
