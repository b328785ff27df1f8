internal import NIOCore
internal import StalkCore

// Taking and finishing.
extension Engine {
    // MARK: Calls

    func take(_ request: TakeRequest) async throws -> [Delivery] {
        try self.checkOpen()
        try request.validate(for: self.consumer.capabilities)
        try Task.checkCancellation()
        try self.throwPermanentFailure()
        let id = self.number()
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                self.beginTake(id, request, continuation)
            }
        } onCancel: {
            self.eventLoop.execute { self.assumeIsolated { $0.cancelTake(id) } }
        }
    }

    private func beginTake(
        _ id: UInt64,
        _ request: TakeRequest,
        _ continuation: CheckedContinuation<[Delivery], any Error>
    ) {
        self.takers[id] = continuation
        let now = self.clock.elapsed()
        let deadline = request.wait > .zero ? now + request.wait : nil
        self.perform(self.consumer.take(id, request, deadline: deadline, now: now))
        if deadline == nil, self.takers[id] != nil {
            let grace = self.consumer.isAsleep ? .zero : self.configuration.pollGrace
            self.eventLoop.scheduleTask(in: TimeAmount(grace)) { self.assumeIsolated { $0.endGrace(id) } }
        }
        self.armTimer()
    }

    private func endGrace(_ id: UInt64) {
        guard let actions = self.consumer.cancel(id, now: self.clock.elapsed()) else { return }
        self.perform(actions)
        self.answerTaker(id, [])
        self.armTimer()
    }

    private func cancelTake(_ id: UInt64) {
        // A take that was served before the cancellation came keeps what it got.
        guard let actions = self.consumer.cancel(id, now: self.clock.elapsed()) else { return }
        self.perform(actions)
        self.takers.removeValue(forKey: id)?.resume(throwing: CancellationError())
        self.armTimer()
    }

    func finish(_ completions: [Completion]) async throws -> [Result<Void, StalkError>] {
        try self.checkOpen()
        let (outcomes, actions) = try self.consumer.finish(completions, now: self.clock.elapsed())
        for case .later(let serial) in outcomes { self.deadLetters[serial] = .open }
        let flushed = self.perform(actions, promising: true)
        self.armTimer()
        var lost: Set<ConnectionID> = []
        for (id, future) in flushed {
            do { try await future.get() } catch { lost.insert(id) }
        }
        var results: [Result<Void, StalkError>] = []
        results.reserveCapacity(outcomes.count)
        for outcome in outcomes {
            switch outcome {
            case .done(let id?) where lost.contains(id): results.append(.failure(Self.lostConnection))
            case .done: results.append(.success(()))
            case .refused(let error): results.append(.failure(error))
            case .later(let serial): results.append(await self.deadLetterOutcome(serial))
            }
        }
        return results
    }

    private static var lostConnection: StalkError {
        StalkError(.staleReceipt, "The connection was lost before nsqd could be told: the message comes again.")
    }

    func extend(_ receipts: [Receipt], lease: Duration) throws -> [Result<Void, StalkError>] {
        try self.checkOpen()
        let (results, actions) = try self.consumer.extend(receipts, lease: lease, now: self.clock.elapsed())
        self.perform(actions)
        self.armTimer()
        return results
    }

    func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        try self.checkOpen()
        let (status, actions) = try self.consumer.control(command, now: self.clock.elapsed())
        self.perform(actions)
        if command == .wake { try await self.startConsuming() }
        self.armTimer()
        return status
    }

    /// Connects, and returns when messages can come, or when each nsqd was tried once.
    private func startConsuming() async throws {
        self.isConsuming = true
        self.startLookup()
        self.connectConsumers()
        if self.mayStillConnect {
            await withCheckedContinuation { continuation in
                self.wakeWaiters.append(continuation)
                self.eventLoop.scheduleTask(in: TimeAmount(self.configuration.connectTimeout)) {
                    self.assumeIsolated { $0.resumeWakers() }
                }
            }
        }
        try self.throwPermanentFailure()
    }

    private var isConnected: Bool { !self.consumer.connections.isEmpty }

    private var mayStillConnect: Bool {
        guard !self.isConnected else { return false }
        return !self.hasLookedUp || self.links.values.contains { $0.purpose == .consume && !$0.isReady }
    }

    private func throwPermanentFailure() throws(StalkError) {
        if !self.isConnected, let failure = self.consumeFailure, failure.isPermanent { throw failure }
    }

    func resumeWakers() {
        for waiter in self.wakeWaiters { waiter.resume() }
        self.wakeWaiters = []
    }

    // MARK: Connections

    func connectConsumers() {
        guard !self.isClosed else { return }
        for (address, id) in self.nodes.due(now: self.clock.elapsed(), nextID: { ConnectionID(number: self.number()) })
        {
            self.connect(to: address, id, .consume)
        }
    }

    func consumerLost(_ id: ConnectionID, _ error: StalkError) {
        let now = self.clock.elapsed()
        self.nodes.ended(id, now: now, using: &self.generator)
        self.consumeFailure = error
        self.perform(self.consumer.disconnected(id, now: now))
        if self.closeWaits.remove(id) != nil, self.closeWaits.isEmpty { self.endCloseWait() }
        guard !self.isClosed else { return }
        if !self.mayStillConnect { self.resumeWakers() }
        // Waiting does not mend a refused topic or secret: whoever waits is told.
        if !self.isConnected, error.isPermanent {
            for (taker, continuation) in self.takers where self.consumer.cancel(taker, now: now) != nil {
                self.takers[taker] = nil
                continuation.resume(throwing: error)
            }
        }
        self.lookupSoon()
    }

    func consumed(_ frames: [NSQFrame], from id: ConnectionID) {
        var messages: [NSQMessage] = []
        messages.reserveCapacity(frames.count)
        for frame in frames {
            switch frame {
            case .message(let message):
                messages.append(message)
            case .response:
                if frame == .closeWait, self.closeWaits.remove(id) != nil, self.closeWaits.isEmpty {
                    self.endCloseWait()
                }
            case .error(let text):
                if isHarmless(errorFrame: text) {
                    self.lateRefusals += 1
                } else {
                    self.close(id, StalkError(refusal: text))
                }
            }
        }
        guard !messages.isEmpty else { return }
        self.perform(self.consumer.received(messages, from: id, now: self.clock.elapsed()))
        self.armTimer()
    }

    // MARK: Actions

    /// Carries out what was decided; each connection is flushed once.
    ///
    /// - Returns: For each connection that something was sent over, when the operating system has it.
    @discardableResult
    func perform(_ actions: [ConsumerAction], promising: Bool = false) -> [ConnectionID: EventLoopFuture<Void>] {
        var touched: [ConnectionID: ConnectionHandler] = [:]
        for action in actions {
            switch action {
            case .send(let id, let command):
                if let handler = touched[id] {
                    handler.write(command)
                } else if let handler = self.links[id]?.handler.value {
                    touched[id] = handler
                    handler.write(command)
                }
            case .answer(let taker, let deliveries):
                self.answerTaker(taker, deliveries)
            case .deadLetter(let serial, let delivery, let reason):
                self.publishDeadLetter(serial, delivery, reason)
            }
        }
        var futures: [ConnectionID: EventLoopFuture<Void>] = [:]
        for (id, handler) in touched {
            let promise = promising ? self.eventLoop.makePromise(of: Void.self) : nil
            futures[id] = promise?.futureResult
            handler.flush(promise: promise)
        }
        return futures
    }

    private func answerTaker(_ id: UInt64, _ deliveries: [Delivery]) {
        guard let continuation = self.takers.removeValue(forKey: id) else { return }
        if deliveries.isEmpty, !self.isClosed, !self.consumer.isAsleep, !self.isConnected,
            let failure = self.consumeFailure
        {
            // An empty queue and a queue that can't be reached are not the same.
            continuation.resume(throwing: failure)
        } else if deliveries.isEmpty, self.isClosed {
            continuation.resume(throwing: StalkError(.closed, "The collector was closed while a take waited."))
        } else {
            continuation.resume(returning: deliveries)
        }
    }

    // MARK: Dead letters

    private func publishDeadLetter(_ serial: UInt64, _ delivery: Delivery, _ reason: String) {
        var headers = delivery.headers
        headers["Stalk-Error"] = reason
        headers["Stalk-Error-Queue"] = delivery.queue.rawValue
        headers["Stalk-Error-Attempts"] = String(delivery.attempt)
        let body =
            self.configuration.envelope
            ? Envelope(id: delivery.id.rawValue, headers: headers, body: delivery.body).encoded() : delivery.body
        let call = self.number()
        self.publishers[call] = .deadLetter(serial)
        let now = self.clock.elapsed()
        let item = ProducerStateMachine.Item(
            call: call,
            index: 0,
            topic: self.configuration.deadLetterTopic,
            body: body,
            delayMillis: 0,
            queuedAt: now
        )
        self.producer.publish(call, [item], deadline: now + self.configuration.publishDeadline)
        self.schedulePump()
    }

    func deadLetterPublished(_ serial: UInt64, _ result: Result<Void, StalkError>) {
        let (outcome, actions) = self.consumer.deadLettered(serial, result, now: self.clock.elapsed())
        self.perform(actions)
        self.armTimer()
        switch self.deadLetters.removeValue(forKey: serial) {
        case .waiting(let continuation): continuation.resume(returning: outcome)
        case .open: self.deadLetters[serial] = .over(outcome)
        case .over, nil: break
        }
    }

    private func deadLetterOutcome(_ serial: UInt64) async -> Result<Void, StalkError> {
        if case .over(let result) = self.deadLetters[serial] {
            self.deadLetters[serial] = nil
            return result
        }
        return await withCheckedContinuation { self.deadLetters[serial] = .waiting($0) }
    }
}
