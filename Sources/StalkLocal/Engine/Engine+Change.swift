// Changes by hand: what nobody works on becomes ready, goes to another queue, or goes away.

internal import StalkCore
internal import StalkLog
internal import StalkWheel

/// What is done to messages by hand.
enum MessageChange: Hashable, Sendable {
    /// Delayed ones become ready, failed ones go back to where they failed.
    case kick
    /// They become ready at the end of a queue, attempts counted from zero.
    case move(to: QueueName)
    /// They are done with.
    case delete
}

extension Engine {
    /// Changes one message.
    ///
    /// - Parameter found: The message as LMDB held it at `epoch`, when memory did not know it.
    /// - Returns: Whether it was changed, which a kick does not when it is ready; `nil` when it must be tried again.
    mutating func change(
        _ change: MessageChange,
        one id: MessageID,
        _ sequence: UInt64,
        found: SettledMessage?,
        epoch: UInt64,
        now: Moment
    ) -> (Result<Bool?, StalkError>, Actions) {
        if self.failure == nil, epoch == self.epoch {
            switch self.entries[sequence]?.status {
            case .leased?: return (.failure(.messageLeased(id)), Actions())
            case .gone?, .staged?: return (.failure(.noSuchMessage(id)), Actions())
            case nil where found == nil: return (.failure(.noSuchMessage(id)), Actions())
            case nil, .ready?, .delayed?, .dead?: break
            }
        }
        let list = found.map { [$0] } ?? []
        let (outcome, actions) = self.change(change, [sequence], found: list, epoch: epoch, now: now)
        return (outcome.map { count in count.map { $0 == 1 } }, actions)
    }

    /// Changes messages; those that it can't be done to any more are passed over.
    ///
    /// - Parameters:
    ///   - change: What is done.
    ///   - sequences: The messages.
    ///   - found: Those that memory does not know, as LMDB held them at `epoch`.
    /// - Returns: How many were changed; `nil` when it must be tried again, since memory forgot something meanwhile or the
    ///   log has no room.
    mutating func change(
        _ change: MessageChange,
        _ sequences: [UInt64],
        found: [SettledMessage],
        epoch: UInt64,
        now: Moment
    ) -> (Result<Int?, StalkError>, Actions) {
        var actions = Actions()
        if let failure = self.failure { return (.failure(failure), actions) }
        guard epoch == self.epoch else { return (.success(nil), actions) }
        let size = 512 + 8 * sequences.count
        guard self.room.admits(frameBytes: self.staging.bytes.count + size) else {
            actions.wakesKeeper = true
            return (self.roomFailure.map { .failure($0) } ?? .success(nil), actions)
        }
        for message in found where self.entries[message.standing.key.sequence] == nil {
            if self.isChangeable(message.standing, by: change) { self.addForChange(message) }
        }
        let changed = sequences.filter { self.isChangeable($0, by: change) }
        guard !changed.isEmpty else { return (.success(0), actions) }
        for sequence in changed {
            if let queue = self.entries[sequence]?.queue { self.freedQueues.insert(queue) }
        }
        self.stageChange(change, of: changed, now: now)
        for number in self.freedQueues { self.queues[number].clearLineIfEmpty() }
        actions.wakesLog = true
        self.serveFreedQueues(now: now, &actions)
        return (.success(changed.count), actions)
    }

    private mutating func stageChange(_ change: MessageChange, of sequences: [UInt64], now: Moment) {
        self.lastReadyAt = max(self.lastReadyAt, now.milliseconds)
        let dueAt = self.lastReadyAt
        switch change {
        case .kick:
            let delayed = sequences.filter { self.entries[$0]?.status == .delayed }
            let failed = sequences.filter { self.entries[$0]?.status != .delayed }
            if !delayed.isEmpty { self.stage(.move(at: dueAt, to: 0, messages: delayed), now: now) }
            self.forEach(delayed) { engine, entry in engine.moveToEnd(entry, of: 0, dueAt: dueAt) }
            if !failed.isEmpty { self.stage(.redrive(at: dueAt, messages: failed), now: now) }
            self.forEach(failed) { engine, entry in engine.redrive(entry, dueAt: dueAt) }
        case .move(let queue):
            let target = self.stageQueue(queue, now: now)
            self.stage(.move(at: dueAt, to: target, messages: sequences), now: now)
            self.forEach(sequences) { engine, entry in engine.moveToEnd(entry, of: target, dueAt: dueAt) }
        case .delete:
            self.stage(.acknowledge(sequences), now: now)
            self.forEach(sequences) { engine, entry in engine.remove(entry) }
        }
    }

    /// Puts a message at the end of a queue, ready.
    ///
    /// - Parameter target: The queue; 0 is the one where it is, which keeps its attempts.
    mutating func moveToEnd(_ entry: Entry, of target: UInt32, dueAt: Int64) {
        if let timer = entry.timer { self.wheel.cancel(timer) }
        entry.timer = nil
        entry.standing.key.dueAt = dueAt
        entry.standing.isScheduled = false
        guard target == 0 else { return self.move(entry, to: target, diedIn: 0) }
        entry.standing.isDead = false
        self.setStatus(.ready, of: entry)
        self.markDirty(entry)
        self.enqueueReady(entry)
        self.freedQueues.insert(entry.queue)
    }

    private func isChangeable(_ sequence: UInt64, by change: MessageChange) -> Bool {
        switch self.entries[sequence]?.status {
        case .ready?, .dead?: change != .kick || self.isRedrivable(sequence)
        case .delayed?: true
        case .staged?, .leased?, .gone?, nil: false
        }
    }

    /// The same of a message that only LMDB knows.
    private func isChangeable(_ standing: MessageStanding, by change: MessageChange) -> Bool {
        change != .kick || standing.isDead || standing.diedIn != 0 || self.isWaiting(standing)
    }

    /// Whether a message that only LMDB knows is counted as delayed.
    ///
    /// When its time has come it counts as ready, although LMDB calls it released only when everything is that was due as
    /// well: the rate is bounded.
    private func isWaiting(_ standing: MessageStanding) -> Bool {
        let key = standing.key.scheduleKey
        guard standing.isScheduled, key > self.meta.releasedThrough else { return false }
        return key > self.fedThrough || self.settledTimers[key.sequence] != nil
    }

    /// Puts a message that only LMDB knows into memory, to be changed, as what it is counted.
    mutating func addForChange(_ message: SettledMessage) {
        let standing = message.standing
        if self.isWaiting(standing) {
            if let timer = self.settledTimers.removeValue(forKey: standing.key.sequence) { self.wheel.cancel(timer) }
            self.addLoaded(message, status: .delayed)
        } else {
            let entry = self.addLoaded(message, status: standing.isDead ? .dead : .ready)
            guard standing.isScheduled, standing.key.scheduleKey > self.meta.releasedThrough else { return }
            // The next checkpoint takes it out of the schedule.
            self.queues[standing.queue].releasedAhead -= 1
            self.markDirty(entry)
        }
    }
}

extension StalkError {
    static func messageLeased(_ id: MessageID) -> StalkError {
        StalkError(
            .messageLeased,
            "Somebody works on message \(id): finish it there, or try again when it is back or its lease is over."
        )
    }
}
