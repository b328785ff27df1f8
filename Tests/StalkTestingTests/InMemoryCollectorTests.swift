import StalkCore
import StalkTesting
import Testing

/// What the conformance suite can't see from outside.
@Suite(.timeLimit(.minutes(10))) struct InMemoryCollectorTests {
    let clock = ManualClock()

    func makeCollector() async throws -> InMemoryCollector {
        let collector = InMemoryCollector(queue: try QueueName("jobs"), clock: self.clock)
        try await collector.wake()
        return collector
    }

    @Test func deadLetterKeepsHistory() async throws {
        let collector = try await self.makeCollector()
        let id = try await collector.publish(Message("work", headers: ["k": "v"]))
        try await collector.finish(collector.take(TakeRequest())[0], .retry(after: .zero, reason: "first"))
        try await collector.finish(collector.take(TakeRequest())[0], .deadLetter(reason: "second"))
        let dead = try #require(collector.deadLetters.first)
        #expect(dead.id == id)
        #expect(dead.headers["k"] == "v")
        #expect(dead.attempts == 2)
        #expect(dead.reason == "second")
        #expect(dead.history == ["first", "second"])
    }

    @Test func countsFollowStates() async throws {
        let collector = try await self.makeCollector()
        try await collector.publish([Message("a"), Message("b"), Message("c", delay: .seconds(5))])
        let taken = try await collector.take(TakeRequest(lease: .seconds(10)))
        #expect(collector.counts == InMemoryCollector.Counts(ready: 1, delayed: 1, leased: 1, dead: 0))
        self.clock.advance(by: .seconds(5))
        #expect(collector.counts == InMemoryCollector.Counts(ready: 2, delayed: 0, leased: 1, dead: 0))
        try await collector.finish(taken[0], .deadLetter(reason: "no"))
        #expect(collector.counts == InMemoryCollector.Counts(ready: 2, delayed: 0, leased: 0, dead: 1))
        _ = try await collector.take(TakeRequest(max: 2, lease: .seconds(10)))
        self.clock.advance(by: .seconds(10))
        #expect(collector.counts == InMemoryCollector.Counts(ready: 2, delayed: 0, leased: 0, dead: 1))
    }

    @Test func acknowledgeReachesOtherQueuesOfBroker() async throws {
        let broker = InMemoryBroker(clock: self.clock)
        let orders = broker.collector(for: try QueueName("orders"))
        let invoices = broker.collector(for: try QueueName("invoices"))
        try await orders.wake()
        try await invoices.wake()
        try await orders.publish(Message("order"))
        let order = try await orders.take(TakeRequest())[0]
        let invoice = OutgoingMessage(Message("invoice"), to: invoices.queue)
        try await orders.finish(order, .acknowledgeAndPublish([invoice]))
        #expect(try await invoices.take(TakeRequest()).map(\.text) == ["invoice"])
        #expect(orders.counts == InMemoryCollector.Counts(ready: 0, delayed: 0, leased: 0, dead: 0))
    }

    @Test func receiptOfOtherQueueOfBrokerIsForeign() async throws {
        let broker = InMemoryBroker(clock: self.clock)
        let (one, two) = (broker.collector(for: try QueueName("one")), broker.collector(for: try QueueName("two")))
        try await one.wake()
        try await one.publish(Message("work"))
        let delivery = try await one.take(TakeRequest())[0]
        let error = await #expect(throws: StalkError.self) { try await two.acknowledge(delivery) }
        #expect(error?.code == .foreignReceipt)
        try await one.acknowledge(delivery)
    }

    @Test func drainedWaitsForDelayedAndLeased() async throws {
        let collector = try await self.makeCollector()
        try await collector.drained()
        try await collector.publish([Message("now"), Message("later", delay: .seconds(5))])
        async let isDrained: Void = collector.drained()
        try await collector.acknowledge(collector.take(TakeRequest())[0])
        self.clock.advance(by: .seconds(5))
        let last = try await collector.take(TakeRequest())[0]
        #expect(collector.counts.leased == 1)
        try await collector.finish(last, .deadLetter(reason: "enough"))
        try await isDrained
    }

    @Test func drainedCanBeCancelled() async throws {
        let collector = try await self.makeCollector()
        try await collector.publish(Message("work"))
        await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await collector.drained() }
            group.cancelAll()
            await #expect(throws: CancellationError.self) { try await group.next() }
        }
    }

    @Test func messagesAreStampedByWallClock() async throws {
        let collector = try await self.makeCollector()
        self.clock.advance(by: .seconds(3))
        try await collector.publish(Message("work"))
        let publishedAt = self.clock.wallTime()
        self.clock.advance(by: .seconds(3))
        #expect(try await collector.take(TakeRequest())[0].publishedAt == publishedAt)
    }

    @Test func livesByRealClockToo() async throws {
        let collector = InMemoryCollector(queue: try QueueName("jobs"))
        try await collector.wake()
        try await collector.publish(Message("soon", delay: .milliseconds(5)))
        #expect(try await collector.take(TakeRequest(wait: .seconds(10))).map(\.text) == ["soon"])
        #expect(try await collector.take(TakeRequest(wait: .milliseconds(5))).isEmpty)
    }

    @Test func manyTakersWaitAndEachMessageGoesToOne() async throws {
        let collector = try await self.makeCollector()
        let count = 20
        let taken = try await withThrowingTaskGroup(of: [String].self) { group in
            for _ in 0..<count {
                group.addTask { try await collector.take(TakeRequest(wait: .seconds(60))).map(\.text) }
            }
            await self.clock.sleeperCount(reaches: count)
            for number in 0..<count { try await collector.publish(Message("\(number)")) }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        #expect(Set(taken) == Set((0..<count).map { "\($0)" }))
        #expect(taken.count == count)
    }
}

@Suite(.timeLimit(.minutes(10))) struct ManualClockTests {
    @Test func sleeperCountEndsWhenCancelled() async {
        let clock = ManualClock()
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await clock.sleeperCount(reaches: 1) }
            group.cancelAll()
        }
    }

    @Test func sleeperCountSeesSleepers() async throws {
        let clock = ManualClock()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for seconds in 1...3 {
                group.addTask { try await clock.sleep(for: .seconds(seconds)) }
            }
            await clock.sleeperCount(reaches: 3)
            clock.advance(by: .seconds(3))
            try await group.waitForAll()
        }
    }
}
