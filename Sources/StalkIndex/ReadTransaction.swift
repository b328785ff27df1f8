internal import CLMDB
internal import StalkCore

/// A snapshot of the tables, for the length of one ``Environment/read(_:)``.
///
/// Keep it short: LMDB reuses no page that was freed after the snapshot began, so the file grows behind a long one.
package struct ReadTransaction: ~Copyable, Transaction {
    package let handle: TransactionHandle

    /// Begins a snapshot of `environment`, which must stay open as long as this lives.
    init(_ environment: OpaquePointer, _ pages: PageGuard? = nil) throws(LMDBCode) {
        var pointer: OpaquePointer?
        let status = mdb_txn_begin(environment, nil, UInt32(MDB_RDONLY), &pointer)
        guard status == MDB_SUCCESS, let pointer else { throw LMDBCode(rawValue: status) }
        self.handle = .lmdb(pointer, pages)
    }

    /// A snapshot of another ``Index``.
    package init(standIn transaction: any StandInTransaction) {
        self.handle = .standIn(transaction)
    }

    deinit {
        if case .lmdb(let pointer, _) = self.handle { mdb_txn_abort(pointer) }
    }
}
