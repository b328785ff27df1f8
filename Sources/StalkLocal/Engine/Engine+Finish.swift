// How deliveries end.

internal import StalkCore
internal import StalkLog
internal import StalkWheel

/// What became of one completion in memory.
enum FinishOutcome: Sendable {
    case done
    case refused(StalkError)
    /// Memory does not know the message: LMDB tells whether it is finished or was given back.
    case notInMemory(UInt64)
}

extension Engine {
    /// Ends deliveries.
    ///
    /// - Parameter reply: Gets what became of each, once that is safe.
    mutating func finish(
        _ completions: [Completion],
        of queue: QueueName,
        as options: LocalQueueOptions,
        _ durability: Durability,
        now: Moment,
        wall: Int64,
        reply: @escaping @Sendable (Result<[FinishOutcome], StalkError>) -> Void
    ) -> Actions {
        var actions = Actions()
        if let failure = self.failure {
            actions.replies.append { reply(.failure(failure)) }
            return actions
        }
        let before = self.staging.bytes.count
        let outcomes = self.apply(
            completions,
            of: queue,
            errorQueue: options.errorQueue,
            now: now,
            wall: wall,
            &actions
        )
        if self.staging.bytes.count > before {
            self.waitForStaged(durability) { outcome in reply(outcome.map { outcomes }) }
            actions.wakesLog = true
        } else {
            actions.replies.append { reply(.success(outcomes)) }
        }
        self.serveFreedQueues(now: now, &actions)
        return actions
    }

    private mutating func apply(
        _ completions: [Completion],
        of queue: QueueName,
        errorQueue: QueueName?,
        now: Moment,
        wall: Int64,
        _ actions: inout Actions
    ) -> [FinishOutcome] {
        var acknowledged: [UInt64] = []
        var released: [UInt64] = []
        let outcomes = completions.map { completion -> FinishOutcome in
            switch self.leased(completion.receipt, of: queue, for: completion.disposition) {
            case .failure(let refusal): return refusal.outcome
            case .success(let entry):
                guard self.hasRoom(for: completion.disposition, alsoStaged: 9 * (acknowledged.count + released.count))
                else { return .refused(self.noRoom(for: completion.disposition)) }
                switch completion.disposition {
                case .acknowledge:
                    acknowledged.append(entry.sequence)
                    self.endAcknowledged(entry)
                case .acknowledgeAndPublish(let messages):
                    self.acknowledge(entry, publishing: messages, now: now, wall: wall)
                case .release:
                    released.append(entry.sequence)
                    self.endReleased(entry)
                case .retry(let delay, let reason):
                    self.retry(entry, after: delay, reason: reason, now: now, wall: wall, &actions)
                case .deadLetter(let reason):
                    self.deadLetter(entry, reason: reason, to: errorQueue, now: now, wall: wall)
                }
                return .done
            }
        }
        if !acknowledged.isEmpty { self.stage(.acknowledge(acknowledged), now: now) }
        if !released.isEmpty { self.stage(.release(released), now: now) }
        return outcomes
    }

    /// Sets leases to a new end, counted from now.
    mutating func extend(
        _ receipts: [Receipt],
        of queue: QueueName,
        lease: Duration,
        now: Moment
    ) -> (Result<[FinishOutcome], StalkError>, Actions) {
        var actions = Actions()
        if let failure = self.failure { return (.failure(failure), actions) }
        let deadline = now.later(by: lease)
        let outcomes = receipts.map { receipt -> FinishOutcome in
            switch self.leased(receipt, of: queue, for: nil) {
            case .failure(let refusal): return refusal.outcome
            case .success(let entry):
                if let timer = entry.timer { self.wheel.cancel(timer) }
                let (queue, sequence) = (entry.queue, entry.sequence)
                entry.timer = self.addTimer(.lease, queue: queue, key: sequence, deadline: deadline, &actions)
                return .done
            }
        }
        return (.success(outcomes), actions)
    }

    private struct Refusal: Error {
        var outcome: FinishOutcome
    }

    /// The message that a receipt holds the lease of.
    private func leased(
        _ receipt: Receipt,
        of queue: QueueName,
        for disposition: Disposition?
    ) -> Result<Entry, Refusal> {
        guard case .local(let store, let sequence, let lease) = receipt.token, store == self.meta.store,
            sequence < self.meta.nextSequence
        else { return .failure(Refusal(outcome: .refused(.foreignReceipt(receipt, "another store")))) }
        guard let entry = self.entries[sequence] else {
            return .failure(Refusal(outcome: .notInMemory(sequence)))
        }
        guard self.queues[entry.queue].name == queue || entry.status != .leased else {
            let issuer = "the queue \(self.queues[entry.queue].name)"
            return .failure(Refusal(outcome: .refused(.foreignReceipt(receipt, issuer))))
        }
        if entry.status == .leased, entry.lease == lease { return .success(entry) }
        if entry.status == .gone, disposition == .acknowledge { return .failure(Refusal(outcome: .done)) }
        return .failure(Refusal(outcome: .refused(.staleReceipt(MessageID(sequence: sequence)))))
    }

    /// Finishing may use the room that publishing leaves, but what it publishes may not.
    private func hasRoom(for disposition: Disposition, alsoStaged: Int) -> Bool {
        var size = 64 + alsoStaged
        var publishes = false
        switch disposition {
        case .acknowledgeAndPublish(let messages):
            publishes = true
            for outgoing in messages {
                let message = outgoing.message
                size += PublishRecord.encodedBytes(headers: message.headers, bodyBytes: message.body.count) + 300
            }
        case .retry(_, let reason), .deadLetter(let reason): size += reason.utf8.count + 300
        case .acknowledge, .release: break
        }
        let frameBytes = self.staging.bytes.count + size
        return publishes ? self.room.admitsPublishing(frameBytes: frameBytes) : self.room.admits(frameBytes: frameBytes)
    }

    private func noRoom(for disposition: Disposition) -> StalkError {
        if let failure = self.roomFailure { return failure }
        return StalkError(
            .unavailable,
            "The log has no room for this right now, and nothing of it was done: finish the delivery again in a moment, "
                + "and publish less at once if it publishes (a log segment holds \(self.room.segmentBytes) bytes)."
        )
    }

    private mutating func endAcknowledged(_ entry: Entry) {
        self.endLease(of: entry)
        self.remove(entry)
    }

    private mutating func acknowledge(
        _ entry: Entry,
        publishing messages: [OutgoingMessage],
        now: Moment,
        wall: Int64
    ) {
        // All of it goes into one frame, which is there as a whole or not at all.
        self.stage(.acknowledge([entry.sequence]), now: now)
        self.endAcknowledged(entry)
        for outgoing in messages {
            self.stageQueue(outgoing.queue, now: now)
            self.stage(outgoing.message, to: outgoing.queue, publishedAt: wall, now: now)
        }
    }

    private mutating func endReleased(_ entry: Entry) {
        self.endLease(of: entry)
        self.uncountAttempt(of: entry)
        self.enqueueReady(entry)
    }

    mutating func uncountAttempt(of entry: Entry) {
        guard entry.standing.attempts > 0 else { return }
        entry.standing.attempts -= 1
        entry.standing.lease = 0
        self.markDirty(entry)
    }

    private mutating func retry(
        _ entry: Entry,
        after delay: Duration,
        reason: String,
        now: Moment,
        wall: Int64,
        _ actions: inout Actions
    ) {
        self.lastReadyAt = max(self.lastReadyAt, now.milliseconds)
        let record = RetryRecord(
            sequence: entry.sequence,
            failedAt: wall,
            dueAt: delay > .zero ? now.later(by: delay) : self.lastReadyAt,
            reason: reason.cut(toBytes: FailureRecord.maxReasonBytes)
        )
        self.stage(.retry(record), now: now)
        self.endLease(of: entry)
        self.apply(record, to: entry, isScheduled: delay > .zero, &actions)
    }

    /// Puts a message that failed in line again, at its due time.
    mutating func apply(_ record: RetryRecord, to entry: Entry, isScheduled: Bool, _ actions: inout Actions) {
        self.noteFailure(of: entry, at: record.failedAt, reason: record.reason)
        entry.standing.key.dueAt = record.dueAt
        entry.standing.isScheduled = isScheduled
        if isScheduled {
            self.setStatus(.delayed, of: entry)
            self.startDelay(of: entry, &actions)
        } else {
            self.enqueueReady(entry)
        }
    }

    private mutating func deadLetter(
        _ entry: Entry,
        reason: String,
        to errorQueue: QueueName?,
        now: Moment,
        wall: Int64
    ) {
        let target = errorQueue.map { self.stageQueue($0, now: now) } ?? 0
        self.lastReadyAt = max(self.lastReadyAt, now.milliseconds)
        let record = DeadLetterRecord(
            sequence: entry.sequence,
            failedAt: wall,
            dueAt: self.lastReadyAt,
            target: target == entry.queue ? 0 : target,
            reason: reason.cut(toBytes: FailureRecord.maxReasonBytes)
        )
        self.stage(.deadLetter(record), now: now)
        self.endLease(of: entry)
        self.apply(record, to: entry)
    }

    /// Sets a message aside: dead in its own queue, or ready in a named error queue.
    mutating func apply(_ record: DeadLetterRecord, to entry: Entry) {
        self.noteFailure(of: entry, at: record.failedAt, reason: record.reason)
        entry.standing.key.dueAt = record.dueAt
        entry.standing.isScheduled = false
        guard record.target != 0 else {
            entry.standing.isDead = true
            self.setStatus(.dead, of: entry)
            return
        }
        self.move(entry, to: record.target, diedIn: entry.queue)
    }

    /// Moves a message that nobody holds to the end of another queue, ready, its attempts counted from zero.
    ///
    /// Who waits there is served at the end of the step, when all of it is done.
    mutating func move(_ entry: Entry, to target: UInt32, diedIn: UInt32) {
        self.setStatus(.gone, of: entry)
        entry.standing.queue = target
        entry.standing.diedIn = diedIn
        entry.standing.isDead = false
        entry.standing.attempts = 0
        entry.standing.lease = 0
        self.setStatus(.ready, of: entry)
        self.markDirty(entry)
        self.enqueueReady(entry)
        self.freedQueues.insert(target)
    }

    private mutating func noteFailure(of entry: Entry, at time: Int64, reason: String) {
        let failure = FailureRecord(attempt: entry.standing.attempts, at: time, reason: reason)
        entry.standing.failures = entry.standing.failures.suffix(FailureRecord.maxKept - 1) + [failure]
        entry.standing.lease = 0
        self.markDirty(entry)
    }

    /// Uses what finishing set free: room in the collectors, messages that are ready again.
    mutating func serveFreedQueues(now: Moment, _ actions: inout Actions) {
        let numbers = self.freedQueues
        self.freedQueues = []
        if self.hasRoomForWindow { self.retryWindows(&actions) }
        // In an order that does not depend on chance, so that a history can be played again.
        for number in numbers.sorted() {
            self.serveTakers(of: number, now: now, &actions)
            self.noticeDrained(number, &actions)
        }
    }

    /// Lets those go who wait until a queue holds nothing more to do.
    mutating func noticeDrained(_ number: UInt32, _ actions: inout Actions) {
        guard !self.queues[number].drainWaiters.isEmpty, self.queues[number].isDrained else { return }
        for reply in self.queues[number].drainWaiters.values { actions.replies.append { reply(.success(())) } }
        self.queues[number].drainWaiters = [:]
    }
}

extension StalkError {
    fileprivate static func foreignReceipt(_ receipt: Receipt, _ issuer: String) -> StalkError {
        StalkError(
            .foreignReceipt,
            "The receipt \(quoted(receipt.description)) was issued by \(issuer): finish it where it was taken."
        )
    }

    static func staleReceipt(_ id: MessageID) -> StalkError {
        StalkError(
            .staleReceipt,
            "The lease on message \(id) is over, so this receipt counts no more: the message comes, or came, again. "
                + "Take longer leases, or extend them while you work."
        )
    }
}
