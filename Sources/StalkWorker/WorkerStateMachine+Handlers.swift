internal import StalkCore

// Handlers: how they end, how they are told to end, and how their leases are kept.
extension WorkerStateMachine {
    // MARK: Ending

    mutating func handled(_ id: SlotID, _ result: HandlerResult, now: Duration) -> [WorkerAction] {
        var actions: [WorkerAction] = [.forgetHandler(id)]
        guard var slot = self.slots[id] else { return actions }
        let before = slot.handler
        slot.handler = .ended
        self.slots[id] = slot
        self.tally.durations.record(now - slot.startedAt)
        if before == .abandoned { self.tally.stuck -= 1 }
        switch (before, slot.outcome, result) {
        case (_, .decided, _), (_, .settled, _):
            // The lease was lost, or the worker went on without the handler.
            if before == .abandoned { actions.append(.log(.abandonedHandlerEnded(slot.delivery))) }
            self.freeIfDone(id)
        case (.cancelled(.timedOut, _), .undecided, _):
            self.decideTimedOut(id, &actions)
        case (.cancelled(.stopped, _), .undecided, .threw):
            self.decide(id, .release)
        case (_, .undecided, _):
            let disposition = self.rules.disposition(for: result, of: slot.delivery, using: &self.generator)
            actions += WorkerLogEntry.failure(disposition, slot.delivery).map { [.log($0)] } ?? []
            self.decide(id, disposition)
        }
        self.settle(&actions, now: now)
        return actions
    }

    /// Puts an outcome in line to be stored.
    mutating func decide(_ id: SlotID, _ disposition: Disposition) {
        self.slots[id]?.outcome = .decided(disposition)
        self.unsent.append(id)
    }

    private mutating func decideTimedOut(_ id: SlotID, _ actions: inout [WorkerAction]) {
        guard let slot = self.slots[id] else { return }
        let reason = "timed out after \(self.options.timeout?.stalkText ?? "its time")"
        let disposition = self.rules.failure(of: slot.delivery, reason, using: &self.generator)
        actions += WorkerLogEntry.failure(disposition, slot.delivery).map { [.log($0)] } ?? []
        self.decide(id, disposition)
    }

    /// Frees the slot once its outcome is stored and its handler has ended.
    mutating func freeIfDone(_ id: SlotID) {
        guard let slot = self.slots[id], slot.outcome == .settled, slot.handler == .ended else { return }
        self.slots[id] = nil
    }

    // MARK: Cancelling

    mutating func cancelHandler(
        _ id: SlotID,
        _ cause: CancelCause,
        _ actions: inout [WorkerAction],
        now: Duration
    ) {
        guard self.slots[id]?.handler == .running else { return }
        let graceEndsAt = now + self.options.cancellationGrace
        self.slots[id]?.handler = .cancelled(cause, graceEndsAt: graceEndsAt)
        actions.append(.cancelHandler(id))
        self.setAlarm(.grace, at: graceEndsAt, &actions)
    }

    mutating func cancelOverdueHandlers(_ actions: inout [WorkerAction], now: Duration) {
        var next: Duration?
        for (id, slot) in self.slots.sorted(by: { $0.key < $1.key }) where slot.handler == .running {
            guard let timeoutAt = slot.timeoutAt else { continue }
            guard timeoutAt <= now else {
                next = min(next ?? timeoutAt, timeoutAt)
                continue
            }
            self.tally.timedOut += 1
            actions.append(.log(.timedOut(slot.delivery)))
            self.cancelHandler(id, .timedOut, &actions, now: now)
        }
        if let next { self.setAlarm(.timeout, at: next, &actions) }
    }

    /// Goes on without the handlers that ignore their cancellation: each occupies its slot until it ends.
    mutating func abandonStuckHandlers(_ actions: inout [WorkerAction], now: Duration) {
        var next: Duration?
        for (id, slot) in self.slots.sorted(by: { $0.key < $1.key }) {
            guard case .cancelled(let cause, let graceEndsAt) = slot.handler else { continue }
            guard graceEndsAt <= now else {
                next = min(next ?? graceEndsAt, graceEndsAt)
                continue
            }
            self.slots[id]?.handler = .abandoned
            self.tally.stuck += 1
            actions.append(.log(.ignoresCancellation(slot.delivery)))
            switch (slot.outcome, cause) {
            case (.undecided, .timedOut): self.decideTimedOut(id, &actions)
            case (.undecided, .stopped): self.decide(id, .release)
            default: break
            }
        }
        if let next { self.setAlarm(.grace, at: next, &actions) }
    }

    // MARK: Keeping leases

    /// Extends the leases of everything that is held, in one go.
    mutating func beat(_ actions: inout [WorkerAction], now: Duration) {
        let held = self.slots.filter { $0.value.outcome != .settled }.sorted { $0.key < $1.key }
        guard !held.isEmpty else { return }
        self.setAlarm(.heartbeat, at: now + self.options.lease / 3, &actions)
        // A call that takes longer than a beat is not helped by another one.
        guard !self.isExtending else { return }
        self.isExtending = true
        actions.append(.extend(held.map(\.key), held.map(\.value.delivery.receipt)))
    }

    /// Takes the answers to a heartbeat; the new leases count from when it was sent.
    mutating func extended(
        _ ids: [SlotID],
        _ results: [Result<Void, StalkError>],
        sentAt: Duration,
        now: Duration
    ) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        self.isExtending = false
        var failed: StalkError?
        for (id, result) in zip(ids, results) {
            switch result {
            case .success:
                self.slots[id]?.leaseEndsAt = sentAt + self.options.lease
            case .failure(let error) where error.code == .staleReceipt:
                self.loseLease(id, &actions, now: now)
            case .failure(let error):
                failed = error
            }
        }
        if let failed {
            self.failed(.extend, failed, &actions)
        } else {
            self.succeeded(.extend, &actions, now: now)
        }
        self.settle(&actions, now: now)
        return actions
    }

    /// Stops a handler whose message may be with somebody else by now.
    private mutating func loseLease(_ id: SlotID, _ actions: inout [WorkerAction], now: Duration) {
        // Of a decided outcome the collector itself says whether it came in time.
        guard let slot = self.slots[id], slot.outcome == .undecided else { return }
        self.tally.lostLeases += 1
        actions.append(.log(.lostLease(slot.delivery)))
        self.slots[id]?.outcome = .settled
        self.cancelHandler(id, .leaseLost, &actions, now: now)
    }
}
