internal import CLMDB
internal import Glibc
package import StalkCore

/// Changes that are committed together or not at all, for the length of one ``Environment/write(_:)``.
///
/// It sees its own changes. It belongs to the thread that began it, which is why it is handed to a synchronous closure.
package struct WriteTransaction: ~Copyable, Transaction {
    package let handle: TransactionHandle
    /// The first code after which LMDB can't commit; whatever the closure made of the error, the transaction is lost.
    private(set) var failure: LMDBCode?
    /// The first page of a large file that LMDB was kept from; the transaction is lost too.
    private(set) var damage: StalkError?
    private var isOpen = true

    init(_ environment: OpaquePointer, _ pages: PageGuard? = nil, isReadOnly: Bool = false) throws(LMDBCode) {
        var pointer: OpaquePointer?
        let status = mdb_txn_begin(environment, nil, isReadOnly ? UInt32(MDB_RDONLY) : 0, &pointer)
        guard status == MDB_SUCCESS, let pointer else { throw LMDBCode(rawValue: status) }
        self.handle = .lmdb(pointer, pages)
    }

    /// A transaction of another ``Index``, which commits it or drops it by itself.
    package init(standIn transaction: any StandInTransaction) {
        self.handle = .standIn(transaction)
    }

    deinit {
        if self.isOpen, case .lmdb(let pointer, _) = self.handle { mdb_txn_abort(pointer) }
    }

    /// Makes the changes durable, or nothing if it throws.
    consuming func commit() throws(LMDBCode) {
        if let failure { throw failure }
        // LMDB frees its transaction whether or not it can commit.
        self.isOpen = false
        guard case .lmdb(let pointer, _) = self.handle else { return }
        errno = 0
        let status = mdb_txn_commit(pointer)
        guard status == MDB_SUCCESS else { throw LMDBCode(commit: status, systemError: errno) }
    }

    /// Opens a table for all transactions of the environment.
    borrowing func openTable(_ name: String, create: Bool) throws(LMDBCode) -> Table {
        guard case .lmdb(let pointer, _) = self.handle else { return Table(name: name) }
        var table: MDB_dbi = 0
        let status = mdb_dbi_open(pointer, name, create ? UInt32(MDB_CREATE) : 0, &table)
        guard status == MDB_SUCCESS else { throw LMDBCode(rawValue: status) }
        return Table(handle: table, name: name)
    }

    /// Stores a value, replacing what was there.
    ///
    /// - Throws: ``StalkError/Code/invalidArgument`` for a key of no or more than ``Table/keyBytesMax`` bytes;
    ///   ``StalkError/Code/storageFull`` and ``StalkError/Code/storageFailed``, after which the transaction can't be
    ///   committed.
    package mutating func put(
        _ table: Table,
        _ key: UnsafeRawBufferPointer,
        _ value: UnsafeRawBufferPointer
    ) throws(StalkError) {
        try self.allowWrite(key, in: table)
        let status = self.store(table, key, value, hint: 0)
        try self.record(status, "write to the table \(table.name)")
    }

    /// Stores a value, replacing what was there.
    ///
    /// - Throws: As the variant that takes buffers.
    package mutating func put(_ table: Table, _ key: [UInt8], _ value: [UInt8]) throws(StalkError) {
        try withBytes(of: key) { key throws(StalkError) in
            try withBytes(of: value) { value throws(StalkError) in try self.put(table, key, value) }
        }
    }

    /// Stores a value whose key is most likely greater than every key of the table, which is faster and packs pages
    /// full; any other key is stored too, only slower than by ``put(_:_:_:)``.
    ///
    /// - Throws: As ``put(_:_:_:)``.
    package mutating func append(
        _ table: Table,
        _ key: UnsafeRawBufferPointer,
        _ value: UnsafeRawBufferPointer
    ) throws(StalkError) {
        try self.allowWrite(key, in: table)
        var status = self.store(table, key, value, hint: MDB_APPEND)
        if status == MDB_KEYEXIST { status = self.store(table, key, value, hint: 0) }
        try self.record(status, "write to the table \(table.name)")
    }

    /// Stores a value whose key is most likely greater than every key of the table.
    ///
    /// - Throws: As ``put(_:_:_:)``.
    package mutating func append(_ table: Table, _ key: [UInt8], _ value: [UInt8]) throws(StalkError) {
        try withBytes(of: key) { key throws(StalkError) in
            try withBytes(of: value) { value throws(StalkError) in try self.append(table, key, value) }
        }
    }

    /// Deletes a key, whether or not its value is sound; false when the table has no such key.
    ///
    /// - Throws: As ``put(_:_:_:)``.
    @discardableResult
    package mutating func delete(_ table: Table, _ key: UnsafeRawBufferPointer) throws(StalkError) -> Bool {
        guard case .lmdb(let pointer, _) = self.handle else {
            return self.standIn?.delete(key, from: table.name) ?? false
        }
        try self.allowWrite(key, in: table)
        var search = MDB_val(key)
        let status = mdb_del(pointer, table.handle, &search, nil)
        guard status != MDB_NOTFOUND else { return false }
        try self.record(status, "delete from the table \(table.name)")
        return true
    }

    /// Deletes a key, whether or not its value is sound; false when the table has no such key.
    ///
    /// - Throws: As ``put(_:_:_:)``.
    @discardableResult
    package mutating func delete(_ table: Table, _ key: [UInt8]) throws(StalkError) -> Bool {
        try withBytes(of: key) { key throws(StalkError) in try self.delete(table, key) }
    }

    /// Deletes every key from `start` on that is less than `end` (nil: to the end of the table).
    ///
    /// - Returns: How many were deleted.
    /// - Throws: As ``put(_:_:_:)``.
    @discardableResult
    package mutating func deleteRange(
        _ table: Table,
        from start: [UInt8] = [],
        upTo end: [UInt8]?
    ) throws(StalkError) -> Int {
        var deleted = 0
        var status = MDB_SUCCESS
        do {
            var cursor = try Cursor(self.handle, table)
            var found = try withBytes(of: start) { start throws(StalkError) in try cursor.seek(start) }
            while found, Self.precedes(cursor.key, end) {
                try self.allowWrite(cursor.key, in: table)
                status = cursor.delete()
                guard status == MDB_SUCCESS else { break }
                deleted += 1
                found = try cursor.next()
            }
        }
        try self.record(status, "delete from the table \(table.name)")
        return deleted
    }

    /// Has the pages checked that LMDB goes to for a change at `key`.
    private mutating func allowWrite(_ key: UnsafeRawBufferPointer, in table: Table) throws(StalkError) {
        guard case .lmdb(_, let pages?) = self.handle else { return }
        do throws(StalkError) {
            try pages.allow(.write, key, in: table)
        } catch {
            if self.damage == nil { self.damage = error }
            throw error
        }
    }

    private var standIn: (any StandInTransaction)? {
        if case .standIn(let transaction) = self.handle { transaction } else { nil }
    }

    private static func precedes(_ key: UnsafeRawBufferPointer, _ end: [UInt8]?) -> Bool {
        guard let end else { return true }
        return end.withUnsafeBytes { end in StalkIndex.precedes(key, end) }
    }

    /// Lets LMDB reserve the room and writes value and checksum there, so that nothing is copied twice.
    private mutating func store(
        _ table: Table,
        _ key: UnsafeRawBufferPointer,
        _ value: UnsafeRawBufferPointer,
        hint: CInt
    ) -> CInt {
        guard (1...Table.keyBytesMax).contains(key.count) else { return MDB_BAD_VALSIZE }
        let checksum = table.checksum(key, value).littleEndian
        guard case .lmdb(let pointer, _) = self.handle else {
            let stored = [UInt8](value) + withUnsafeBytes(of: checksum) { [UInt8]($0) }
            self.standIn?.store(stored, in: table.name, under: key)
            return MDB_SUCCESS
        }
        var search = MDB_val(key)
        var room = MDB_val(mv_size: value.count + Table.checksumBytes, mv_data: nil)
        let status = mdb_put(pointer, table.handle, &search, &room, UInt32(MDB_RESERVE | hint))
        guard status == MDB_SUCCESS, let target = room.mv_data else { return status }
        if let source = value.baseAddress { target.copyMemory(from: source, byteCount: value.count) }
        target.storeBytes(of: checksum, toByteOffset: value.count, as: UInt32.self)
        return MDB_SUCCESS
    }

    private mutating func record(_ status: CInt, _ action: @autoclosure () -> String) throws(StalkError) {
        guard status != MDB_SUCCESS else { return }
        // A key or value of a wrong size is refused before anything changes; all else leaves the transaction unsound.
        if status != MDB_BAD_VALSIZE, self.failure == nil { self.failure = LMDBCode(rawValue: status) }
        throw .lmdb(status, action())
    }
}
