internal import CLMDB
package import StalkCore

/// What does the work of a ``Transaction``.
package enum TransactionHandle {
    /// LMDB's transaction, and what keeps it from damaged pages.
    case lmdb(OpaquePointer, PageGuard?)
    /// That of another ``Index``.
    case standIn(any StandInTransaction)
}

/// What a scan does after an entry.
package enum ScanStep {
    /// Go to the next key.
    case next
    /// End the scan.
    case stop
    /// Go to the first key at or after this one, which must be greater than the entry's own key.
    case seek([UInt8])
}

/// Reads of a snapshot: what ``ReadTransaction`` and ``WriteTransaction`` share.
///
/// Bytes handed to a closure lie in the memory map: they must not be kept after it returns.
/// Every call throws ``StalkError`` with ``StalkError/Code/storeDamaged`` when LMDB notices damage of its pages.
package protocol Transaction: ~Copyable {
    /// What does the work, open as long as this value lives.
    var handle: TransactionHandle { get }
}

extension Transaction where Self: ~Copyable {
    /// Hands the value under a key to a closure, without a copy.
    ///
    /// - Returns: What the closure returned, or nil when the table has no such key.
    /// - Throws: ``StalkError/Code/corruptValue`` when the value fails its checksum; what the closure throws.
    package borrowing func withValue<R>(
        _ table: Table,
        _ key: UnsafeRawBufferPointer,
        _ body: (UnsafeRawBufferPointer) throws(StalkError) -> R
    ) throws(StalkError) -> R? {
        guard let stored = try self.stored(table, key) else { return nil }
        guard let value = table.value(in: stored, under: key) else { throw table.corruptValue(under: key) }
        return try body(value)
    }

    /// Copies the value under a key; nil when the table has no such key.
    ///
    /// - Throws: ``StalkError/Code/corruptValue`` when the value fails its checksum.
    package borrowing func get(_ table: Table, _ key: UnsafeRawBufferPointer) throws(StalkError) -> [UInt8]? {
        try self.withValue(table, key) { value in [UInt8](value) }
    }

    /// Copies the value under a key; nil when the table has no such key.
    ///
    /// - Throws: ``StalkError/Code/corruptValue`` when the value fails its checksum.
    package borrowing func get(_ table: Table, _ key: [UInt8]) throws(StalkError) -> [UInt8]? {
        try withBytes(of: key) { key throws(StalkError) in try self.get(table, key) }
    }

    /// Whether the table has the key; its value is not read.
    package borrowing func contains(_ table: Table, _ key: UnsafeRawBufferPointer) throws(StalkError) -> Bool {
        try self.stored(table, key) != nil
    }

    /// Whether the table has the key; its value is not read.
    package borrowing func contains(_ table: Table, _ key: [UInt8]) throws(StalkError) -> Bool {
        try withBytes(of: key) { key throws(StalkError) in try self.contains(table, key) }
    }

    /// Visits the entries in key order, from the first key at or after `start` (all of them if it is empty).
    ///
    /// One bad record does not end the scan: it goes to `onCorrupt` instead of `body`, which decides what comes next.
    ///
    /// - Parameters:
    ///   - table: The table to scan.
    ///   - start: Where to begin.
    ///   - body: Gets the key and the value of each sound entry.
    ///   - onCorrupt: Gets the key, as it is, and the stored bytes, with the checksum, of each entry that fails it.
    package borrowing func scan(
        _ table: Table,
        from start: [UInt8] = [],
        _ body: (_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) throws(StalkError) -> ScanStep,
        onCorrupt: (_ key: UnsafeRawBufferPointer, _ stored: UnsafeRawBufferPointer) throws(StalkError) -> ScanStep
    ) throws(StalkError) {
        var cursor = try Cursor(self.handle, table)
        var found = try withBytes(of: start) { start throws(StalkError) in try cursor.seek(start) }
        while found {
            let step =
                if let value = cursor.value {
                    try body(cursor.key, value)
                } else {
                    try onCorrupt(cursor.key, cursor.stored)
                }
            switch step {
            case .next:
                found = try cursor.next()
            case .stop:
                return
            case .seek(let target):
                found = try withBytes(of: target) { target throws(StalkError) in
                    precondition(precedes(cursor.key, target), "A scan only goes forward.")
                    return try cursor.seek(target)
                }
            }
        }
    }

    /// Visits the entries in key order, from the first key at or after `start` (all of them if it is empty).
    ///
    /// - Throws: ``StalkError/Code/corruptValue`` at the first entry that fails its checksum; what the closure throws.
    package borrowing func scan(
        _ table: Table,
        from start: [UInt8] = [],
        _ body: (_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) throws(StalkError) -> ScanStep
    ) throws(StalkError) {
        try self.scan(table, from: start, body) { key, _ throws(StalkError) in throw table.corruptValue(under: key) }
    }

    /// Hands the entry with the greatest key to a closure; nil when there is none.
    ///
    /// - Parameters:
    ///   - table: The table to look in.
    ///   - bound: Only keys before this one count; nil for all keys.
    ///   - body: Gets the key and the value.
    /// - Throws: ``StalkError/Code/corruptValue`` when the value fails its checksum; what the closure throws.
    package borrowing func withLast<R>(
        _ table: Table,
        before bound: [UInt8]? = nil,
        _ body: (_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) throws(StalkError) -> R
    ) throws(StalkError) -> R? {
        var cursor = try Cursor(self.handle, table)
        let found =
            if let bound {
                try withBytes(of: bound) { bound throws(StalkError) in try cursor.seekLast(before: bound) }
            } else {
                try cursor.seekLast(before: nil)
            }
        guard found else { return nil }
        guard let value = cursor.value else { throw table.corruptValue(under: cursor.key) }
        return try body(cursor.key, value)
    }

    /// Copies the entry with the greatest key (before `bound`, if given); nil when there is none.
    ///
    /// - Throws: ``StalkError/Code/corruptValue`` when the value fails its checksum.
    package borrowing func last(
        _ table: Table,
        before bound: [UInt8]? = nil
    ) throws(StalkError) -> (key: [UInt8], value: [UInt8])? {
        try self.withLast(table, before: bound) { key, value in ([UInt8](key), [UInt8](value)) }
    }

    /// How many entries the table has.
    ///
    /// - Complexity: O(1).
    package borrowing func count(_ table: Table) throws(StalkError) -> Int {
        switch self.handle {
        case .standIn(let transaction): return transaction.count(in: table.name)
        case .lmdb(let pointer, _):
            var statistics = MDB_stat()
            try check(mdb_stat(pointer, table.handle, &statistics), "count the table \(table.name)")
            return statistics.ms_entries
        }
    }

    private borrowing func stored(
        _ table: Table,
        _ key: UnsafeRawBufferPointer
    ) throws(StalkError) -> UnsafeRawBufferPointer? {
        switch self.handle {
        case .standIn(let transaction): return transaction.stored(in: table.name, under: key)
        case .lmdb(let pointer, let pages):
            try pages?.allow(.read, key, in: table)
            var search = MDB_val(key)
            var stored = MDB_val()
            let status = mdb_get(pointer, table.handle, &search, &stored)
            guard status != MDB_NOTFOUND else { return nil }
            try check(status, "read the table \(table.name)")
            return stored.bytes
        }
    }
}

/// `withUnsafeBytes` with typed throws.
func withBytes<R>(
    of bytes: [UInt8],
    _ body: (UnsafeRawBufferPointer) throws(StalkError) -> R
) throws(StalkError) -> R {
    try bytes.withUnsafeBufferPointer { bytes throws(StalkError) in try body(UnsafeRawBufferPointer(bytes)) }
}
