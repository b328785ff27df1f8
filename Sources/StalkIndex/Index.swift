package import StalkCore

/// The checkpointed tables of a store: LMDB's, or a stand-in that simulations put in its place.
///
/// An ``Environment`` is the real one. What its methods promise, every other one must promise too.
package protocol Index: AnyObject, Sendable {
    /// The table of this name, which must be one of those it was opened with.
    func table(_ name: String) -> Table

    /// Runs `body` on a snapshot; see ``Environment/read(_:)``.
    func read<R>(_ body: (borrowing ReadTransaction) throws(StalkError) -> R) throws(StalkError) -> R

    /// Runs `body` in a write transaction: durable as a whole when it returns, undone when it throws; see
    /// ``Environment/write(_:)``.
    func write<R>(_ body: (inout WriteTransaction) throws(StalkError) -> R) throws(StalkError) -> R

    /// The bytes that the tables take on the disk; 0 after ``close()``.
    var fileBytes: Int { get }

    /// How many transactions that changed something were committed in the life of the file; 0 where nobody counts.
    var commitCount: UInt64 { get }

    /// Ends the work; later calls throw ``StalkError/Code/closed``.
    func close()
}

extension Index {
    /// Zero: nobody counts.
    package var commitCount: UInt64 { 0 }
}

extension Environment: Index {}

/// What a transaction of an ``Index`` does its work with, when that is not LMDB.
///
/// Keys sort byte by byte, the shorter first. Values carry their checksum, as ``Table`` describes it: making and checking
/// it is not this protocol's business. Bytes handed out stay valid until the transaction ends.
package protocol StandInTransaction: AnyObject {
    /// What is stored under a key.
    func stored(in table: String, under key: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer?

    /// The first entry at or behind a key.
    func entry(in table: String, from key: UnsafeRawBufferPointer) -> StandInEntry?

    /// The last entry before a key, or of all.
    func lastEntry(in table: String, before key: UnsafeRawBufferPointer?) -> StandInEntry?

    /// The number of entries.
    func count(in table: String) -> Int

    /// Stores bytes under a key.
    func store(_ bytes: [UInt8], in table: String, under key: UnsafeRawBufferPointer)

    /// Deletes a key; false when there is none.
    func delete(_ key: UnsafeRawBufferPointer, from table: String) -> Bool
}

/// A key of a ``StandInTransaction`` and what is stored there.
package struct StandInEntry {
    package var key: UnsafeRawBufferPointer
    package var stored: UnsafeRawBufferPointer

    package init(key: UnsafeRawBufferPointer, stored: UnsafeRawBufferPointer) {
        self.key = key
        self.stored = stored
    }
}
