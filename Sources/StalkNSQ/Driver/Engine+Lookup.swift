internal import StalkCore

// Asking nsqlookupd which nsqds there are.
extension Engine {
    func startLookup() {
        guard self.lookup == nil, !self.configuration.lookupds.isEmpty, !self.isClosed else { return }
        self.lookup = self.lookupTask(after: .zero)
    }

    /// Asks again soon: a connection was lost, so the answer may have changed.
    func lookupSoon() {
        guard self.lookup != nil, !self.isClosed else { return }
        self.lookup?.cancel()
        self.lookup = self.lookupTask(after: min(.seconds(1), self.configuration.lookupInterval))
    }

    private func lookupTask(after delay: Duration) -> Task<Void, Never> {
        let (clock, client) = (self.clock, LookupClient(self.configuration, self.eventLoop))
        let interval = self.configuration.lookupInterval
        return Task { [weak self] in
            if delay > .zero { guard (try? await clock.sleep(clock.elapsed() + delay)) != nil else { return } }
            while !Task.isCancelled {
                let answer = await client.ask()
                guard !Task.isCancelled else { return }
                await self?.lookedUp(answer)
                // Jitter, so that the clients of one restart don't ask together for ever.
                let wait = interval * Double.random(in: 0.7...1.3)
                guard self != nil, (try? await clock.sleep(clock.elapsed() + wait)) != nil else { return }
            }
        }
    }

    private func lookedUp(_ answer: LookupClient.Answer) {
        self.hasLookedUp = true
        if answer.isComplete { self.nodes.listed(answer.topicNodes) }
        if !answer.publishNodes.isEmpty { self.listedOutlets = answer.publishNodes }
        if let failure = answer.failure, answer.topicNodes.isEmpty, self.consumer.connections.isEmpty {
            self.consumeFailure = failure
        }
        if self.isConsuming { self.connectConsumers() }
        // With no node to try there is nothing to wait for.
        if !self.links.values.contains(where: { $0.purpose == .consume && !$0.isReady }) { self.resumeWakers() }
        self.pump()
    }
}
