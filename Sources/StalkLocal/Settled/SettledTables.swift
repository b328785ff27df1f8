// What LMDB keeps of a store, table by table.

internal import StalkCore
internal import StalkIndex

/// The tables of a store in LMDB: written by checkpoints alone, read when memory does not know enough.
///
/// | table | key | value |
/// | --- | --- | --- |
/// | `meta` | `store` | the store as a whole: format, log position, clock |
/// | `queues` | number | name and figures |
/// | `messages` | message | what never changes, the body compressed |
/// | `states` | message | what changed since the message was settled: attempts, due time, failures |
/// | `ready` | queue, priority, due time, message | whether it waits in the schedule |
/// | `schedule` | due time, message | queue |
/// | `dead` | queue, priority, due time, message | nothing |
/// | `dictionaries` | number | what zstd was trained with |
///
/// A message without a record in `states` is as its record in `messages` says.
final class SettledTables: Sendable {
    let index: any Index
    let bodies: BodyCodec
    let meta: Table
    let queues: Table
    let messages: Table
    let states: Table
    let ready: Table
    let schedule: Table
    let dead: Table
    let dictionaries: Table

    /// Opens the tables.
    ///
    /// - Parameters:
    ///   - index: What holds them, opened with ``names``.
    ///   - maxBodyBytes: No body is larger.
    init(_ index: any Index, maxBodyBytes: Int) throws(StalkError) {
        self.index = index
        self.meta = index.table("meta")
        self.queues = index.table("queues")
        self.messages = index.table("messages")
        self.states = index.table("states")
        self.ready = index.table("ready")
        self.schedule = index.table("schedule")
        self.dead = index.table("dead")
        self.dictionaries = index.table("dictionaries")
        self.bodies = try BodyCodec(maxBodyBytes: maxBodyBytes)
        try self.loadDictionaries()
    }

    /// Opens LMDB for the tables.
    ///
    /// - Parameters:
    ///   - path: The directory that LMDB's files are in.
    ///   - createIfMissing: Whether to make them.
    static func openLMDB(path: String, createIfMissing: Bool) throws(StalkError) -> Environment {
        try Environment(path: path, mapBytes: 1 << 30, tables: Self.names, createIfMissing: createIfMissing)
    }

    /// The tables of a store.
    static let names = ["meta", "queues", "messages", "states", "ready", "schedule", "dead", "dictionaries"]

    static let metaKey = Array("store".utf8)

    // MARK: The store as a whole

    /// What LMDB knows of the store; `nil` in a new one.
    func readMeta() throws(StalkError) -> StoreMeta? {
        try self.index.read { transaction throws(StalkError) in
            try withKey(Self.metaKey) { key throws(StalkError) in
                try transaction.withValue(self.meta, key) { value throws(StalkError) in try StoreMeta(reading: value) }
            }
        }
    }

    /// The queues by number.
    func readQueues() throws(StalkError) -> [SettledQueue] {
        var queues: [SettledQueue] = []
        try self.index.read { transaction throws(StalkError) in
            try transaction.scan(self.queues) { key, value throws(StalkError) in
                var reader = KeyReader(key)
                queues.append(try SettledQueue(reading: value, number: try reader.readUInt32()))
                return .next
            }
        }
        return queues
    }

    private func loadDictionaries() throws(StalkError) {
        try self.index.read { transaction throws(StalkError) in
            try transaction.scan(self.dictionaries) { key, value throws(StalkError) in
                var reader = KeyReader(key)
                try self.bodies.add(dictionary: try reader.readUInt32(), record: value)
                return .next
            }
        }
    }
}

/// `withUnsafeBytes` with typed throws.
func withKey<R>(
    _ key: [UInt8],
    _ body: (UnsafeRawBufferPointer) throws(StalkError) -> R
) throws(StalkError) -> R {
    try key.withUnsafeBufferPointer { bytes throws(StalkError) in try body(UnsafeRawBufferPointer(bytes)) }
}
