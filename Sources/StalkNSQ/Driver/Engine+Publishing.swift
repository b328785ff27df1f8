internal import NIOCore
internal import StalkCore

// Publishing: one connection at a time, the next nsqd when it ends.
extension Engine {
    /// Publishes what was encoded, and returns the answer for each in order.
    func publish(_ messages: [OutgoingBody]) async throws -> [Result<Void, StalkError>] {
        try self.checkOpen()
        let call = self.number()
        let now = self.clock.elapsed()
        let items = messages.enumerated().map { index, message in
            ProducerStateMachine.Item(
                call: call,
                index: index,
                topic: self.configuration.topic,
                body: message.bytes,
                delayMillis: message.delayMillis,
                queuedAt: now
            )
        }
        return await withCheckedContinuation { continuation in
            self.publishers[call] = .caller(continuation)
            self.producer.publish(call, items, deadline: now + self.configuration.publishDeadline)
            self.schedulePump()
        }
    }

    /// Sends what waits at the end of this turn of the event loop, so that callers of one turn share a write.
    func schedulePump() {
        guard !self.isPumpScheduled else { return }
        self.isPumpScheduled = true
        self.eventLoop.execute { self.assumeIsolated { $0.pump() } }
    }

    func pump() {
        self.isPumpScheduled = false
        self.openOutlet()
        if case .ready(let id) = self.outlet, let handler = self.links[id]?.handler.value {
            let now = self.clock.elapsed()
            var hasWritten = false
            while let command = self.producer.next(now: now) {
                handler.write(command)
                hasWritten = true
            }
            if hasWritten { handler.flush() }
        }
        self.armTimer()
    }

    // MARK: The outlet

    private func openOutlet() {
        guard case .none = self.outlet, self.producer.hasWaiting, !self.isClosed else { return }
        self.startLookup()
        guard self.hasLookedUp else { return }
        var addresses = self.configuration.nsqds
        addresses += self.listedOutlets.filter { !addresses.contains($0) }
        // The one that worked last is tried first.
        if let last = self.outletAddress, let position = addresses.firstIndex(of: last) {
            addresses = Array(addresses[position...] + addresses[..<position])
        }
        let reason = StalkError(.unavailable, "No nsqlookupd names an nsqd: there is nowhere to publish to.")
        self.tryOutlet(addresses[...], otherwise: reason)
    }

    private func tryOutlet(_ addresses: ArraySlice<NSQAddress>, otherwise reason: StalkError) {
        guard let address = addresses.first else {
            self.outlet = .none
            self.lookupSoon()
            return self.answer(self.producer.unreachable(reason))
        }
        let id = ConnectionID(number: self.number())
        self.outlet = .connecting(id, rest: Array(addresses.dropFirst()))
        self.connect(to: address, id, .publish)
    }

    func outletLost(_ id: ConnectionID, _ error: StalkError) {
        switch self.outlet {
        case .connecting(id, let rest):
            self.tryOutlet(rest[...], otherwise: error)
        case .ready(id):
            self.outlet = .none
            self.answer(self.producer.disconnected(error))
            // Another one first, if there is another one.
            let addresses = self.configuration.nsqds + self.listedOutlets
            if let last = self.outletAddress, let position = addresses.firstIndex(of: last) {
                self.outletAddress = addresses[(position + 1) % addresses.count]
            }
            self.pump()
        default:
            break
        }
    }

    func answered(_ frames: [NSQFrame], from id: ConnectionID) {
        var finished: [ProducerStateMachine.Finished] = []
        for frame in frames {
            guard self.producer.hasSent else {
                let error = StalkError(.unavailable, "nsqd answered what nobody asked.")
                self.close(id, error)
                break
            }
            switch frame {
            case .response:
                finished += self.producer.accepted()
            case .error(let text):
                // Some of an MPUB may be there when it fails midway.
                var error = StalkError(refusal: text)
                if text.hasPrefix("E_MPUB_FAILED") { error.code = .interrupted }
                finished += self.producer.refused(error)
                self.close(id, error)
            case .message:
                self.close(id, StalkError(.unavailable, "nsqd sent a message to a publisher."))
            }
        }
        self.answer(finished)
        if self.producer.hasWaiting { self.schedulePump() }
    }

    func answer(_ finished: [ProducerStateMachine.Finished]) {
        for call in finished {
            switch self.publishers.removeValue(forKey: call.call) {
            case .caller(let continuation): continuation.resume(returning: call.results)
            case .deadLetter(let serial): self.deadLetterPublished(serial, call.results.first ?? .success(()))
            case nil: break
            }
        }
    }
}
