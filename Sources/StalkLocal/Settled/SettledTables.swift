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
    let environment: Environment
    let bodies: BodyCodec
    private let meta: Table
    private let queues: Table
    private let messages: Table
    private let states: Table
    private let ready: Table
    private let schedule: Table
    private let dead: Table
    private let dictionaries: Table

    /// Opens the tables.
    ///
    /// - Parameters:
    ///   - path: The directory that LMDB's files are in.
    ///   - createIfMissing: Whether to make them.
    ///   - maxBodyBytes: No body is larger.
    init(path: String, createIfMissing: Bool, maxBodyBytes: Int) throws(StalkError) {
        let names = ["meta", "queues", "messages", "states", "ready", "schedule", "dead", "dictionaries"]
        let environment = try Environment(
            path: path, mapBytes: 1 << 30, tables: names, createIfMissing: createIfMissing)
        self.environment = environment
        self.meta = environment.table("meta")
        self.queues = environment.table("queues")
        self.messages = environment.table("messages")
        self.states = environment.table("states")
        self.ready = environment.table("ready")
        self.schedule = environment.table("schedule")
        self.dead = environment.table("dead")
        self.dictionaries = environment.table("dictionaries")
        self.bodies = try BodyCodec(maxBodyBytes: maxBodyBytes)
        try self.loadDictionaries()
    }

    private static let metaKey = Array("store".utf8)

    // MARK: The store as a whole

    /// What LMDB knows of the store; `nil` in a new one.
    func readMeta() throws(StalkError) -> StoreMeta? {
        try self.environment.read { transaction throws(StalkError) in
            try withKey(Self.metaKey) { key throws(StalkError) in
                try transaction.withValue(self.meta, key) { value throws(StalkError) in try StoreMeta(reading: value) }
            }
        }
    }

    /// The queues by number.
    func readQueues() throws(StalkError) -> [SettledQueue] {
        var queues: [SettledQueue] = []
        try self.environment.read { transaction throws(StalkError) in
            try transaction.scan(self.queues) { key, value throws(StalkError) in
                var reader = KeyReader(key)
                queues.append(try SettledQueue(reading: value, number: try reader.readUInt32()))
                return .next
            }
        }
        return queues
    }

    private func loadDictionaries() throws(StalkError) {
        try self.environment.read { transaction throws(StalkError) in
            try transaction.scan(self.dictionaries) { key, value throws(StalkError) in
                var reader = KeyReader(key)
                try self.bodies.add(dictionary: try reader.readUInt32(), record: value)
                return .next
            }
        }
    }

    // MARK: Checkpoints

    /// Writes a checkpoint in one synced transaction.
    ///
    /// Compressing comes before it, so that the transaction stays short.
    func apply(_ batch: SettleBatch) throws(StalkError) {
        let changes = batch.changes.sorted { $0.sequence < $1.sequence }
        let envelopes = try self.bodies.envelopes(for: changes)
        let newDictionaries = self.bodies.newDictionaries()
        try self.environment.write { transaction throws(StalkError) in
            for (change, envelope) in zip(changes, envelopes) {
                try self.apply(change, envelope, &transaction)
            }
            for queue in batch.queues {
                var writer = ByteWriter()
                queue.write(to: &writer)
                try transaction.put(self.queues, KeyBuilder.queue(queue.number), writer.bytes)
            }
            for dictionary in newDictionaries {
                try transaction.put(self.dictionaries, KeyBuilder.queue(dictionary.id), dictionary.record)
            }
            // What the schedule has released stands among the ready ones alone.
            let released = batch.meta.releasedThrough
            let end = ScheduleKey(dueAt: released.dueAt, sequence: released.sequence)
            try transaction.deleteRange(self.schedule, upTo: KeyBuilder.schedule(end) + [0])
            var writer = ByteWriter()
            batch.meta.write(to: &writer)
            try transaction.put(self.meta, Self.metaKey, writer.bytes)
        }
        self.bodies.noteStored(newDictionaries)
    }

    private func apply(
        _ change: SettleChange,
        _ envelope: [UInt8]?,
        _ transaction: inout WriteTransaction
    ) throws(StalkError) {
        let key = KeyBuilder.message(change.sequence)
        if let before = change.before, change.after?.place != before {
            try self.remove(before, &transaction)
        }
        guard let after = change.after else {
            if change.before != nil {
                try transaction.delete(self.messages, key)
                try transaction.delete(self.states, key)
            }
            return
        }
        if change.before != after.place {
            try self.add(after.place, &transaction)
        }
        if let content = change.content, let envelope {
            var writer = ByteWriter(reserving: envelope.count + 64)
            MessageValue(standing: after, content: content, envelope: envelope).write(to: &writer)
            try transaction.append(self.messages, key, writer.bytes)
            guard after.needsState else { return }
        }
        var writer = ByteWriter()
        after.write(to: &writer)
        try transaction.put(self.states, key, writer.bytes)
    }

    private func add(_ place: SettledPlace, _ transaction: inout WriteTransaction) throws(StalkError) {
        let key = KeyBuilder.place(place.queue, place.key)
        guard !place.isDead else {
            try transaction.put(self.dead, key, [])
            return
        }
        try transaction.put(self.ready, key, [place.isScheduled ? 1 : 0])
        if place.isScheduled {
            let queue = KeyBuilder.queue(place.queue)
            try transaction.put(self.schedule, KeyBuilder.schedule(place.key.scheduleKey), queue)
        }
    }

    private func remove(_ place: SettledPlace, _ transaction: inout WriteTransaction) throws(StalkError) {
        let key = KeyBuilder.place(place.queue, place.key)
        try transaction.delete(place.isDead ? self.dead : self.ready, key)
        if place.isScheduled {
            try transaction.delete(self.schedule, KeyBuilder.schedule(place.key.scheduleKey))
        }
    }

    // MARK: Reading messages

    /// One message; `nil` when LMDB does not hold it.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/corruptValue`` when one of its records fails its checksum.
    func message(_ sequence: UInt64) throws(StalkError) -> SettledMessage? {
        try self.environment.read { transaction throws(StalkError) in try self.message(sequence, transaction) }
    }

    /// How many messages LMDB holds.
    func messageCount() throws(StalkError) -> Int {
        try self.environment.read { transaction throws(StalkError) in try transaction.count(self.messages) }
    }

    /// What changed about a message since it was settled; `nil` when nothing did.
    func standing(_ sequence: UInt64) throws(StalkError) -> MessageStanding? {
        try self.environment.read { transaction throws(StalkError) in
            try withKey(KeyBuilder.message(sequence)) { key throws(StalkError) in
                try transaction.withValue(self.states, key) { value throws(StalkError) in
                    try MessageStanding(reading: value, sequence: sequence)
                }
            }
        }
    }

    /// Whether LMDB holds a message.
    func contains(_ sequence: UInt64) throws(StalkError) -> Bool {
        try self.environment.read { transaction throws(StalkError) in
            try transaction.contains(self.messages, KeyBuilder.message(sequence))
        }
    }

    private func message(
        _ sequence: UInt64,
        _ transaction: borrowing ReadTransaction
    ) throws(StalkError) -> SettledMessage? {
        try withKey(KeyBuilder.message(sequence)) { key throws(StalkError) in
            let state = try transaction.withValue(self.states, key) { value throws(StalkError) in
                try MessageStanding(reading: value, sequence: sequence)
            }
            return try transaction.withValue(self.messages, key) { value throws(StalkError) in
                try MessageValue.read(value, sequence: sequence) { record, envelope throws(StalkError) in
                    let content = MessageContent(
                        publishedAt: record.publishedAt,
                        headers: record.headers,
                        extensions: record.extensions,
                        body: try self.bodies.body(of: envelope)
                    )
                    return SettledMessage(standing: state ?? record.standing, content: content)
                }
            }
        }
    }

    /// A run of ready messages of a queue, first in line first.
    ///
    /// A message whose record fails its checksum is passed over.
    func readyRun(_ load: WindowLoad, maxMessages: Int, maxBytes: Int) throws(StalkError) -> ReadyRun {
        var run = ReadyRun(end: .nothing(from: load.from))
        var bytes = 0
        try self.environment.read { transaction throws(StalkError) in
            let start = KeyBuilder.place(load.queue, load.from)
            try transaction.scan(self.ready, from: start) { bytesOfKey, value throws(StalkError) in
                let (queue, key) = try KeyReader.place(bytesOfKey)
                guard queue == load.queue else { return .stop }
                guard run.messages.count < maxMessages, bytes < maxBytes else {
                    run.end = .more
                    return .stop
                }
                guard value.first != 1 || key.scheduleKey <= load.releasedThrough else {
                    // What follows in this priority is due later still; another priority may have something.
                    run.isHeld = true
                    guard key.priority < .max else { return .stop }
                    let next = OrderKey(priority: key.priority + 1, dueAt: .min, sequence: 0)
                    return .seek(KeyBuilder.place(queue, next))
                }
                if let message = try self.soundMessage(key.sequence, transaction, &run) {
                    bytes += message.content.body.count + 200
                    run.messages.append(message)
                }
                run.end = .nothing(from: key.successor)
                return .next
            } onCorrupt: { _, _ in
                run.passedOver += 1
                return .next
            }
        }
        if run.isHeld, case .nothing = run.end { run.end = .heldBySchedule }
        return run
    }

    private func soundMessage(
        _ sequence: UInt64,
        _ transaction: borrowing ReadTransaction,
        _ run: inout ReadyRun
    ) throws(StalkError) -> SettledMessage? {
        do throws(StalkError) {
            if let message = try self.message(sequence, transaction) { return message }
        } catch {
            guard error.code == .corruptValue else { throw error }
        }
        run.passedOver += 1
        return nil
    }

    /// A run of the schedule.
    ///
    /// - Returns: The keys with their queues, and the due time of what comes behind; `nil` when nothing does.
    func scheduleRun(
        _ feed: ScheduleFeed
    ) throws(StalkError) -> (keys: [(key: ScheduleKey, queue: UInt32)], next: Int64?) {
        var keys: [(key: ScheduleKey, queue: UInt32)] = []
        var next: Int64?
        try self.environment.read { transaction throws(StalkError) in
            let start = KeyBuilder.schedule(feed.after) + [0]
            try transaction.scan(self.schedule, from: start) { bytes, value throws(StalkError) in
                let key = try KeyReader.schedule(bytes)
                guard keys.count < feed.limit, key.dueAt <= feed.through else {
                    next = key.dueAt
                    return .stop
                }
                var reader = KeyReader(value)
                keys.append((key, try reader.readUInt32()))
                return .next
            } onCorrupt: { _, _ in .next }
        }
        return (keys, next)
    }

    /// The messages of a queue in one table, in order, for as long as the closure wants more.
    func forEachPlace(
        of queue: UInt32,
        isDead: Bool,
        from start: OrderKey = .first,
        _ body: (_ key: OrderKey, _ isScheduled: Bool) throws(StalkError) -> Bool
    ) throws(StalkError) {
        try self.environment.read { transaction throws(StalkError) in
            let table = isDead ? self.dead : self.ready
            try transaction.scan(table, from: KeyBuilder.place(queue, start)) { bytes, value throws(StalkError) in
                let (found, key) = try KeyReader.place(bytes)
                guard found == queue else { return .stop }
                return try body(key, value.first == 1) ? .next : .stop
            } onCorrupt: { _, _ in .next }
        }
    }

    /// Reads every value of every table and its checksum.
    ///
    /// - Parameters:
    ///   - progress: Called now and then with the number of values read.
    /// - Returns: The number of messages whose records are sound, and what is not.
    func verify(progress: (Int) -> Void) throws(StalkError) -> (messages: Int, problems: [VerifyReport.Problem]) {
        var problems: [VerifyReport.Problem] = []
        var sound = 0
        var values = 0
        try self.environment.read { transaction throws(StalkError) in
            for table in [self.meta, self.queues, self.states, self.ready, self.schedule, self.dead, self.dictionaries] {
                try transaction.scan(table) { _, _ in
                    values += 1
                    return .next
                } onCorrupt: { key, _ in
                    problems.append(Self.problem(in: table, key))
                    return .next
                }
            }
            try transaction.scan(self.messages) { key, _ throws(StalkError) in
                var reader = KeyReader(key)
                let sequence = try reader.readUInt64()
                var run = ReadyRun(end: .more)
                if try self.soundMessage(sequence, transaction, &run) != nil {
                    sound += 1
                } else {
                    problems.append(Self.problem(in: self.messages, key))
                }
                values += 1
                if values % 4096 == 0 { progress(values) }
                return .next
            } onCorrupt: { key, _ in
                problems.append(Self.problem(in: self.messages, key))
                return .next
            }
        }
        return (sound, problems)
    }

    private static func problem(in table: Table, _ key: UnsafeRawBufferPointer) -> VerifyReport.Problem {
        let digits = key.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        return VerifyReport.Problem(
            file: "index/data.mdb", offset: nil, what: "the record \(digits) of the table \(table.name) is damaged")
    }
}

/// A run of ready messages, and what comes behind it.
struct ReadyRun {
    var messages: [SettledMessage] = []
    var end: WindowEnd
    var isHeld = false
    /// Records that failed their checksum.
    var passedOver = 0

    init(end: WindowEnd) {
        self.end = end
    }
}

/// `withUnsafeBytes` with typed throws.
private func withKey<R>(
    _ key: [UInt8],
    _ body: (UnsafeRawBufferPointer) throws(StalkError) -> R
) throws(StalkError) -> R {
    try key.withUnsafeBufferPointer { bytes throws(StalkError) in try body(UnsafeRawBufferPointer(bytes)) }
}
