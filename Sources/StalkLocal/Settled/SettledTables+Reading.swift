// What LMDB says of messages, for when memory does not know enough.

internal import StalkCore
internal import StalkIndex

extension SettledTables {
    /// One message; `nil` when LMDB does not hold it.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/corruptValue`` when one of its records fails its checksum.
    func message(_ sequence: UInt64) throws(StalkError) -> SettledMessage? {
        try self.index.read { transaction throws(StalkError) in try self.message(sequence, transaction) }
    }

    /// What changed about a message since it was settled; `nil` when nothing did.
    func standing(_ sequence: UInt64) throws(StalkError) -> MessageStanding? {
        try self.index.read { transaction throws(StalkError) in
            try withKey(KeyBuilder.message(sequence)) { key throws(StalkError) in
                try transaction.withValue(self.states, key) { value throws(StalkError) in
                    try MessageStanding(reading: value, sequence: sequence)
                }
            }
        }
    }

    /// Whether LMDB holds a message.
    func contains(_ sequence: UInt64) throws(StalkError) -> Bool {
        try self.index.read { transaction throws(StalkError) in
            try transaction.contains(self.messages, KeyBuilder.message(sequence))
        }
    }

    /// - Parameter place: The place in line that led to the message, and whether that announces a record in `states`;
    ///   `nil` when nothing did.
    private func message(
        _ sequence: UInt64,
        _ transaction: borrowing ReadTransaction,
        from place: (key: OrderKey, hasState: Bool)? = nil
    ) throws(StalkError) -> SettledMessage? {
        try withKey(KeyBuilder.message(sequence)) { key throws(StalkError) in
            let state = try transaction.withValue(self.states, key) { value throws(StalkError) in
                try MessageStanding(reading: value, sequence: sequence)
            }
            return try transaction.withValue(self.messages, key) { value throws(StalkError) in
                try MessageValue.read(value, sequence: sequence) { record, envelope throws(StalkError) in
                    if state == nil { try self.checkHasNoState(record.standing, transaction, from: place) }
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

    /// Makes sure that a record in `states` which was not found was never written.
    ///
    /// LMDB finds nothing where a damaged page leads astray, and says so in the same way as when nothing is there. The
    /// message would come with the attempts of long ago, or come back from the dead.
    private func checkHasNoState(
        _ standing: MessageStanding,
        _ transaction: borrowing ReadTransaction,
        from place: (key: OrderKey, hasState: Bool)?
    ) throws(StalkError) {
        let isAlone: Bool?
        if let place {
            isAlone = place.key == standing.key && !place.hasState
        } else {
            isAlone = try withKey(KeyBuilder.place(standing.queue, standing.key)) { key throws(StalkError) in
                try transaction.withValue(self.ready, key) { value throws(StalkError) in !Self.announcesState(value) }
            }
        }
        guard isAlone == true else {
            throw StalkError(
                .corruptValue,
                "The message \(MessageID(sequence: standing.key.sequence)) has changed since it was settled, but what "
                    + "has can't be found in the table states; run 'stalk verify'."
            )
        }
    }

    /// Whether the value of a row in `ready` says that its message has a record in `states`.
    private static func announcesState(_ value: UnsafeRawBufferPointer) -> Bool {
        value.count > 1 && value[1] == 1
    }

    /// A run of ready messages of a queue, first in line first.
    ///
    /// A message whose record fails its checksum is passed over.
    func readyRun(_ load: WindowLoad, maxMessages: Int, maxBytes: Int) throws(StalkError) -> ReadyRun {
        var run = ReadyRun(end: .nothing(from: load.from))
        var bytes = 0
        try self.index.read { transaction throws(StalkError) in
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
                let place = (key, Self.announcesState(value))
                if let message = try self.soundMessage(key.sequence, transaction, from: place, &run) {
                    bytes += message.content.body.count + 200
                    run.messages.append(message)
                }
                run.end = .nothing(from: key.successor)
                return .next
            } onCorrupt: { _, _ in
                .next
            }
        }
        if run.isHeld, case .nothing = run.end { run.end = .heldBySchedule }
        return run
    }

    /// One message, or that its records fail their checksums.
    func soundMessage(_ sequence: UInt64) throws(StalkError) -> (message: SettledMessage?, isRotten: Bool) {
        do throws(StalkError) {
            return (try self.message(sequence), false)
        } catch {
            guard error.code == .corruptValue else { throw error }
            return (nil, true)
        }
    }

    private func soundMessage(
        _ sequence: UInt64,
        _ transaction: borrowing ReadTransaction,
        from place: (key: OrderKey, hasState: Bool),
        _ run: inout ReadyRun
    ) throws(StalkError) -> SettledMessage? {
        do throws(StalkError) {
            if let message = try self.message(sequence, transaction, from: place) { return message }
        } catch {
            guard error.code == .corruptValue else { throw error }
        }
        run.rotten.append(sequence)
        return nil
    }

    /// A run of the schedule.
    func scheduleRun(_ feed: ScheduleFeed) throws(StalkError) -> ScheduleRun {
        var run = ScheduleRun()
        try self.index.read { transaction throws(StalkError) in
            let start = KeyBuilder.schedule(feed.after) + [0]
            try transaction.scan(self.schedule, from: start) { bytes, value throws(StalkError) in
                let key = try KeyReader.schedule(bytes)
                guard run.keys.count < feed.limit, key.dueAt <= feed.through else {
                    run.next = key.dueAt
                    return .stop
                }
                var reader = KeyReader(value)
                run.keys.append((key, try reader.readUInt32()))
                return .next
            } onCorrupt: { _, _ in
                .next
            }
        }
        return run
    }

    /// The messages of a queue in one table, in order, for as long as the closure wants more.
    func forEachPlace(
        of queue: UInt32,
        isDead: Bool,
        from start: OrderKey = .first,
        _ body: (_ key: OrderKey, _ isScheduled: Bool) throws(StalkError) -> Bool
    ) throws(StalkError) {
        try self.index.read { transaction throws(StalkError) in
            let table = isDead ? self.dead : self.ready
            try transaction.scan(table, from: KeyBuilder.place(queue, start)) { bytes, value throws(StalkError) in
                let (found, key) = try KeyReader.place(bytes)
                guard found == queue else { return .stop }
                return try body(key, value.first == 1) ? .next : .stop
            } onCorrupt: { _, _ in
                .next
            }
        }
    }
}

/// A run of ready messages, and what comes behind it.
struct ReadyRun: Sendable {
    var messages: [SettledMessage] = []
    var end: WindowEnd
    var isHeld = false
    /// Messages whose records failed their checksum.
    var rotten: [UInt64] = []

    init(end: WindowEnd) {
        self.end = end
    }
}

/// A part of the schedule, in order.
struct ScheduleRun: Sendable {
    var keys: [(key: ScheduleKey, queue: UInt32)] = []
    /// The due time of what comes behind it; `nil` when nothing does.
    var next: Int64?
}
