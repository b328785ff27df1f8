// Collectors, redrive, and looking at what is there.

internal import StalkCore
internal import StalkLog

extension Engine {
    mutating func addCollector(of queue: QueueName) -> UInt64 {
        self.addCollector(CollectorRecord(queue: queue))
    }

    mutating func addCollector(_ record: CollectorRecord) -> UInt64 {
        let id = self.makeID()
        self.collectors[id] = CollectorState(
            queue: record.queue,
            isAsleep: record.isAsleep,
            maxInFlight: record.maxInFlight
        )
        return id
    }

    /// Forgets a collector; what it holds stays leased until it is finished or expires.
    mutating func removeCollector(_ id: UInt64) {
        self.collectors[id] = nil
    }

    mutating func control(_ command: CollectorCommand, of id: UInt64, now: Moment) -> (CollectorStatus, Actions) {
        var actions = Actions()
        switch command {
        case .report: break
        case .sleep: self.collectors[id]?.isAsleep = true
        case .wake: self.collectors[id]?.isAsleep = false
        case .scale(let most): self.collectors[id]?.maxInFlight = most
        }
        let state = self.collectors[id]
        if let queue = state?.queue, let number = self.queueNumbers[queue], self.failure == nil {
            self.serveTakers(of: number, now: now, &actions)
            if !self.staging.isEmpty { actions.wakesLog = true }
        }
        let status = CollectorStatus(
            isAsleep: state?.isAsleep ?? true,
            maxInFlight: state?.maxInFlight,
            inFlight: state?.inFlight ?? 0
        )
        return (status, actions)
    }

    /// Pauses a queue, for all collectors and from now on, or resumes it.
    ///
    /// It is safe once a checkpoint is.
    mutating func setPaused(_ isPaused: Bool, queue number: UInt32, now: Moment) -> Actions {
        var actions = Actions()
        guard self.failure == nil else { return actions }
        if self.queues[number].isPaused != isPaused {
            self.queues[number].isPaused = isPaused
            self.queues[number].isDirty = true
            self.hasUnsettledPause = true
        }
        self.serveTakers(of: number, now: now, &actions)
        if !self.staging.isEmpty { actions.wakesLog = true }
        return actions
    }

    /// Lets a caller wait until a queue holds nothing ready, delayed or leased.
    mutating func waitUntilDrained(
        _ queue: QueueName,
        id: UInt64,
        _ reply: @escaping @Sendable (Result<Void, any Error>) -> Void
    ) -> Actions {
        var actions = Actions()
        if let failure = self.failure {
            actions.replies.append { reply(.failure(failure)) }
            return actions
        }
        guard let number = self.queueNumbers[queue], !self.queues[number].isDrained else {
            actions.replies.append { reply(.success(())) }
            return actions
        }
        self.queues[number].drainWaiters[id] = reply
        return actions
    }

    mutating func cancelDrainWait(_ id: UInt64, of queue: QueueName) -> Actions {
        var actions = Actions()
        guard let number = self.queueNumbers[queue],
            let reply = self.queues[number].drainWaiters.removeValue(forKey: id)
        else { return actions }
        actions.replies.append { reply(.failure(CancellationError())) }
        return actions
    }

    /// Sends messages back to where they died; the ones that are not in an error queue any more are passed over.
    ///
    /// - Parameters:
    ///   - sequences: The messages.
    ///   - found: Those that memory does not know, as LMDB held them at `epoch`.
    /// - Returns: How many went back; `nil` when it must be tried again, since memory forgot something meanwhile or the
    ///   log has no room.
    mutating func redrive(
        _ sequences: [UInt64],
        found: [SettledMessage],
        epoch: UInt64,
        now: Moment
    ) -> (Result<Int?, StalkError>, Actions) {
        var actions = Actions()
        if let failure = self.failure { return (.failure(failure), actions) }
        guard epoch == self.epoch else { return (.success(nil), actions) }
        let size = 64 + 8 * sequences.count
        guard self.room.admits(frameBytes: self.staging.bytes.count + size) else {
            actions.wakesKeeper = true
            return (self.roomFailure.map { .failure($0) } ?? .success(nil), actions)
        }
        for message in found where self.entries[message.standing.key.sequence] == nil {
            if self.isRedrivable(message.standing) { self.addForReplay(message, now: now) }
        }
        let redrivable = sequences.filter { self.isRedrivable($0) }
        guard !redrivable.isEmpty else { return (.success(0), actions) }
        self.lastReadyAt = max(self.lastReadyAt, now.milliseconds)
        self.stage(.redrive(at: self.lastReadyAt, messages: redrivable), now: now)
        self.forEach(redrivable) { engine, entry in engine.redrive(entry, dueAt: engine.lastReadyAt) }
        actions.wakesLog = true
        self.serveFreedQueues(now: now, &actions)
        return (.success(redrivable.count), actions)
    }

    /// The same of a message that LMDB holds; one that is not released as a whole yet has to wait for that.
    private func isRedrivable(_ standing: MessageStanding) -> Bool {
        if standing.isDead { return true }
        return standing.diedIn != 0
            && (!standing.isScheduled || standing.key.scheduleKey <= self.meta.releasedThrough)
    }

    func isRedrivable(_ sequence: UInt64) -> Bool {
        guard let entry = self.entries[sequence] else { return false }
        return entry.status == .dead || entry.status == .ready && entry.standing.diedIn != 0
    }

    mutating func redrive(_ entry: Entry, dueAt: Int64) {
        let target = entry.standing.diedIn == 0 ? entry.queue : entry.standing.diedIn
        entry.standing.key.dueAt = dueAt
        self.freedQueues.insert(entry.queue)
        self.move(entry, to: target, diedIn: 0)
    }

    /// What memory says of the messages of a queue; it overrides what LMDB says.
    func overlay(of number: UInt32) -> [UInt64: EntrySnapshot] {
        self.entries.compactMapValues { entry in
            // What a checkpoint writes at this moment may stand in LMDB where it was.
            let isConcerned = entry.queue == number || entry.settled?.queue == number || entry.isSettling
            return isConcerned ? EntrySnapshot(entry) : nil
        }
    }

    /// The figures of a queue; its oldest age is still to be found.
    func stats(of number: UInt32) -> QueueStats {
        let queue = self.queues[number]
        return QueueStats(
            name: queue.name,
            ready: queue.ready,
            delayed: queue.delayed,
            leased: queue.leased,
            dead: queue.dead,
            bytes: queue.bytes,
            oldestAge: nil,
            isPaused: queue.isPaused
        )
    }
}
