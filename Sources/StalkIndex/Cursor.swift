internal import CLMDB
internal import StalkCore

/// A position in a table, for the length of one call on a transaction.
struct Cursor: ~Copyable {
    private let pointer: OpaquePointer
    private let table: Table
    private(set) var key = UnsafeRawBufferPointer(start: nil, count: 0)
    /// What is stored there: the value and its checksum.
    private(set) var stored = UnsafeRawBufferPointer(start: nil, count: 0)

    init(_ transaction: TransactionHandle, _ table: Table) throws(StalkError) {
        var pointer: OpaquePointer?
        try check(mdb_cursor_open(transaction.pointer, table.handle, &pointer), "read the table \(table.name)")
        guard let pointer else { throw .lmdb(MDB_BAD_TXN, "read the table \(table.name)") }
        self.pointer = pointer
        self.table = table
    }

    deinit {
        mdb_cursor_close(self.pointer)
    }

    /// The checked value, or nil when its checksum does not fit.
    var value: UnsafeRawBufferPointer? { self.table.value(in: self.stored, under: self.key) }

    /// Goes to the first key at or after `key`; false when there is none.
    mutating func seek(_ key: UnsafeRawBufferPointer) throws(StalkError) -> Bool {
        // LMDB takes no empty key, but every key comes after it.
        key.isEmpty ? try self.move(MDB_FIRST) : try self.move(MDB_SET_RANGE, to: key)
    }

    mutating func next() throws(StalkError) -> Bool { try self.move(MDB_NEXT) }

    /// Goes to the last key, or to the last one before `bound`; false when there is none.
    mutating func seekLast(before bound: UnsafeRawBufferPointer?) throws(StalkError) -> Bool {
        guard let bound else { return try self.move(MDB_LAST) }
        return try self.seek(bound) ? try self.move(MDB_PREV) : try self.move(MDB_LAST)
    }

    /// Deletes the entry; ``next()`` then goes to the one after it.
    mutating func delete() -> CInt {
        mdb_cursor_del(self.pointer, 0)
    }

    private mutating func move(
        _ operation: MDB_cursor_op,
        to target: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
    ) throws(StalkError) -> Bool {
        var key = MDB_val(target)
        var stored = MDB_val()
        let status = mdb_cursor_get(self.pointer, &key, &stored, operation)
        guard status != MDB_NOTFOUND else { return false }
        try check(status, "read the table \(self.table.name)")
        self.key = key.bytes
        self.stored = stored.bytes
        return true
    }
}

/// Whether `left` sorts before `right` in a table: byte by byte, the shorter first.
func precedes(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool {
    left.lexicographicallyPrecedes(right)
}
