import InMemoryLogging
import Logging
import ServiceLifecycle
import StalkCore
import StalkTesting
import StalkWorker
import Testing

/// How a worker ends, and how it lives through a backend's absence.
@Suite(.timeLimit(.minutes(10))) struct WorkerEndTests {
    let clock = ManualClock()
    let collector: FaultyCollector

    init() throws {
        self.collector = FaultyCollector(try .make(clock: self.clock))
    }

    func worker(
        _ options: WorkerOptions = WorkerOptions(),
        logger: Logger? = nil,
        until: (@Sendable () async throws -> Void)? = nil,
        handler: @escaping @Sendable (Delivery) async throws -> Disposition
    ) -> Worker {
        Worker(
            collector: self.collector,
            options: options,
            clock: self.clock,
            logger: logger,
            until: until,
            handler: handler
        )
    }

    @Test func gracefulShutdownLetsRunningFinish() async throws {
        try await self.collector.base.publish("running", "waiting")
        let started = Recorder<String>()
        let gate = Gate()
        let worker = self.worker { delivery in
            started.record(delivery.text)
            await gate.pass()
            try Task.checkCancellation()
            return .acknowledge
        }
        async let opening: Void = {
            await started.count(reaches: 1)
            for _ in 0..<100 { await Task.yield() }
            gate.open()
        }()
        try await worker.whileRunning { await started.count(reaches: 1) }
        await opening
        #expect(started.values == ["running"])
        #expect(worker.counters.acknowledged == 1)
        #expect(self.collector.base.counts == .init(ready: 1))
    }

    @Test func gracefulShutdownEndsWaitingTake() async throws {
        let worker = self.worker { _ in .acknowledge }
        // The manual clock stands still: only a cancelled take can return.
        try await worker.whileRunning { await self.clock.sleeperCount(reaches: 1) }
        try await self.collector.base.publish("later")
        #expect(self.collector.base.counts == .init(ready: 1))
    }

    @Test func worksAsServiceOfGroup() async throws {
        try await self.collector.base.publish("work")
        let worker = self.worker { _ in .acknowledge }
        let group = ServiceGroup(
            configuration: .init(services: [.init(service: worker)], logger: Logger(label: "test"))
        )
        async let run: Void = group.run()
        try await self.collector.base.drained()
        await group.triggerGracefulShutdown()
        try await run
        #expect(worker.counters.acknowledged == 1)
    }

    @Test func cancellationReleasesUncounted() async throws {
        try await self.collector.base.publish("one", "two", "three")
        let started = Recorder<String>()
        let worker = self.worker(WorkerOptions(concurrency: 2)) { delivery in
            started.record(delivery.text)
            try await hangUntilCancelled()
            return .acknowledge
        }
        await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await worker.run() }
            await started.count(reaches: 2)
            group.cancelAll()
            await #expect(throws: CancellationError.self) { try await group.next() }
        }
        #expect(worker.counters.released == 2)
        #expect(self.collector.base.counts == .init(ready: 3))
        let deliveries = try await self.collector.base.take(TakeRequest(max: 3))
        #expect(deliveries.map(\.attempt) == [1, 1, 1])
        #expect(deliveries.map(\.text) == ["one", "two", "three"])
    }

    @Test func cancellationKeepsWhatIsDone() async throws {
        try await self.collector.base.publish("done")
        let started = Recorder<String>()
        let worker = self.worker { delivery in
            started.record(delivery.text)
            try? await hangUntilCancelled()
            return .acknowledge
        }
        await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await worker.run() }
            await started.count(reaches: 1)
            group.cancelAll()
            await #expect(throws: CancellationError.self) { try await group.next() }
        }
        #expect(worker.counters.acknowledged == 1)
        #expect(self.collector.base.counts == .init())
    }

    @Test func cancellationDoesNotWaitForStuckHandler() async throws {
        try await self.collector.base.publish("stuck")
        let started = Recorder<String>()
        let gate = Gate()
        let options = WorkerOptions(cancellationGrace: .seconds(5))
        let worker = self.worker(options) { delivery in
            started.record(delivery.text)
            await gate.pass()
            return .acknowledge
        }
        await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await worker.run() }
            await started.count(reaches: 1)
            await self.clock.sleeperCount(reaches: 1)
            group.cancelAll()
            // The heartbeat and the grace.
            await self.clock.sleeperCount(reaches: 2)
            self.clock.advance(by: .seconds(5))
            await #expect(throws: CancellationError.self) { try await group.next() }
        }
        #expect(worker.counters.released == 1)
        #expect(self.collector.base.counts == .init(ready: 1))
        gate.open()
    }

    @Test func runThatIsCancelledBeforeItBeginsTakesNothing() async throws {
        try await self.collector.base.publish("work")
        let worker = self.worker { _ in .acknowledge }
        await withThrowingTaskGroup(of: Void.self) { group in
            group.cancelAll()
            group.addTask { try await worker.run() }
            await #expect(throws: CancellationError.self) { try await group.next() }
        }
        #expect(worker.counters.received == 0)
    }

    @Test func untilEndsRun() async throws {
        try await self.collector.base.publish("one", "two")
        let collector = self.collector.base
        let worker = self.worker(until: { try await collector.drained() }, handler: { _ in .acknowledge })
        try await worker.run()
        #expect(worker.counters.acknowledged == 2)
        // And once more: a worker that has ended can run again.
        try await self.collector.base.publish("three")
        try await worker.run()
        #expect(worker.counters.acknowledged == 3)
    }

    @Test func untilThatFailsEndsRunWithItsError() async throws {
        let worker = self.worker(until: { throw Oops("no idea") }, handler: { _ in .acknowledge })
        let error = await #expect(throws: Oops.self) { try await worker.run() }
        #expect(error?.description == "no idea")
    }

    @Test func secondRunIsRefused() async throws {
        let worker = self.worker { _ in .acknowledge }
        try await worker.whileRunning {
            await self.clock.sleeperCount(reaches: 1)
            let error = await #expect(throws: StalkError.self) { try await worker.run() }
            #expect(error?.code == .invalidArgument)
        }
    }

    // MARK: The backend's absence

    @Test func absentBackendIsTriedAgainAndToldOnce() async throws {
        let log = InMemoryLogHandler()
        let away = StalkError(.unavailable, "no route to host")
        self.collector.fail(.control, .take, with: away)
        try await self.collector.base.publish("patient")
        let options = WorkerOptions(backoff: WorkerBackoff(from: .seconds(1), cap: .seconds(8)))
        let worker = self.worker(options, logger: Logger(label: "test") { _ in log }) { _ in .acknowledge }
        try await worker.whileRunning {
            for tries in 1...6 {
                await self.collector.failures.count(reaches: tries)
                await self.clock.sleeperCount(reaches: 1)
                if tries == 3 { self.collector.fail(.control, with: nil) }
                if tries == 6 { self.collector.fail(.take, with: nil) }
                self.clock.advance(by: .seconds(8))
            }
            try await self.collector.base.drained()
        }
        #expect(worker.counters.acknowledged == 1)
        let messages = log.entries.map { "\($0.message)" }
        let (gone, back) = (
            "The backend can't be used now; the worker keeps trying", "The backend can be used again"
        )
        // Away for waking, back when woken; away for taking, back when taken.
        #expect(messages == [gone, back, gone, back])
        #expect("\(log.entries[0].metadata)".contains("no route to host"))
    }

    @Test func outcomeIsStoredWhenBackendReturns() async throws {
        try await self.collector.base.publish("work")
        self.collector.fail(.finish, with: StalkError(.unavailable, "away"))
        let attempts = Recorder<Int>()
        let options = WorkerOptions(lease: .seconds(30), backoff: WorkerBackoff(from: .seconds(1), cap: .seconds(5)))
        let worker = self.worker(options) { delivery in
            attempts.record(delivery.attempt)
            return .acknowledge
        }
        try await worker.whileRunning {
            for tries in 1...20 {
                await self.collector.failures.count(reaches: tries)
                // The heartbeat goes on and keeps the lease; beside it the backoff waits.
                await self.clock.sleeperCount(reaches: 2)
                if tries == 20 { self.collector.fail(.finish, with: nil) }
                self.clock.advance(by: .seconds(5))
            }
            try await self.collector.base.drained()
        }
        #expect(attempts.values == [1], "although the backend was away for more than three leases")
        #expect(worker.counters.acknowledged == 1)
    }

    @Test func outcomeIsLostWithItsLeaseAndMessageComesAgain() async throws {
        try await self.collector.base.publish("work")
        self.collector.fail(.finish, .extend, with: StalkError(.unavailable, "away"))
        let log = InMemoryLogHandler()
        let attempts = Recorder<Int>()
        let options = WorkerOptions(lease: .seconds(30), backoff: WorkerBackoff(from: .seconds(40), cap: .seconds(40)))
        let worker = self.worker(options, logger: Logger(label: "test") { _ in log }) { delivery in
            attempts.record(delivery.attempt)
            return .acknowledge
        }
        try await worker.whileRunning {
            await self.collector.failures.count(reaches: 1)
            await self.clock.sleeperCount(reaches: 2)
            self.clock.advance(by: .seconds(40))
            while worker.counters.inFlight > 0 && attempts.values.count < 2 { await Task.yield() }
            self.collector.fail(.finish, .extend, with: nil)
            await attempts.count(reaches: 2)
            while self.collector.base.counts != .init() {
                self.clock.advance(by: .seconds(1))
                await Task.yield()
            }
        }
        #expect(attempts.values.prefix(2) == [1, 2])
        #expect(log.entries.contains { $0.message == "The outcome could not be stored; the message comes again" })
    }

    @Test func lastingErrorEndsRun() async throws {
        self.collector.fail(.take, with: StalkError(.closed, "the store was closed"))
        let worker = self.worker { _ in .acknowledge }
        let error = await #expect(throws: StalkError.self) { try await worker.run() }
        #expect(error?.code == .closed)
    }

    @Test func lastingErrorLetsRunningFinish() async throws {
        try await self.collector.base.publish("running")
        let gate = Gate()
        let started = Recorder<String>()
        let worker = self.worker(WorkerOptions(concurrency: 2)) { delivery in
            started.record(delivery.text)
            await gate.pass()
            return .acknowledge
        }
        await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await worker.run() }
            await started.count(reaches: 1)
            // The heartbeat and the take that waits: it returns empty, and the next one fails.
            await self.clock.sleeperCount(reaches: 2)
            self.collector.fail(.take, with: StalkError(.permissionDenied, "no"))
            self.clock.advance(by: .seconds(20))
            await self.collector.failures.count(reaches: 1)
            gate.open()
            let error = await #expect(throws: StalkError.self) { try await group.next() }
            #expect(error?.code == .permissionDenied)
        }
        #expect(worker.counters.acknowledged == 1)
    }
}
