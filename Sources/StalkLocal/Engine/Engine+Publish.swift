// Messages coming in.

internal import DequeModule
internal import StalkCore
internal import StalkLog

extension Engine {
    /// Stages messages, as many as there is room for now; the rest follows as room appears.
    mutating func publish(_ call: PendingPublish, now: Moment) -> Actions {
        if let failure = self.failure {
            var actions = Actions()
            actions.replies.append { call.reply(.failure(failure)) }
            return actions
        }
        var call = call
        if let origin = call.origin { self.meta.calls.recall(origin, into: &call.results) }
        self.pending.append(call)
        return self.pending.count == 1 ? self.admitPending(now: now) : Actions()
    }

    /// Stages what waits to be published, first come first served, until the room is used up.
    mutating func admitPending(now: Moment) -> Actions {
        var actions = Actions()
        while var call = self.pending.popFirst() {
            let isDone = self.stageMessages(of: &call, now: now, &actions)
            guard isDone else {
                self.pending.prepend(call)
                break
            }
            self.finishPublish(call, &actions)
        }
        if !self.staging.isEmpty { actions.wakesLog = true }
        return actions
    }

    /// The keeper found no space for another segment: what waits for room is refused, and finishing goes on where the log
    /// still has some.
    mutating func refusePending(_ error: StalkError, now: Moment) -> Actions {
        var actions = Actions()
        self.roomFailure = error
        while var call = self.pending.popFirst() {
            for position in call.next..<call.messages.count where call.results[position] == nil {
                call.results[position] = .failure(error)
            }
            self.finishPublish(call, &actions)
        }
        self.refuseTakersWithoutRoom(error, &actions)
        if !self.staging.isEmpty { actions.wakesLog = true }
        return actions
    }

    private mutating func finishPublish(_ call: PendingPublish, _ actions: inout Actions) {
        let results = call.results.map { $0 ?? .failure(Self.notStaged) }
        let reply = call.reply
        guard results.contains(where: { if case .success = $0 { true } else { false } }) else {
            actions.replies.append { reply(.success(results)) }
            return
        }
        self.waitForStaged(call.durability) { outcome in reply(outcome.map { results }) }
    }

    private static var notStaged: StalkError {
        StalkError(.interrupted, "The message was not published: publish it again.")
    }

    /// - Returns: Whether all messages of the call were staged or refused.
    private mutating func stageMessages(
        of call: inout PendingPublish,
        now: Moment,
        _ actions: inout Actions
    ) -> Bool {
        var first = self.meta.nextSequence
        defer { self.stageCall(of: call, from: first, now: now) }
        var isQueueKnown = false
        while call.next < call.messages.count {
            guard call.results[call.next] == nil else {
                // What is refused, or known from before, ends the row: a record tells of neighbours alone.
                self.stageCall(of: call, from: first, now: now)
                first = self.meta.nextSequence
                call.next += 1
                continue
            }
            let message = call.messages[call.next]
            let size = PublishRecord.encodedBytes(headers: message.headers, bodyBytes: message.body.count) + 300
            guard self.hasRoom(forMessage: size, &actions) else {
                // The frame is full or the log has no room: the log's thread or the keeper will call again.
                actions.wakesLog = true
                return false
            }
            if !isQueueKnown {
                self.stageQueue(call.queue, now: now)
                isQueueKnown = true
            }
            let sequence = self.stage(message, to: call.queue, publishedAt: call.publishedAt, now: now)
            call.results[call.next] = .success(MessageID(sequence: sequence))
            call.next += 1
        }
        return true
    }

    /// Notes in the same frame which call the messages from `first` on belong to, which end in front of its next one.
    private mutating func stageCall(of call: PendingPublish, from first: UInt64, now: Moment) {
        guard let origin = call.origin, self.meta.nextSequence > first else { return }
        let count = UInt32(self.meta.nextSequence - first)
        let record = CallRecord(
            client: origin.client,
            call: origin.call,
            answeredBelow: origin.answeredBelow,
            position: UInt32(call.next) - count,
            first: first,
            count: count
        )
        self.stage(.call(record), now: now)
        self.meta.calls.note(record)
    }

    private mutating func hasRoom(forMessage size: Int, _ actions: inout Actions) -> Bool {
        let frameBytes = self.staging.bytes.count + size
        let isFrameFull = frameBytes > self.room.softFrameBytes && !self.staging.isEmpty
        if isFrameFull || self.isBehindWithCheckpoints {
            if self.isBehindWithCheckpoints { actions.wakesKeeper = true }
            return false
        }
        guard self.room.admitsPublishing(frameBytes: frameBytes) else {
            actions.wakesKeeper = true
            return false
        }
        return true
    }

    /// Makes sure that a queue has a number.
    @discardableResult
    mutating func stageQueue(_ name: QueueName, now: Moment) -> UInt32 {
        if let number = self.queueNumbers[name] { return number }
        let number = self.meta.nextQueue
        self.stage(.createQueue(number: number, name: name), now: now)
        self.addQueue(number: number, name: name)
        return number
    }

    mutating func addQueue(number: UInt32, name: QueueName) {
        self.queues.append(QueueState(number: number, name: name))
        self.queueNumbers[name] = number
        self.meta.nextQueue = max(self.meta.nextQueue, number + 1)
    }

    /// Stages one message; its queue must be known and the room be there.
    @discardableResult
    mutating func stage(_ message: Message, to queue: QueueName, publishedAt: Int64, now: Moment) -> UInt64 {
        guard let number = self.queueNumbers[queue] else { preconditionFailure("stageQueue comes first") }
        let sequence = self.meta.nextSequence
        self.lastReadyAt = max(self.lastReadyAt, now.milliseconds)
        let isScheduled = message.delay > .zero
        let record = PublishRecord(
            sequence: sequence,
            queue: number,
            publishedAt: publishedAt,
            dueAt: isScheduled ? now.later(by: message.delay) : self.lastReadyAt,
            isScheduled: isScheduled,
            headers: message.headers,
            body: message.body
        )
        self.stage(.publish(record), now: now)
        self.staging.notePublished(sequence)
        self.add(record)
        return sequence
    }

    /// Puts a published message into memory, staged.
    mutating func add(_ record: PublishRecord) {
        self.meta.nextSequence = max(self.meta.nextSequence, record.sequence + 1)
        let standing = MessageStanding(
            queue: record.queue,
            key: OrderKey(priority: record.priority, dueAt: record.dueAt, sequence: record.sequence),
            isScheduled: record.isScheduled
        )
        let content = MessageContent(
            publishedAt: record.publishedAt,
            headers: record.headers,
            extensions: record.extensions,
            body: record.body
        )
        let entry = Entry(standing: standing, content: content, status: .staged)
        entry.isDirty = true
        self.entries[record.sequence] = entry
        self.dirty.append(record.sequence)
        self.dirtyCount += 1
        self.unsettledBytes += record.body.count
        self.queues[record.queue].count(entry, as: .staged, by: 1)
    }
}

extension MessageID {
    /// Thirteen digits in base 32 (Crockford's), so that ids sort by age and fit into a string without an allocation.
    init(sequence: UInt64) {
        let digits: StaticString = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
        self.init(
            String(unsafeUninitializedCapacity: 13) { buffer in
                for position in 0..<13 {
                    let value = Int(sequence >> UInt64(60 - 5 * position) & 31)
                    buffer[position] = digits.utf8Start[value]
                }
                return 13
            }
        )
    }

    /// The message's number, or `nil` for an id that no local store issued.
    var sequence: UInt64? {
        guard self.rawValue.utf8.count == 13 else { return nil }
        var number: UInt64 = 0
        for byte in self.rawValue.utf8 {
            guard let digit = Self.digit(byte), number >> 59 == 0 else { return nil }
            number = number << 5 | digit
        }
        return number
    }

    private static func digit(_ byte: UInt8) -> UInt64? {
        let upper = byte >= UInt8(ascii: "a") && byte <= UInt8(ascii: "z") ? byte - 32 : byte
        // The letters leave out I, L, O and U.
        switch Unicode.Scalar(upper) {
        case "0"..."9": return UInt64(upper - UInt8(ascii: "0"))
        case "A"..."H": return UInt64(upper - UInt8(ascii: "A") + 10)
        case "J"..."K": return UInt64(upper - UInt8(ascii: "J") + 18)
        case "M"..."N": return UInt64(upper - UInt8(ascii: "M") + 20)
        case "P"..."T": return UInt64(upper - UInt8(ascii: "P") + 22)
        case "V"..."Z": return UInt64(upper - UInt8(ascii: "V") + 27)
        default: return nil
        }
    }
}
