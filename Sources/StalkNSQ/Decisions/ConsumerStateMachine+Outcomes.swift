internal import DequeModule
internal import StalkCore

// How deliveries end: by their takers, or because time passes.
extension ConsumerStateMachine {
    /// What became of one completion.
    enum Outcome {
        /// Over once this connection has sent it; `nil` where nothing is to be sent.
        case done(ConnectionID?)
        case refused(StalkError)
        /// Decided when the error topic has the message; the serial is the one of the action.
        case later(UInt64)
    }

    mutating func finish(
        _ completions: [Completion],
        now: Duration
    ) throws(StalkError) -> (outcomes: [Outcome], actions: [ConsumerAction]) {
        try self.checkBatch(completions.count, "completions")
        var actions: [ConsumerAction] = []
        self.expire(&actions, now: now)
        var outcomes: [Outcome] = []
        outcomes.reserveCapacity(completions.count)
        for completion in completions {
            do throws(StalkError) {
                outcomes.append(try self.finish(completion, &actions, now: now))
            } catch {
                outcomes.append(.refused(error))
            }
        }
        self.settle(&actions, now: now)
        return (outcomes, actions)
    }

    private mutating func finish(
        _ completion: Completion,
        _ actions: inout [ConsumerAction],
        now: Duration
    ) throws(StalkError) -> Outcome {
        if case .retry(let delay, _) = completion.disposition {
            try Message.validate(delay: delay, largest: self.capabilities.maxDelay)
        }
        let serial = try self.serial(of: completion.receipt)
        if completion.disposition == .acknowledge, self.wasAcknowledged(serial) { return .done(nil) }
        guard let held = self.held[serial], case .leased = held.state else { throw Self.stale(completion.receipt) }
        switch completion.disposition {
        case .acknowledge:
            self.backoff.succeeded(serial, now: now)
            self.acknowledged[Int(serial % UInt64(Self.rememberedAcknowledges))] = serial
            actions.append(.send(held.connection, .finish(held.key)))
            self.forget(serial)
        case .retry(let delay, _):
            self.backoff.failed(serial, now: now)
            let millis = delay.wholeMillisecondsRoundedUp
            actions.append(.send(held.connection, .requeue(held.key, milliseconds: millis)))
            self.forget(serial)
        case .release:
            self.giveBack(serial, &actions)
        case .deadLetter(let reason):
            self.held[serial]?.state = .leaving
            self.leasedCount -= 1
            actions.append(.deadLetter(serial, held.delivery, reason: reason))
            return .later(serial)
        case .acknowledgeAndPublish:
            throw StalkError(.unsupported, "NSQ can't acknowledge and publish in one step: publish first.")
        }
        return .done(held.connection)
    }

    /// The error topic has the message, or can't be reached: only in the first case it leaves this topic.
    ///
    /// - Returns: The outcome for who asked for it.
    mutating func deadLettered(
        _ serial: UInt64,
        _ result: Result<Void, StalkError>,
        now: Duration
    ) -> (result: Result<Void, StalkError>, actions: [ConsumerAction]) {
        var actions: [ConsumerAction] = []
        var result = result
        if let held = self.held[serial] {
            switch result {
            case .success:
                actions.append(.send(held.connection, .finish(held.key)))
                self.backoff.ended(serial)
                self.forget(serial)
            case .failure:
                // A second try of the same receipt may reach the error topic while the lease lasts.
                let lease = self.timeout(of: held)
                self.held[serial]?.state = .leased(until: now + lease)
                self.leasedCount += 1
                self.check(at: now + lease)
            }
        } else if case .success = result {
            result = .failure(
                StalkError(
                    .staleReceipt,
                    "The connection was lost while the message went to the error topic: it is there, and comes again here."
                )
            )
        }
        self.settle(&actions, now: now)
        return (result, actions)
    }

    private func timeout(of held: Held) -> Duration {
        self.connections[held.connection]?.features.messageTimeout ?? .zero
    }

    mutating func extend(
        _ receipts: [Receipt],
        lease: Duration,
        now: Duration
    ) throws(StalkError) -> (results: [Result<Void, StalkError>], actions: [ConsumerAction]) {
        try self.checkBatch(receipts.count, "receipts")
        try TakeRequest.validate(lease: lease, for: self.capabilities)
        var actions: [ConsumerAction] = []
        self.expire(&actions, now: now)
        let results = receipts.map { receipt in
            Result { () throws(StalkError) in try self.extend(receipt, lease, now: now) }
        }
        self.settle(&actions, now: now)
        return (results, actions)
    }

    private mutating func extend(_ receipt: Receipt, _ lease: Duration, now: Duration) throws(StalkError) {
        let serial = try self.serial(of: receipt)
        guard let held = self.held[serial], case .leased = held.state else { throw Self.stale(receipt) }
        let limit = self.serverLimit(of: held)
        self.held[serial]?.state = .leased(until: min(now + lease, limit))
        self.check(at: min(now + lease, limit))
        guard now + lease <= limit else {
            throw StalkError(
                .invalidArgument,
                "nsqd keeps a delivery for \(self.maxMessageTimeout(of: held).stalkText) at most (--max-msg-timeout): "
                    + "the lease lasts until then, and the message comes again after it."
            )
        }
    }

    private func maxMessageTimeout(of held: Held) -> Duration {
        self.connections[held.connection]?.features.maxMessageTimeout ?? .zero
    }

    /// When nsqd takes the delivery back whatever it is told.
    private func serverLimit(of held: Held) -> Duration {
        held.arrivedAt + self.maxMessageTimeout(of: held)
    }

    // MARK: Time

    /// Does what the time has come for.
    mutating func advance(to now: Duration) -> [ConsumerAction] {
        var actions: [ConsumerAction] = []
        self.expire(&actions, now: now)
        self.backoff.advance(to: now)
        if let moment = self.patienceEnds, moment <= now {
            self.hasTaken = false
            self.patienceEnds = nil
            while let serial = self.buffer.popLast() { self.giveBack(serial, &actions) }
        }
        self.settle(&actions, now: now)
        // A take that could not be served is over at its deadline.
        for taker in self.takers where taker.deadline.map({ $0 <= now }) ?? false {
            actions.append(.answer(taker.id, []))
        }
        self.takers.removeAll { $0.deadline.map { $0 <= now } ?? false }
        self.settle(&actions, now: now)
        return actions
    }

    /// When ``advance(to:)`` is to be called next.
    var nextMoment: Duration? {
        [
            self.nextCheck, self.backoff.pauseEnd, self.patienceEnds, self.takers.compactMap(\.deadline).min(),
        ].compactMap(\.self).min()
    }

    /// Keeps leases alive at nsqd, ends those that are over, gives back what nobody took.
    private mutating func expire(_ actions: inout [ConsumerAction], now: Duration) {
        guard let moment = self.nextCheck, moment <= now else { return }
        self.nextCheck = nil
        for (serial, held) in self.held {
            let half = self.timeout(of: held) / 2
            switch held.state {
            case .buffered:
                guard held.touchedAt + half <= now else {
                    self.check(at: held.touchedAt + half)
                    continue
                }
                self.giveBack(serial, &actions)
            case .leased(let end):
                if min(end, self.serverLimit(of: held)) <= now {
                    self.giveBack(serial, &actions)
                } else {
                    self.touch(serial, held, until: end, &actions, now: now)
                    self.check(at: min(end, self.serverLimit(of: held)))
                }
            case .leaving:
                self.touch(serial, held, until: self.serverLimit(of: held), &actions, now: now)
            }
        }
        self.dropUnheld()
    }

    /// Sends a TOUCH when half of nsqd's time-out is over and the lease needs more than the rest.
    private mutating func touch(
        _ serial: UInt64,
        _ held: Held,
        until end: Duration,
        _ actions: inout [ConsumerAction],
        now: Duration
    ) {
        let timeout = self.timeout(of: held)
        // A margin, since nsqd's clock began earlier than ours.
        guard end > held.touchedAt + timeout * 3 / 4, self.serverLimit(of: held) > now else { return }
        if held.touchedAt + timeout / 2 <= now {
            actions.append(.send(held.connection, .touch(held.key)))
            self.held[serial]?.touchedAt = now
            self.check(at: now + timeout / 2)
        } else {
            self.check(at: held.touchedAt + timeout / 2)
        }
    }

    // MARK: Receipts

    private func serial(of receipt: Receipt) throws(StalkError) -> UInt64 {
        guard case .local(self.identity, let serial, _) = receipt.token else {
            throw StalkError(
                .foreignReceipt,
                "The receipt \(receipt) was not issued by this collector of \(self.queue): finish it where it was taken."
            )
        }
        return serial
    }

    private func wasAcknowledged(_ serial: UInt64) -> Bool {
        self.acknowledged[Int(serial % UInt64(Self.rememberedAcknowledges))] == serial
    }

    private static func stale(_ receipt: Receipt) -> StalkError {
        StalkError(.staleReceipt, "The lease of \(receipt) is over: the message may have gone to somebody else.")
    }

    func checkBatch(_ count: Int, _ what: String) throws(StalkError) {
        guard count <= self.capabilities.maxBatch else { throw Self.batchTooLarge(count, what, self.capabilities) }
    }

    static func batchTooLarge(_ count: Int, _ what: String, _ capabilities: CollectorCapabilities) -> StalkError {
        StalkError(
            .invalidArgument,
            "A batch of \(count) \(what) is over the limit of \(capabilities.maxBatch): split it."
        )
    }
}
