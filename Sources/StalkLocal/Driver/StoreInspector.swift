// Looking into a store: memory and LMDB read together, so that they can't contradict each other.

internal import StalkCore
internal import StalkFiles
internal import StalkIndex
internal import StalkWheel

/// Reads what is in a store without taking it.
struct StoreInspector: Sendable {
    let core: StoreCore

    /// Whether a message that memory does not know is finished; blocks.
    func isGone(_ sequence: UInt64) throws(StalkError) -> Bool {
        try self.consistently { _ in
            ()
        } read: { _ throws(StalkError) in
            try !self.core.tables.contains(sequence)
        }
    }

    /// Reads memory and then LMDB, again if memory forgot something meanwhile.
    private func consistently<Overlay: Sendable, Value>(
        _ overlay: (inout Engine) -> Overlay,
        read: (Overlay) throws(StalkError) -> Value
    ) throws(StalkError) -> Value {
        while true {
            let (epoch, seen) = self.core.look { engine in (engine.epoch, overlay(&engine)) }
            let value = try read(seen)
            if self.core.look({ $0.epoch }) == epoch { return value }
        }
    }

    // MARK: One message

    func message(_ id: MessageID) async throws -> StoredMessage {
        try self.checkOpen()
        guard let sequence = id.sequence else { throw StalkError.noSuchMessage(id) }
        return try await onOwnThread("stalk-look") { () throws(StalkError) in
            let found = try self.consistently {
                $0.entries[sequence].map(EntrySnapshot.init)
            } read: { entry throws(StalkError) in
                if let entry { return entry.status == .gone ? nil : self.stored(entry) }
                guard let message = try self.core.tables.message(sequence) else { return nil }
                return self.stored(message, self.core.look { self.state(of: message.standing, $0) })
            }
            guard let found else { throw StalkError.noSuchMessage(id) }
            return found
        }
    }

    private func state(of standing: MessageStanding, _ engine: Engine) -> MessageState {
        if standing.isDead { return .dead }
        let waits = standing.isScheduled && standing.key.scheduleKey > engine.meta.releasedThrough
        return waits ? .delayed : .ready
    }

    // MARK: A queue

    func peek(_ queue: QueueName, state: MessageState, max: Int) async throws -> [StoredMessage] {
        let number = try self.number(of: queue)
        return try await onOwnThread("stalk-look") { () throws(StalkError) in
            try self.messages(of: number, state: state, max: max)
        }
    }

    /// The messages of a queue in one state; blocks.
    func messages(of number: UInt32, state: MessageState, max: Int) throws(StalkError) -> [StoredMessage] {
        try self.consistently { engine in
            (engine.overlay(of: number), engine.meta.releasedThrough)
        } read: { overlay, released throws(StalkError) in
            try self.peek(number, state: state, max: max, overlay, released)
        }
    }

    private func peek(
        _ number: UInt32,
        state: MessageState,
        max: Int,
        _ overlay: [UInt64: EntrySnapshot],
        _ released: ScheduleKey
    ) throws(StalkError) -> [StoredMessage] {
        let inMemory = overlay.values.filter { $0.queue == number && $0.state == state }
        var found = inMemory.map { (key: $0.key, message: Optional(self.stored($0))) }
        if state != .leased {
            var settled = 0
            let start = state == .delayed ? OrderKey(after: released) : .first
            try self.core.tables.forEachPlace(of: number, isDead: state == .dead, from: start) { key, isScheduled in
                let waits = isScheduled && key.scheduleKey > released
                if overlay[key.sequence] == nil, state == .dead || waits == (state == .delayed) {
                    found.append((key, nil))
                    settled += 1
                }
                return settled < max
            }
        }
        var messages: [StoredMessage] = []
        for (key, message) in found.sorted(by: { $0.key < $1.key }) where messages.count < max {
            if let message {
                messages.append(message)
            } else {
                let (message, isRotten) = try self.core.tables.soundMessage(key.sequence)
                if let message { messages.append(self.stored(message, state)) }
                if isRotten { self.core.look { _ = $0.setAside.insert(key.sequence) } }
            }
        }
        return messages
    }

    /// What is closed shows nothing; a store that failed can still be looked into.
    private func checkOpen() throws(StalkError) {
        if let failure = self.core.look({ $0.failure }), failure.code == .closed { throw failure }
    }

    func number(of queue: QueueName) throws(StalkError) -> UInt32 {
        try self.checkOpen()
        guard let number = self.core.look({ $0.queueNumbers[queue] }) else {
            throw StalkError(.noSuchQueue, "The store holds no queue \(queue): a queue is made by its first publish.")
        }
        return number
    }

    // MARK: Figures

    func stats(owner: Int32) async throws -> StoreStats {
        try self.checkOpen()
        return try await onOwnThread("stalk-look") { () throws(StalkError) in
            let now = self.core.now
            var stats = self.core.look { engine in
                let segments = engine.retiredSegments.count + engine.room.spares.count + 1
                return StoreStats(
                    queues: engine.queues.numbers.map { engine.stats(of: $0) },
                    logBytes: segments * engine.limits.segmentBytes,
                    lmdbBytes: 0,
                    checkpointLag: engine.bytesSinceCheckpoint,
                    owner: owner,
                    setAside: engine.setAside.count,
                    activity: self.activity(of: engine),
                    scheduleLag: .milliseconds(max(0, now.milliseconds - engine.nextScheduled(now: now)))
                )
            }
            stats.lmdbBytes = self.core.tables.index.fileBytes
            for (name, key) in try self.firstReady() {
                guard let position = stats.queues.firstIndex(where: { $0.name == name }) else { continue }
                stats.queues[position].oldestAge = .milliseconds(max(0, now.milliseconds - key.dueAt))
            }
            stats.queues.sort { $0.name < $1.name }
            return stats
        }
    }

    private func activity(of engine: Engine) -> StoreActivity {
        let disk = self.core.directory.activity
        return StoreActivity(
            frames: Int(engine.writtenThrough),
            lmdbCommits: Int(self.core.tables.index.commitCount),
            syncs: disk.syncs,
            logBytesWritten: disk.bytesWritten,
            commitCalls: engine.commitCalls,
            logSyncs: engine.logSyncs
        )
    }

    /// The message that is first in line in each queue that has a ready one.
    private func firstReady() throws(StalkError) -> [QueueName: OrderKey] {
        try self.consistently { engine in
            engine.queues.numbers.map { number in
                let first = engine.firstInLine(number)?.key
                let queue = engine.queues[number]
                return (queue.number, queue.name, first, middle: queue.readyInMiddle > 0 ? queue.scanFrom : nil)
            }
        } read: { queues throws(StalkError) in
            var found: [QueueName: OrderKey] = [:]
            for (number, name, first, middle) in queues {
                var first = first
                if let middle, let settled = try self.firstSettled(of: number, from: middle) {
                    first = min(first ?? settled, settled)
                }
                found[name] = first
            }
            return found
        }
    }

    /// The first message that only LMDB knows.
    private func firstSettled(of number: UInt32, from start: OrderKey) throws(StalkError) -> OrderKey? {
        var start = start
        while true {
            var keys: [OrderKey] = []
            try self.core.tables.forEachPlace(of: number, isDead: false, from: start) { key, _ in
                keys.append(key)
                return keys.count < 64
            }
            let run = keys
            if let key = self.core.look({ engine in run.first { engine.entries[$0.sequence] == nil } }) { return key }
            guard run.count == 64, let last = run.last else { return nil }
            start = last.successor
        }
    }

    // MARK: Messages as others see them

    private func stored(_ entry: EntrySnapshot) -> StoredMessage {
        let message = SettledMessage(standing: entry.standing, content: entry.content)
        return self.stored(message, entry.state ?? (entry.standing.isScheduled ? .delayed : .ready))
    }

    private func stored(_ message: SettledMessage, _ state: MessageState) -> StoredMessage {
        let standing = message.standing
        let (queue, diedIn) = self.core.look { engine in
            (engine.queues[standing.queue].name, standing.diedIn == 0 ? nil : engine.queues[standing.diedIn].name)
        }
        return StoredMessage(
            id: MessageID(sequence: standing.key.sequence),
            queue: queue,
            state: state,
            body: message.content.body,
            headers: message.content.headers,
            attempts: Int(standing.attempts),
            publishedAt: Timestamp(millisecondsSince1970: message.content.publishedAt),
            dueAt: Timestamp(millisecondsSince1970: standing.key.dueAt),
            failures: standing.failures.map { failure in
                Failure(
                    attempt: Int(failure.attempt),
                    at: Timestamp(millisecondsSince1970: failure.at),
                    reason: failure.reason
                )
            },
            diedIn: diedIn
        )
    }
}

extension StalkError {
    static func noSuchMessage(_ id: MessageID) -> StalkError {
        StalkError(
            .noSuchMessage,
            "The store holds no message \(quoted(id.rawValue)): it was finished, or the id is another store's."
        )
    }
}

extension Engine {
    /// When the schedule has something to do next; `now` when it has nothing to do yet.
    fileprivate func nextScheduled(now: Moment) -> Int64 {
        // What is to be read from LMDB has no time yet while the first run of the schedule is on its way.
        let unfed = self.nextUnfed.flatMap { $0 > 0 ? $0 : nil } ?? .max
        return min(self.wheel.nextDeadline ?? .max, unfed, now.milliseconds)
    }
}

extension EntrySnapshot {
    /// How others see the status; what is on its way to the disk is seen as what it will be.
    var state: MessageState? {
        switch self.status {
        case .ready: .ready
        case .delayed: .delayed
        case .leased: .leased
        case .dead: .dead
        case .staged, .gone: nil
        }
    }
}

extension OrderKey {
    /// The first place behind what the schedule has released.
    fileprivate init(after released: ScheduleKey) {
        self.init(priority: 0, dueAt: released.dueAt, sequence: released.sequence)
    }
}
