// The rows of a store's tables as bytes, and what they say.

internal import StalkCore
internal import StalkIndex
internal import StalkZstd

/// What rows that come from an index one can't trust say, each checked on its own.
struct IndexRows {
    /// A message's record, read.
    struct Message {
        var standing: MessageStanding
        var bodyBytes: Int
    }

    let bodies: BodyCodec
    private let tables: [String: Table]

    init() throws(StalkError) {
        self.bodies = try BodyCodec(maxBodyBytes: 1 << 30)
        self.tables = Dictionary(uniqueKeysWithValues: SettledTables.names.map { ($0, Table(name: $0)) })
    }

    /// The value of a row, when its checksum says that it belongs into the table.
    func value(of row: PageCursor.Row, in table: String) -> [UInt8]? {
        self.tables[table].flatMap { row.value(in: $0) }.map { Array($0) }
    }

    /// The table that a row's checksum says it belongs to.
    func table(of row: PageCursor.Row) -> String? {
        SettledTables.names.first { name in self.tables[name].map { row.value(in: $0) != nil } ?? false }
    }

    /// The number in a key of eight bytes.
    static func sequence(_ key: [UInt8]) -> UInt64? {
        guard key.count == 8 else { return nil }
        return key.reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// The number in a key of four bytes.
    static func number(_ key: [UInt8]) -> UInt32? {
        guard key.count == 4 else { return nil }
        return key.reduce(0) { $0 << 8 | UInt32($1) }
    }

    /// A record of `meta`; `nil` when it is damaged.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/newerFormat``.
    func meta(_ row: PageCursor.Row) throws(StalkError) -> StoreMeta? {
        guard row.key == Array("store".utf8), let value = self.value(of: row, in: "meta") else { return nil }
        return try Self.unlessCorrupt { () throws(StalkError) in
            try withKey(value) { value throws(StalkError) in try StoreMeta(reading: value) }
        }
    }

    /// A record of `queues`; `nil` when it is damaged.
    func queue(_ row: PageCursor.Row) throws(StalkError) -> SettledQueue? {
        guard let number = Self.number(row.key), number > 0, let value = self.value(of: row, in: "queues") else {
            return nil
        }
        return try Self.unlessCorrupt { () throws(StalkError) in
            let queue = try withKey(value) { value throws(StalkError) in
                try SettledQueue(reading: value, number: number)
            }
            return (try? QueueName(queue.name.rawValue)) == nil ? nil : queue
        }
    }

    /// Takes a dictionary in; false when it is damaged.
    func addDictionary(_ row: PageCursor.Row) throws(StalkError) -> Bool {
        guard let id = Self.number(row.key), let value = self.value(of: row, in: "dictionaries") else { return false }
        let isAdded = try Self.unlessCorrupt { () throws(StalkError) in
            try withKey(value) { record throws(StalkError) in try self.bodies.add(dictionary: id, record: record) }
            return true
        }
        return isAdded ?? false
    }

    /// A record of `messages`; `nil` when it is damaged or its body can't be had.
    func message(_ row: PageCursor.Row) throws(StalkError) -> Message? {
        guard let sequence = Self.sequence(row.key), let value = self.value(of: row, in: "messages") else { return nil }
        return try Self.unlessCorrupt { () throws(StalkError) in
            try withKey(value) { value throws(StalkError) in
                try MessageValue.read(value, sequence: sequence) { record, envelope throws(StalkError) in
                    Message(standing: record.standing, bodyBytes: try self.bodies.body(of: envelope).count)
                }
            }
        }
    }

    /// A record of `states`; `nil` when it is damaged.
    func state(_ row: PageCursor.Row) throws(StalkError) -> MessageStanding? {
        guard let sequence = Self.sequence(row.key), let value = self.value(of: row, in: "states") else { return nil }
        return try Self.unlessCorrupt { () throws(StalkError) in
            try withKey(value) { value throws(StalkError) in
                try MessageStanding(reading: value, sequence: sequence)
            }
        }
    }

    /// A row of `ready` or `dead`; `nil` when it is damaged.
    func place(_ row: PageCursor.Row, isDead: Bool) -> SettledPlace? {
        guard row.key.count == 21, let value = self.value(of: row, in: isDead ? "dead" : "ready"),
            let (queue, key) = try? withKey(row.key, { key throws(StalkError) in try KeyReader.place(key) })
        else { return nil }
        return SettledPlace(queue: queue, key: key, isScheduled: !isDead && value.first == 1, isDead: isDead)
    }

    private static func unlessCorrupt<Value>(
        _ body: () throws(StalkError) -> Value?
    ) throws(StalkError) -> Value? {
        do throws(StalkError) {
            return try body()
        } catch {
            guard error.code == .corruptValue || error.code == .storeDamaged else { throw error }
            return nil
        }
    }
}
