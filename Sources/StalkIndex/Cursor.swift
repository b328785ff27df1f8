internal import CLMDB
internal import StalkCore

/// A position in a table, for the length of one call on a transaction.
struct Cursor: ~Copyable {
    private enum Place {
        case lmdb(OpaquePointer, PageGuard?)
        case standIn(any StandInTransaction)
    }

    private let place: Place
    private let table: Table
    private(set) var key = UnsafeRawBufferPointer(start: nil, count: 0)
    /// What is stored there: the value and its checksum.
    private(set) var stored = UnsafeRawBufferPointer(start: nil, count: 0)

    init(_ transaction: TransactionHandle, _ table: Table) throws(StalkError) {
        self.table = table
        switch transaction {
        case .standIn(let transaction): self.place = .standIn(transaction)
        case .lmdb(let transaction, let pages):
            var pointer: OpaquePointer?
            try check(mdb_cursor_open(transaction, table.handle, &pointer), "read the table \(table.name)")
            guard let pointer else { throw .lmdb(MDB_BAD_TXN, "read the table \(table.name)") }
            self.place = .lmdb(pointer, pages)
        }
    }

    deinit {
        if case .lmdb(let pointer, _) = self.place { mdb_cursor_close(pointer) }
    }

    /// The checked value, or nil when its checksum does not fit.
    var value: UnsafeRawBufferPointer? { self.table.value(in: self.stored, under: self.key) }

    /// Goes to the first key at or after `key`; false when there is none.
    mutating func seek(_ key: UnsafeRawBufferPointer) throws(StalkError) -> Bool {
        switch self.place {
        case .standIn(let transaction): return self.move(to: transaction.entry(in: self.table.name, from: key))
        // LMDB takes no empty key, but every key comes after it.
        case .lmdb(let pointer, let pages):
            try pages?.allow(.read, key, in: self.table)
            return key.isEmpty ? try self.move(pointer, MDB_FIRST) : try self.move(pointer, MDB_SET_RANGE, to: key)
        }
    }

    mutating func next() throws(StalkError) -> Bool {
        switch self.place {
        case .standIn(let transaction):
            return try withBytes(of: [UInt8](self.key) + [0]) { key in
                self.move(to: transaction.entry(in: self.table.name, from: key))
            }
        case .lmdb(let pointer, let pages):
            if !self.key.isEmpty { try pages?.allow(.read, self.key, in: self.table) }
            return try self.move(pointer, MDB_NEXT)
        }
    }

    /// Goes to the last key, or to the last one before `bound`; false when there is none.
    mutating func seekLast(before bound: UnsafeRawBufferPointer?) throws(StalkError) -> Bool {
        switch self.place {
        case .standIn(let transaction):
            return self.move(to: transaction.lastEntry(in: self.table.name, before: bound))
        case .lmdb(let pointer, let pages):
            try pages?.allow(.read, bound, in: self.table)
            guard let bound, try self.seek(bound) else { return try self.move(pointer, MDB_LAST) }
            return try self.move(pointer, MDB_PREV)
        }
    }

    /// Deletes the entry; ``next()`` then goes to the one after it.
    mutating func delete() -> CInt {
        switch self.place {
        case .standIn(let transaction):
            return transaction.delete(self.key, from: self.table.name) ? MDB_SUCCESS : MDB_NOTFOUND
        case .lmdb(let pointer, _):
            // Its bytes go with it.
            self.key = UnsafeRawBufferPointer(start: nil, count: 0)
            return mdb_cursor_del(pointer, 0)
        }
    }

    private mutating func move(to entry: StandInEntry?) -> Bool {
        guard let entry else { return false }
        self.key = entry.key
        self.stored = entry.stored
        return true
    }

    private mutating func move(
        _ pointer: OpaquePointer,
        _ operation: MDB_cursor_op,
        to target: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
    ) throws(StalkError) -> Bool {
        var key = MDB_val(target)
        var stored = MDB_val()
        let status = mdb_cursor_get(pointer, &key, &stored, operation)
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
