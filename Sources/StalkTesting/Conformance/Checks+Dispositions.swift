internal import StalkCore

extension ConformanceTrial {
    func retryComesAgainWhenDue() async throws {
        let delay = min(self.short, self.capabilities.maxRetryDelay)
        try self.applies(delay > self.timing.tolerance * 2, otherwise: "it keeps no delay")
        let headers: Headers = ["Colour": "green"]
        try await self.collector.wake()
        let id = try await self.collector.publish(Message("flaky", headers: headers))
        try await self.collector.finish(try await self.takeOne(), .retry(after: delay, reason: "try later"))
        try await self.expectNothing("at once, with a retry after \(delay)")
        try await self.pass(delay, "its retry after \(delay) was due")
        let second = try await self.takeOne()
        try self.expect(second.id == id, "\(id) came again as \(second.id)")
        try self.expect(second.attempt == 2, "the second delivery was attempt \(second.attempt)")
        try self.expect(second.text == "flaky", "the body \"flaky\" came again as \(second.text)")
        try self.expectHeaders(headers, in: second)
        try await self.collector.acknowledge(second)
        try await self.expectNothing("after it was acknowledged")
    }

    func retryWithoutDelayComesAtOnce() async throws {
        try await self.collector.wake()
        try await self.collector.publish(Message("flaky"))
        try await self.collector.finish(try await self.takeOne(), .retry(after: .zero, reason: "now"))
        let second = try await self.takeOne()
        try self.expect(second.attempt == 2, "the second delivery was attempt \(second.attempt)")
    }

    func retryDelayOutOfRangeIsRefused() async throws {
        try await self.collector.wake()
        try await self.collector.publish(Message("flaky"))
        let delivery = try await self.takeOne()
        for delay in [.milliseconds(-1), self.capabilities.maxRetryDelay + .milliseconds(1)] {
            try await self.expectRefusal(.delayOutOfRange, of: "a retry after \(delay)") {
                try await self.collector.finish(delivery, .retry(after: delay, reason: "no"))
            }
        }
        try await self.expectNothing("although the retry was refused")
        try await self.collector.acknowledge(delivery)
    }

    func attemptsCountFromOne() async throws {
        try await self.collector.wake()
        try await self.collector.publish(Message("work"))
        for attempt in 1...4 {
            let lease = attempt == 2 ? self.short : self.long
            let delivery = try await self.takeOne(lease: lease)
            try self.expect(delivery.attempt == attempt, "delivery \(attempt) was attempt \(delivery.attempt)")
            if attempt == 2 {
                try await self.harness.advance(by: self.short + self.timing.tolerance)
            } else {
                try await self.collector.finish(delivery, .retry(after: .zero, reason: "attempt \(attempt)"))
            }
        }
    }

    func releaseComesAtOnce() async throws {
        try await self.collector.wake()
        let id = try await self.collector.publish(Message("unwanted"))
        let first = try await self.takeOne()
        try await self.collector.finish(first, .release)
        let second = try await self.takeOne()
        try self.expect(second.id == id, "\(id) came again as \(second.id)")
        let attempt = self.capabilities.uncountedRelease ? 1 : 2
        try self.expect(second.attempt == attempt, "after a release attempt \(attempt) was due, not \(second.attempt)")
        try await self.expectRefusal(.staleReceipt, of: "an acknowledge after a release with the same receipt") {
            try await self.collector.acknowledge(first)
        }
        try await self.collector.acknowledge(second)
    }

    func deadLetterLeavesQueue() async throws {
        try await self.collector.wake()
        try await self.publish("poison", "fine")
        for delivery in try await self.take(2, lease: self.short) {
            let isPoison = delivery.text == "poison"
            try await self.collector.finish(delivery, isPoison ? .deadLetter(reason: "can't be read") : .acknowledge)
        }
        try await self.expectNothing("after it was dead-lettered")
        try await self.harness.advance(by: self.short + self.timing.tolerance)
        try await self.expectNothing("after the lease that it was dead-lettered under")
        if let dead = try await self.harness.deadLetters(of: self.collector) {
            let expected = [ConformanceDeadLetter(body: Array("poison".utf8), reason: "can't be read")]
            try self.expect(dead == expected, "the dead letters are \(dead)")
        }
    }

    func finishAnswersForEach() async throws {
        try self.applies(self.capabilities.maxBatch >= 3, otherwise: "it takes no batch of three")
        try await self.collector.wake()
        try await self.publish("one", "two", "three")
        let deliveries = try await self.take(3)
        try await self.collector.finish(deliveries[1], .retry(after: .zero, reason: "again"))
        let results = try await self.collector.finish([
            Completion(deliveries[0].receipt, .acknowledge),
            Completion(deliveries[1].receipt, .acknowledge),
            Completion(deliveries[2].receipt, .acknowledge),
        ])
        try self.expect(results.count == 3, "3 completions got \(results.count) results")
        try results[0].get()
        try await self.expectRefusal(.staleReceipt, of: "the second of three acknowledges") { try results[1].get() }
        try results[2].get()
        let left = try await self.takeOne()
        try self.expect(left.id == deliveries[1].id, "\(left.text) came, not \(deliveries[1].text)")
        try await self.expectNothing("after it was acknowledged")
    }

    func publishingWithAcknowledgeIsOneStep() async throws {
        try self.applies(self.capabilities.atomicPublish, otherwise: "it has no atomic publish")
        try await self.collector.wake()
        try await self.collector.publish(Message("order"))
        let order = try await self.takeOne()
        let outgoing = self.outgoing([Message("invoice", headers: ["n": "1"]), Message("parcel", headers: ["n": "2"])])
        let broken = self.outgoing([Message("never"), Message("never", delay: .seconds(-1))])
        try await self.expectRefusal(.delayOutOfRange, of: "an acknowledge with a publish that is refused") {
            try await self.collector.finish(order, .acknowledgeAndPublish(broken))
        }
        try await self.expectNothing("of a step that was refused")
        try await self.collector.finish(order, .acknowledgeAndPublish(outgoing))
        let followers = try await self.take(2)
        let texts = Set(followers.map(\.text))
        try self.expect(texts == ["invoice", "parcel"], "an invoice and a parcel were published, \(texts) came")
        for delivery in followers {
            try self.expectHeaders(["n": delivery.text == "invoice" ? "1" : "2"], in: delivery)
            try self.expect(delivery.attempt == 1, "a published message began with attempt \(delivery.attempt)")
        }
        try await self.expectNothing("besides the two that were published")
    }

    func staleReceiptPublishesNothing() async throws {
        try self.applies(self.capabilities.atomicPublish, otherwise: "it has no atomic publish")
        try await self.collector.wake()
        try await self.collector.publish(Message("order"))
        let first = try await self.takeOne(lease: self.short)
        try await self.harness.advance(by: self.short + self.timing.tolerance)
        let second = try await self.takeOne()
        try await self.expectRefusal(.staleReceipt, of: "acknowledge and publish with the receipt of an expired lease")
        {
            try await self.collector.finish(first, .acknowledgeAndPublish(self.outgoing([Message("ghost")])))
        }
        try await self.expectNothing("with a stale receipt")
        try await self.collector.acknowledge(second)
    }

    func missingAtomicPublishIsRefused() async throws {
        try self.applies(!self.capabilities.atomicPublish, otherwise: "it has an atomic publish")
        try await self.collector.wake()
        try await self.collector.publish(Message("order"))
        let order = try await self.takeOne()
        try await self.expectRefusal(.unsupported, of: "acknowledge and publish") {
            try await self.collector.finish(order, .acknowledgeAndPublish(self.outgoing([Message("ghost")])))
        }
        try await self.expectNothing("of a step that was refused")
        try await self.collector.acknowledge(order)
    }

    private func outgoing(_ messages: [Message]) -> [OutgoingMessage] {
        messages.map { OutgoingMessage($0, to: self.collector.queue) }
    }
}
