// The tables of a store without LMDB, in a file of a simulated disk.

import StalkCore
import StalkFiles
import StalkIndex

/// Stands in for LMDB where a whole store is simulated.
///
/// What it promises is what LMDB promises: a commit is durable as a whole when ``write(_:)`` returns, and after a power cut
/// in the middle of one it is there or not. Its file is a list of commits, each with a number and a checksum; what a power
/// cut left of the last one is passed over.
final class SimulatedIndex: Index {
    private struct State {
        var tables: [String: SimulatedTable]
        /// Where the next commit goes.
        var end = 0
        var commits: UInt64 = 0
        var failure: StalkError?
        var isOpen = true
    }

    private static let path = "index/data.mdb"

    private let file: any StorageFile
    private let state: Locked<State>

    /// Opens the tables.
    init(in directory: any StorageDirectory, tables: [String], createIfMissing: Bool) throws(StalkError) {
        self.file = try directory.open(Self.path, createIfMissing ? .ifMissing : .existing)
        // After a sync that failed memory may show a commit that the disk does not hold.
        try self.file.sync()
        try self.file.dropCache()
        var state = State(tables: [:])
        for name in tables { state.tables[name] = SimulatedTable() }
        try Self.read(self.file, into: &state)
        self.state = Locked(state)
        guard state.commits == 0 else { return }
        guard createIfMissing else { throw StalkError(.storeDamaged, "The simulated index is empty.") }
        try self.write { _ in }
        try directory.sync("index")
    }

    func table(_ name: String) -> Table { Table(name: name) }

    var fileBytes: Int { self.state.withLock { $0.isOpen ? $0.end : 0 } }

    func close() {
        self.state.withLock { $0.isOpen = false }
    }

    func read<R>(_ body: (borrowing ReadTransaction) throws(StalkError) -> R) throws(StalkError) -> R {
        let transaction = SimulatedTransaction(try self.current().tables)
        return try body(ReadTransaction(standIn: transaction))
    }

    func write<R>(_ body: (inout WriteTransaction) throws(StalkError) -> R) throws(StalkError) -> R {
        let before = try self.current()
        if let failure = before.failure { throw failure }
        let transaction = SimulatedTransaction(before.tables)
        let result = try Self.run(body, on: transaction)
        let commit = transaction.commit(number: before.commits + 1)
        do throws(StalkError) {
            try self.file.write(commit, at: before.end)
            try self.file.sync()
        } catch {
            if error.code != .storageFull { self.state.withLock { $0.failure = error } }
            throw error
        }
        self.state.withLock { state in
            state.tables = transaction.tables
            state.end += commit.count
            state.commits += 1
        }
        return result
    }

    private static func run<R>(
        _ body: (inout WriteTransaction) throws(StalkError) -> R,
        on transaction: SimulatedTransaction
    ) throws(StalkError) -> R {
        var writing = WriteTransaction(standIn: transaction)
        return try body(&writing)
    }

    private func current() throws(StalkError) -> State {
        let state = self.state.withLock { $0 }
        guard state.isOpen else { throw StalkError(.closed, "The simulated index is closed.") }
        return state
    }

    // MARK: The file

    private static func read(_ file: any StorageFile, into state: inout State) throws(StalkError) {
        let bytes = try file.read(at: 0, count: try file.size())
        bytes.withUnsafeBytes { bytes in
            while let commit = SimulatedCommit(
                reading: UnsafeRawBufferPointer(rebasing: bytes[state.end...]),
                number: state.commits + 1
            ) {
                for change in commit.changes {
                    state.tables[change.table]?.set(change.key, change.value.map { Blob($0) })
                }
                state.end += commit.byteCount
                state.commits += 1
            }
        }
    }
}

/// One commit in the file of a ``SimulatedIndex``: length, number, checksum, changes.
struct SimulatedCommit {
    struct Change {
        var table: String
        var key: [UInt8]
        /// `nil` deletes the key.
        var value: [UInt8]?
    }

    static let headerBytes = 24

    var changes: [Change] = []
    var byteCount = 0

    /// Reads a commit; `nil` when there is none of this number, or not all of it.
    init?(reading bytes: UnsafeRawBufferPointer, number: UInt64) {
        do {
            var reader = ByteReader(bytes)
            let length = try reader.read(UInt64.self)
            guard try reader.read(UInt64.self) == number else { return nil }
            let checksum = try reader.read(UInt64.self)
            guard length <= UInt64(reader.remaining) else { return nil }
            let payload = try reader.readBuffer(Int(length))
            guard Self.checksum(payload, number) == checksum else { return nil }
            reader = ByteReader(payload)
            while reader.remaining > 0 {
                let table = try reader.readShortText()
                let key = try reader.readBytes(Int(try reader.read(UInt16.self)))
                let length = try reader.read(UInt32.self)
                let value = length == UInt32.max ? nil : try reader.readBytes(Int(length))
                self.changes.append(Change(table: table, key: key, value: value))
            }
            self.byteCount = Self.headerBytes + Int(length)
        } catch {
            return nil
        }
    }

    init() {}

    func bytes(number: UInt64) -> [UInt8] {
        var payload = ByteWriter()
        for change in self.changes {
            payload.writeShortText(change.table)
            payload.write(UInt16(change.key.count))
            payload.write(change.key)
            payload.write(change.value.map { UInt32($0.count) } ?? UInt32.max)
            payload.write(change.value ?? [])
        }
        var writer = ByteWriter()
        writer.write(UInt64(payload.bytes.count))
        writer.write(number)
        writer.write(payload.bytes.withUnsafeBytes { Self.checksum($0, number) })
        writer.write(payload.bytes)
        return writer.bytes
    }

    /// FNV-1a: nobody attacks it, and it must not be the checksum that is under test.
    private static func checksum(_ bytes: UnsafeRawBufferPointer, _ number: UInt64) -> UInt64 {
        bytes.reduce(0xCBF2_9CE4_8422_2325 ^ number) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    }
}

/// Bytes that stay where they are as long as somebody holds them.
final class Blob: Sendable {
    // SAFETY: written once, in the initialiser.
    nonisolated(unsafe) let bytes: UnsafeRawBufferPointer

    init(_ contents: [UInt8]) {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(contents.count, 1), alignment: 8)
        memory.copyBytes(from: contents)
        self.bytes = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[..<contents.count])
    }

    deinit {
        self.bytes.deallocate()
    }
}

/// One table, sorted by key.
struct SimulatedTable: Sendable {
    struct Row: Sendable {
        var key: Blob
        var stored: Blob
    }

    private(set) var rows: [Row] = []

    /// The position of the first key at or behind this one.
    func position(of key: UnsafeRawBufferPointer) -> Int {
        var low = 0
        var high = self.rows.count
        while low < high {
            let middle = (low + high) / 2
            if self.rows[middle].key.bytes.lexicographicallyPrecedes(key) { low = middle + 1 } else { high = middle }
        }
        return low
    }

    func row(at key: UnsafeRawBufferPointer) -> Row? {
        let position = self.position(of: key)
        guard position < self.rows.count, self.rows[position].key.bytes.elementsEqual(key) else { return nil }
        return self.rows[position]
    }

    /// Stores bytes under a key, or deletes it.
    ///
    /// - Returns: The row that was there.
    @discardableResult
    mutating func set(_ key: UnsafeRawBufferPointer, _ stored: Blob?) -> Row? {
        let position = self.position(of: key)
        let old =
            position < self.rows.count && self.rows[position].key.bytes.elementsEqual(key) ? self.rows[position] : nil
        if let stored {
            let row = Row(key: old?.key ?? Blob([UInt8](key)), stored: stored)
            if old != nil { self.rows[position] = row } else { self.rows.insert(row, at: position) }
        } else if old != nil {
            self.rows.remove(at: position)
        }
        return old
    }

    mutating func set(_ key: [UInt8], _ stored: Blob?) {
        key.withUnsafeBytes { _ = self.set($0, stored) }
    }
}

/// A transaction of a ``SimulatedIndex``.
private final class SimulatedTransaction: StandInTransaction {
    private(set) var tables: [String: SimulatedTable]
    private var changes = SimulatedCommit()
    /// What was replaced or deleted: bytes handed out must stay valid.
    private var old: [SimulatedTable.Row] = []

    init(_ tables: [String: SimulatedTable]) {
        self.tables = tables
    }

    func commit(number: UInt64) -> [UInt8] { self.changes.bytes(number: number) }

    func stored(in table: String, under key: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        self.tables[table]?.row(at: key)?.stored.bytes
    }

    func entry(in table: String, from key: UnsafeRawBufferPointer) -> StandInEntry? {
        guard let rows = self.tables[table] else { return nil }
        return self.entry(rows, at: rows.position(of: key))
    }

    func lastEntry(in table: String, before key: UnsafeRawBufferPointer?) -> StandInEntry? {
        guard let rows = self.tables[table] else { return nil }
        return self.entry(rows, at: (key.map { rows.position(of: $0) } ?? rows.rows.count) - 1)
    }

    private func entry(_ table: SimulatedTable, at position: Int) -> StandInEntry? {
        guard table.rows.indices.contains(position) else { return nil }
        let row = table.rows[position]
        return StandInEntry(key: row.key.bytes, stored: row.stored.bytes)
    }

    func count(in table: String) -> Int { self.tables[table]?.rows.count ?? 0 }

    func store(_ bytes: [UInt8], in table: String, under key: UnsafeRawBufferPointer) {
        self.change(table, key, bytes)
    }

    func delete(_ key: UnsafeRawBufferPointer, from table: String) -> Bool {
        guard self.tables[table]?.row(at: key) != nil else { return false }
        self.change(table, key, nil)
        return true
    }

    private func change(_ table: String, _ key: UnsafeRawBufferPointer, _ value: [UInt8]?) {
        self.changes.changes.append(SimulatedCommit.Change(table: table, key: [UInt8](key), value: value))
        if let old = self.tables[table]?.set(key, value.map { Blob($0) }) { self.old.append(old) }
    }
}
