internal import StalkCore

// Storing outcomes: one call at a time, and what is decided meanwhile goes together in the next.
extension WorkerStateMachine {
    mutating func sendOutcomes(_ actions: inout [WorkerAction]) {
        guard self.sent.isEmpty, !self.isFinishBackingOff, !self.unsent.isEmpty else { return }
        self.sent = Array(self.unsent.prefix(self.capabilities.maxBatch))
        self.unsent.removeFirst(self.sent.count)
        actions.append(
            .finish(
                self.sent.compactMap { id in
                    guard let slot = self.slots[id], case .decided(let disposition) = slot.outcome else { return nil }
                    return Completion(slot.delivery.receipt, disposition)
                }
            )
        )
    }

    mutating func finished(_ results: [Result<Void, StalkError>], now: Duration) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        let answered = self.sent
        self.sent = []
        var unanswered: [SlotID] = []
        var reason: StalkError?
        for (position, id) in answered.enumerated() {
            let silence = StalkError(
                .unavailable,
                "The collector answered \(results.count) of \(answered.count) outcomes."
            )
            switch position < results.count ? results[position] : .failure(silence) {
            case .success:
                self.outcomeStored(id)
            case .failure(let error) where error.isWorthWaiting:
                unanswered.append(id)
                reason = error
            case .failure(let error):
                self.outcomeRefused(id, error, &actions)
            }
        }
        if let reason {
            self.sendLater(unanswered, reason, &actions, now: now)
        } else {
            self.finishFailures = 0
            self.succeeded(.finish, &actions, now: now)
        }
        self.settle(&actions, now: now)
        return actions
    }

    mutating func finishFailed(_ error: StalkError, now: Duration) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        let unanswered = self.sent
        self.sent = []
        if error.isWorthWaiting {
            self.sendLater(unanswered, error, &actions, now: now)
        } else {
            for id in unanswered { self.loseOutcome(id, error, &actions) }
            self.fail(error, &actions, now: now)
        }
        self.settle(&actions, now: now)
        return actions
    }

    private mutating func outcomeStored(_ id: SlotID) {
        if case .decided(let disposition) = self.slots[id]?.outcome {
            switch disposition {
            case .acknowledge, .acknowledgeAndPublish: self.tally.acknowledged += 1
            case .retry: self.tally.retried += 1
            case .deadLetter: self.tally.deadLettered += 1
            case .release: self.tally.released += 1
            }
        }
        self.slots[id]?.outcome = .settled
        self.freeIfDone(id)
    }

    /// Puts another outcome in place of one that the collector can't keep, once: a message must not hang on a delay
    /// that is too long for the backend.
    private mutating func outcomeRefused(_ id: SlotID, _ error: StalkError, _ actions: inout [WorkerAction]) {
        guard let slot = self.slots[id] else { return }
        if error.code == .staleReceipt {
            self.tally.lostLeases += 1
            actions.append(.log(.outcomeCameLate(slot.delivery)))
            self.slots[id]?.outcome = .settled
            self.freeIfDone(id)
        } else if slot.isReplacement || error.code == .foreignReceipt {
            self.loseOutcome(id, error, &actions)
        } else {
            actions.append(.log(.outcomeRefused(slot.delivery, error)))
            let reason = "the outcome was refused: \(error)"
            self.slots[id]?.isReplacement = true
            self.decide(id, self.rules.failure(of: slot.delivery, reason, using: &self.generator))
        }
    }

    /// Tries again while the leases last; a worker that was told to stop at once does not.
    private mutating func sendLater(
        _ ids: [SlotID],
        _ error: StalkError,
        _ actions: inout [WorkerAction],
        now: Duration
    ) {
        self.failed(.finish, error, &actions)
        self.unsent.insert(contentsOf: ids, at: 0)
        let isLastTry = self.phase == .cancelling
        for id in self.unsent where isLastTry || (self.slots[id]?.leaseEndsAt ?? now) <= now {
            self.loseOutcome(id, error, &actions)
        }
        self.unsent.removeAll { self.slots[$0]?.outcome ?? .settled == .settled }
        guard !self.unsent.isEmpty else { return }
        self.finishFailures += 1
        self.isFinishBackingOff = true
        let delay = self.options.backoff.delay(afterFailure: self.finishFailures, using: &self.generator)
        self.setAlarm(.finish, at: now + delay, &actions)
    }

    /// Gives an outcome up: the message comes again when its lease is over.
    private mutating func loseOutcome(_ id: SlotID, _ error: StalkError, _ actions: inout [WorkerAction]) {
        guard let slot = self.slots[id] else { return }
        actions.append(.log(.outcomeLost(slot.delivery, error)))
        self.slots[id]?.outcome = .settled
        self.freeIfDone(id)
    }
}
