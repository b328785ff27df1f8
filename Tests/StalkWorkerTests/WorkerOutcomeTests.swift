import InMemoryLogging
import Logging
import StalkCore
import StalkTesting
import StalkWorker
import Testing

/// What becomes of a message, from the handler to the queue.
@Suite(.timeLimit(.minutes(10))) struct WorkerOutcomeTests {
    let clock = ManualClock()
    let collector: InMemoryCollector

    init() throws {
        self.collector = try .make(clock: self.clock)
    }

    func worker(
        policy: RetryPolicy = .standard,
        logger: Logger? = nil,
        handler: @escaping @Sendable (Delivery) async throws -> Disposition
    ) -> Worker {
        Worker(
            collector: self.collector,
            options: WorkerOptions(retryPolicy: policy),
            clock: self.clock,
            logger: logger,
            handler: handler
        )
    }

    @Test func acknowledgedMessagesLeave() async throws {
        try await self.collector.publish("one", "two", "three")
        let seen = Recorder<String>()
        let worker = self.worker { delivery in
            seen.record(delivery.text)
            return .acknowledge
        }
        try await worker.whileRunning { try await self.collector.drained() }
        #expect(seen.values == ["one", "two", "three"])
        #expect(worker.counters.received == 3)
        #expect(worker.counters.acknowledged == 3)
        #expect(worker.counters.inFlight == 0)
        #expect(self.collector.counts == .init())
    }

    @Test func returnedDispositionsAreApplied() async throws {
        let follower = OutgoingMessage(Message("follower"), to: self.collector.queue)
        try await self.collector.publish("again", "bad", "chain")
        let seen = Recorder<String>()
        let worker = self.worker { delivery in
            seen.record("\(delivery.text) \(delivery.attempt)")
            return switch delivery.text {
            case "again" where delivery.attempt == 1: .retry(after: .seconds(60), reason: "not yet")
            case "bad": .deadLetter(reason: "can't be read")
            case "chain": .acknowledgeAndPublish([follower])
            default: .acknowledge
            }
        }
        try await worker.whileRunning {
            await seen.count(reaches: 4)
            // The take that waits for the retry, and no handler: the retry is stored.
            await self.clock.sleeperCount(reaches: 1)
            #expect(seen.values == ["again 1", "bad 1", "chain 1", "follower 1"])
            self.clock.advance(by: .seconds(60))
            try await self.collector.drained()
        }
        #expect(seen.values.last == "again 2")
        #expect(self.collector.deadLetters.map(\.reason) == ["can't be read"])
        #expect(worker.counters.retried == 1)
        #expect(worker.counters.deadLettered == 1)
        #expect(worker.counters.acknowledged == 3)
    }

    @Test func releasedMessageComesAgainUncounted() async throws {
        try await self.collector.publish("unwanted")
        let attempts = Recorder<Int>()
        let worker = self.worker { delivery in
            attempts.record(delivery.attempt)
            return attempts.values.count < 3 ? .release : .acknowledge
        }
        try await worker.whileRunning { try await self.collector.drained() }
        #expect(attempts.values == [1, 1, 1])
        #expect(worker.counters.released == 2)
    }

    @Test func failingMessageIsRetriedUntilAttemptsAreUsedUp() async throws {
        try await self.collector.publish("hopeless")
        let attempts = Recorder<Int>()
        let worker = self.worker(policy: try .every(.zero, max: 3)) { delivery in
            attempts.record(delivery.attempt)
            throw Oops("attempt \(delivery.attempt)")
        }
        try await worker.whileRunning { try await self.collector.drained() }
        #expect(attempts.values == [1, 2, 3])
        let dead = try #require(self.collector.deadLetters.first)
        #expect(dead.reason == "attempt 3")
        #expect(dead.history == ["attempt 1", "attempt 2", "attempt 3"])
        #expect(worker.counters.retried == 2)
        #expect(worker.counters.deadLettered == 1)
    }

    @Test func retryWaitsForPolicy() async throws {
        try await self.collector.publish("flaky")
        let attempts = Recorder<Int>()
        let worker = self.worker(policy: try .every(.seconds(10))) { delivery in
            attempts.record(delivery.attempt)
            if delivery.attempt == 1 { throw Oops() }
            return .acknowledge
        }
        try await worker.whileRunning {
            await attempts.count(reaches: 1)
            while self.collector.counts.delayed == 0 { await Task.yield() }
            self.clock.advance(by: .milliseconds(9999))
            #expect(self.collector.counts == .init(delayed: 1))
            self.clock.advance(by: .milliseconds(1))
            try await self.collector.drained()
        }
        #expect(attempts.values == [1, 2])
    }

    @Test func specialErrorsDecide() async throws {
        try await self.collector.publish("poison", "limited")
        let seen = Recorder<String>()
        let worker = self.worker(policy: try .every(.seconds(3600))) { delivery in
            seen.record(delivery.text)
            if delivery.text == "poison" { throw DeadLetter("no such customer") }
            if delivery.attempt == 1 { throw RetryLater(after: .zero, reason: "rate limit") }
            return .acknowledge
        }
        try await worker.whileRunning { try await self.collector.drained() }
        #expect(seen.values == ["poison", "limited", "limited"])
        #expect(self.collector.deadLetters.map(\.reason) == ["no such customer"])
    }

    @Test func messageBringsItsOwnPolicy() async throws {
        var message = Message("twice")
        message.retryPolicy = try .every(.zero, max: 2)
        try await self.collector.publish(message)
        let attempts = Recorder<Int>()
        let worker = self.worker(policy: try .every(.zero, max: 9)) { delivery in
            attempts.record(delivery.attempt)
            throw Oops()
        }
        try await worker.whileRunning { try await self.collector.drained() }
        #expect(attempts.values == [1, 2])
    }

    @Test func unreadablePolicyLeavesWorkersOne() async throws {
        try await self.collector.publish(Message("odd", headers: [RetryPolicy.headerName: "now and then"]))
        let attempts = Recorder<Int>()
        let log = InMemoryLogHandler()
        let logger = Logger(label: "test") { _ in log }
        let worker = self.worker(policy: try .every(.zero, max: 3), logger: logger) { delivery in
            attempts.record(delivery.attempt)
            throw Oops()
        }
        try await worker.whileRunning { try await self.collector.drained() }
        #expect(attempts.values == [1, 2, 3])
        let entry = try #require(log.entries.first)
        #expect(entry.message == "The message's retry policy can't be read; the worker's holds")
        #expect("\(entry.metadata["error"] ?? "")".contains("now and then"))
        #expect(entry.metadata["queue"] == "jobs")
    }

    @Test func messageThatKilledItsWorkersIsNotRunAgain() async throws {
        try await self.collector.publish("killer")
        try await self.collector.wake()
        for _ in 1...3 {
            _ = try await self.collector.take(TakeRequest(lease: .seconds(1)))
            self.clock.advance(by: .seconds(1))
        }
        let seen = Recorder<String>()
        let worker = self.worker(policy: try .every(.zero, max: 3)) { delivery in
            seen.record(delivery.text)
            return .acknowledge
        }
        try await worker.whileRunning { try await self.collector.drained() }
        #expect(seen.values.isEmpty)
        let dead = try #require(self.collector.deadLetters.first)
        #expect(dead.attempts == 4)
        #expect(dead.reason.hasPrefix("attempt 4 of at most 3"))
    }

    @Test func longReasonIsCut() async throws {
        try await self.collector.publish("wordy")
        let worker = self.worker { _ in throw DeadLetter(String(repeating: "x", count: 5000)) }
        try await worker.whileRunning { try await self.collector.drained() }
        #expect(self.collector.deadLetters.first?.reason.utf8.count == 1024)
    }

    @Test func handlerWithoutResultAcknowledges() async throws {
        try await self.collector.publish("fine", "bad")
        let worker = Worker(
            acknowledging: self.collector,
            options: WorkerOptions(retryPolicy: try .every(.zero, max: 1)),
            clock: self.clock
        ) { delivery in
            if delivery.text == "bad" { throw Oops() }
        }
        try await worker.whileRunning { try await self.collector.drained() }
        #expect(worker.counters.acknowledged == 1)
        #expect(self.collector.deadLetters.map(\.reason) == ["oops"])
    }

    @Test func threeAnswersDecide() async throws {
        try await self.collector.publish("fine", "fatal", "fatal error", "error", "retry", "retry without error")
        let worker = Worker(
            bodiesOf: self.collector,
            options: WorkerOptions(retryPolicy: try .every(.zero, max: 2)),
            clock: self.clock,
            handler: { body in
                switch String(decoding: body, as: UTF8.self) {
                case "fatal": Worker.Outcome(fatal: true)
                case "fatal error": Worker.Outcome(error: Oops("worst"), retry: true, fatal: true)
                case "error": Worker.Outcome(error: Oops("plain"))
                case "retry": Worker.Outcome(error: Oops("again"), retry: true)
                case "retry without error": Worker.Outcome(retry: true)
                default: Worker.Outcome()
                }
            }
        )
        try await worker.whileRunning { try await self.collector.drained() }
        let reasons = Dictionary(
            uniqueKeysWithValues: self.collector.deadLetters.map {
                (String(decoding: $0.body, as: UTF8.self), $0.history)
            }
        )
        #expect(
            reasons == [
                "fatal": ["the handler called it fatal"], "fatal error": ["worst"], "error": ["plain"],
                "retry": ["again", "again"],
            ]
        )
        #expect(worker.counters.acknowledged == 2)
    }

    @Test func logSaysNoBodyAndNothingAboveInfo() async throws {
        try await self.collector.publish("secret")
        let log = InMemoryLogHandler()
        var logger = Logger(label: "test") { _ in log }
        logger.logLevel = .trace
        let worker = self.worker(policy: try .every(.zero, max: 2), logger: logger) { _ in throw Oops() }
        try await worker.whileRunning { try await self.collector.drained() }
        #expect(
            log.entries.map { "\($0.level): \($0.message)" } == [
                "debug: The message failed and comes again", "info: The message failed for good",
            ]
        )
        #expect(!log.entries.contains { "\($0.metadata)".contains("secret") })
    }
}
