import InMemoryLogging
import Logging
import StalkCore
import StalkTesting
import Testing

@testable import StalkWorker

/// What middleware does around a handler, and the rules that it follows.
@Suite(.timeLimit(.minutes(10))) struct MiddlewareTests {
    let clock = ManualClock()

    static func delivery(_ text: String, attempt: Int = 1, headers: Headers = [:]) -> Delivery {
        Delivery(
            id: MessageID(text),
            queue: QueueName(stored: "jobs"),
            body: Array(text.utf8),
            headers: headers,
            attempt: attempt,
            publishedAt: Timestamp(millisecondsSince1970: 0),
            receipt: Receipt("r-\(text)")
        )
    }

    @Test func firstIsOutermost() async throws {
        let order = Recorder<String>()
        func noting(_ name: String) -> Middleware {
            Middleware { delivery, next in
                order.record("\(name) in")
                let disposition = try await next(delivery)
                order.record("\(name) out")
                return disposition
            }
        }
        let collector = FaultyCollector(try .make(clock: self.clock))
        try await collector.base.publish("1")
        let worker = Worker(
            acknowledging: collector,
            clock: self.clock,
            middleware: [noting("a"), noting("b")]
        ) { _ in order.record("handler") }
        try await worker.whileRunning { try await collector.base.drained() }
        #expect(order.values == ["a in", "b in", "handler", "b out", "a out"])
    }

    @Test func middlewareMayAnswerInPlaceOfHandler() async throws {
        let refusing = Middleware { _, _ in .deadLetter(reason: "not today") }
        let collector = FaultyCollector(try .make(clock: self.clock))
        try await collector.base.publish("1")
        let worker = Worker(acknowledging: collector, clock: self.clock, middleware: [refusing]) { _ in
            Issue.record("the handler ran")
        }
        try await worker.whileRunning { try await collector.base.drained() }
        #expect(collector.base.deadLetters.map(\.reason) == ["not today"])
    }

    @Test func loggingSaysHowItEndedAndNeverABody() async throws {
        let handler = InMemoryLogHandler()
        var logger = Logger(label: "test") { _ in handler }
        logger.logLevel = .debug
        let logging = Middleware.logging(logger, clock: self.clock)
        let clock = self.clock
        let done = logging.around { _ in
            clock.advance(by: .milliseconds(7))
            return .acknowledge
        }
        _ = try await done(Self.delivery("secret"))
        let failing = logging.around { _ in throw Oops() }
        await #expect(throws: Oops.self) { _ = try await failing(Self.delivery("m2", attempt: 3)) }
        let entries = handler.entries
        #expect(
            entries.map { "\($0.message)" } == [
                "The handler begins", "The handler returned", "The handler begins", "The handler failed",
            ]
        )
        #expect(entries.allSatisfy { $0.level == .debug })
        #expect(entries[1].metadata["milliseconds"].map { "\($0)" } == "7")
        #expect(entries[1].metadata["disposition"].map { "\($0)" } == "acknowledge")
        #expect(entries[3].metadata["attempt"].map { "\($0)" } == "3")
        #expect(entries[3].metadata["error"].map { "\($0)" } == "oops")
    }

    // MARK: Time

    @Test func timeLimitCancelsAndFails() async throws {
        let limit = Middleware.timeLimit(.seconds(10), clock: self.clock)
        let slow = limit.around { _ in
            try await hangUntilCancelled()
            return .acknowledge
        }
        async let outcome = slow(Self.delivery("1"))
        await self.clock.sleeperCount(reaches: 1)
        self.clock.advance(by: .seconds(10))
        do {
            _ = try await outcome
            Issue.record("it ended in time")
        } catch {
            #expect("\(error)" == "timed out after 10s")
        }
        let quick = limit.around { _ in .acknowledge }
        #expect(try await quick(Self.delivery("2")) == .acknowledge)
    }

    // MARK: Rate

    @Test func bucketGivesBurstAndThenTheRate() {
        var bucket = TokenBucket(count: 10, period: .seconds(1), burst: 3)
        let first = (0..<6).map { _ in bucket.reserve(now: .seconds(5)) }
        #expect(
            first == [0, 0, 0, 100, 200, 300].map { .seconds(5) + .milliseconds($0) }
        )
        // A long pause earns no more than the burst.
        let later = (0..<5).map { _ in bucket.reserve(now: .seconds(60)) }
        #expect(later == [0, 0, 0, 100, 200].map { .seconds(60) + .milliseconds($0) })
    }

    @Test func rateLimitLetsMessagesWait() async throws {
        let limit = Middleware.rateLimit(2, per: .seconds(1), clock: self.clock)
        let ran = Recorder<String>()
        let handler = limit.around { delivery in
            ran.record(delivery.text)
            return .acknowledge
        }
        _ = try await handler(Self.delivery("1"))
        _ = try await handler(Self.delivery("2"))
        async let third = handler(Self.delivery("3"))
        await self.clock.sleeperCount(reaches: 1)
        #expect(ran.values == ["1", "2"])
        self.clock.advance(by: .milliseconds(500))
        #expect(try await third == .acknowledge)
        #expect(ran.values == ["1", "2", "3"])
    }

    // MARK: Keys

    @Test func gateAdmitsInOrderAndForgetsKeys() {
        var gate = KeyedGate<String>(limit: 2)
        let tickets = (0..<5).map { _ in gate.makeTicket() }
        #expect(gate.enter("a", tickets[0], waiter: "0") == true)
        #expect(gate.enter("a", tickets[1], waiter: "1") == true)
        #expect(gate.enter("a", tickets[2], waiter: "2") == false)
        #expect(gate.enter("a", tickets[3], waiter: "3") == false)
        #expect(gate.enter("b", tickets[4], waiter: "4") == true)
        #expect(gate.cancel("a", tickets[2]) == "2")
        #expect(gate.cancel("a", tickets[2]) == nil)
        #expect(gate.leave("a") == "3")
        #expect(gate.leave("a") == nil)
        #expect(gate.leave("a") == nil)
        #expect(gate.leave("b") == nil)
        #expect(gate.keyCount == 0)
    }

    @Test func perKeyNeverRunsMoreOfOneKey() async throws {
        let running = Locked<[String: Int]>([:])
        let most = Locked(0)
        let collector = FaultyCollector(try .make(clock: self.clock))
        for number in 0..<60 { try await collector.base.publish("\(number % 3)") }
        let worker = Worker(
            acknowledging: collector,
            options: WorkerOptions(concurrency: 12),
            clock: self.clock,
            middleware: [.perKey(limit: 2) { $0.text }]
        ) { delivery in
            let now = running.withLock { running in
                running[delivery.text, default: 0] += 1
                return running[delivery.text, default: 0]
            }
            most.withLock { $0 = max($0, now) }
            for _ in 0..<5 { await Task.yield() }
            running.withLock { $0[delivery.text, default: 0] -= 1 }
        }
        try await worker.whileRunning { try await collector.base.drained() }
        #expect(worker.counters.acknowledged == 60)
        #expect(most.withLock { $0 } == 2)
    }

    @Test func perKeyLetsCancelledGo() async throws {
        let limit = Middleware.perKey(limit: 1) { $0.text }
        let gate = Gate()
        let began = Recorder<Void>()
        let handler = limit.around { _ in
            began.record(())
            await gate.pass()
            return .acknowledge
        }
        async let first = handler(Self.delivery("same"))
        await began.count(reaches: 1)
        let second = Task { try await handler(Self.delivery("same")) }
        second.cancel()
        await #expect(throws: CancellationError.self) { _ = try await second.value }
        gate.open()
        #expect(try await first == .acknowledge)
        #expect(try await handler(Self.delivery("same")) == .acknowledge)
    }

    // MARK: Twins

    @Test func recentKeysAreBoundedInTimeAndNumber() {
        var keys = RecentKeys(window: .seconds(10), capacity: 3)
        for number in 0..<4 { keys.insert("\(number)", now: .seconds(number)) }
        #expect(keys.count == 3)
        #expect(keys.contains("0", now: .seconds(4)) == false)
        #expect(keys.contains("1", now: .seconds(10)) == true)
        #expect(keys.contains("1", now: .seconds(11)) == false)
        keys.insert("3", now: .seconds(12))
        #expect(keys.contains("3", now: .seconds(21)) == true, "it was seen again")
        for number in 0..<10_000 { keys.insert("x\(number)", now: .seconds(30)) }
        #expect(keys.count == 3)
    }

    @Test func twinOfDoneMessageIsNotRun() async throws {
        let ran = Recorder<String>()
        let handler = Middleware.deduplicate(window: .seconds(60), clock: self.clock) { $0.headers["key"] }
            .around { delivery in
                ran.record(delivery.text)
                if delivery.text == "bad" { throw Oops() }
                return .acknowledge
            }
        let key: Headers = ["key": "k"]
        await #expect(throws: Oops.self) { _ = try await handler(Self.delivery("bad", headers: key)) }
        _ = try await handler(Self.delivery("one", headers: key))
        #expect(try await handler(Self.delivery("two", headers: key)) == .acknowledge)
        _ = try await handler(Self.delivery("no key"))
        _ = try await handler(Self.delivery("no key"))
        self.clock.advance(by: .seconds(60))
        _ = try await handler(Self.delivery("late", headers: key))
        #expect(ran.values == ["bad", "one", "no key", "no key", "late"])
    }

    @Test func twinOfRunningMessageWaits() async throws {
        let gate = Gate()
        let ran = Recorder<String>()
        let handler = Middleware.deduplicate(window: .seconds(60), clock: self.clock) { _ in "k" }
            .around { delivery in
                ran.record(delivery.text)
                await gate.pass()
                return .acknowledge
            }
        async let one = handler(Self.delivery("one"))
        await ran.count(reaches: 1)
        async let two = handler(Self.delivery("two"))
        gate.open()
        #expect(try await [one, two] == [.acknowledge, .acknowledge])
        #expect(ran.values == ["one"])
    }
}
