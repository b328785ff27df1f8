import StalkCore
import StalkTesting
import StalkWorker
import Testing

/// How a worker takes, keeps leases and cancels, while it runs.
@Suite(.timeLimit(.minutes(10))) struct WorkerRunningTests {
    let clock = ManualClock()

    func collector(_ change: (inout CollectorCapabilities) -> Void = { _ in }) throws -> FaultyCollector {
        FaultyCollector(try .make(clock: self.clock, change))
    }

    @Test(arguments: [1, 3, 8])
    func concurrencyIsNeverExceeded(concurrency: Int) async throws {
        let collector = try self.collector()
        let count = 60
        for number in 0..<count { try await collector.base.publish("\(number)") }
        let running = Locked((now: 0, most: 0, mostHeld: 0))
        let worker = Worker(
            acknowledging: collector,
            options: WorkerOptions(concurrency: concurrency),
            clock: self.clock
        ) { _ in
            let held = try await collector.base.status.inFlight
            running.withLock { running in
                running.now += 1
                running.most = max(running.most, running.now)
                running.mostHeld = max(running.mostHeld, held)
            }
            for _ in 0..<5 { await Task.yield() }
            running.withLock { $0.now -= 1 }
        }
        try await worker.whileRunning { try await collector.base.drained() }
        #expect(worker.counters.acknowledged == count)
        running.withLock { running in
            #expect(running.most <= concurrency)
            #expect(running.mostHeld <= concurrency)
        }
    }

    @Test func allSlotsAreUsed() async throws {
        let collector = try self.collector()
        try await collector.base.publish("1", "2", "3", "4", "5")
        let started = Recorder<String>()
        let gate = Gate()
        let worker = Worker(acknowledging: collector, options: WorkerOptions(concurrency: 4), clock: self.clock) {
            delivery in
            started.record(delivery.text)
            await gate.pass()
        }
        try await worker.whileRunning {
            await started.count(reaches: 4)
            #expect(worker.counters.inFlight == 4)
            #expect(collector.base.counts == .init(ready: 1, leased: 4))
            gate.open()
            try await collector.base.drained()
        }
        #expect(worker.counters.received == 5)
    }

    @Test func scaleChangesConcurrencyLive() async throws {
        let collector = try self.collector()
        for number in 0..<8 { try await collector.base.publish("\(number)") }
        let started = Recorder<String>()
        let gates = Locked<[String: Gate]>([:])
        let gate: @Sendable (String) -> Gate = { text in
            gates.withLock { gates in
                let gate = gates[text] ?? Gate()
                gates[text] = gate
                return gate
            }
        }
        let worker = Worker(acknowledging: collector, options: WorkerOptions(concurrency: 1), clock: self.clock) {
            delivery in
            started.record(delivery.text)
            await gate(delivery.text).pass()
        }
        try await worker.whileRunning {
            await started.count(reaches: 1)
            try worker.scale(to: 3)
            await started.count(reaches: 3)
            #expect(worker.counters.inFlight == 3)
            try worker.scale(to: 1)
            for text in ["0", "1"] { gate(text).open() }
            while worker.counters.acknowledged < 2 { await Task.yield() }
            #expect(worker.counters.inFlight == 1)
            #expect(started.values.count == 3, "nothing new runs while one of one does")
            gate("2").open()
            await started.count(reaches: 4)
            try worker.scale(to: 0)
            gate("3").open()
            while worker.counters.acknowledged < 4 { await Task.yield() }
            #expect(collector.base.counts == .init(ready: 4))
            for number in 4..<8 { gate("\(number)").open() }
            try worker.scale(to: 2)
            try await collector.base.drained()
        }
        #expect(worker.counters.received == 8)
        #expect(throws: StalkError.self) { try worker.scale(to: -1) }
    }

    @Test func heartbeatsKeepLeaseOverManyPeriods() async throws {
        let collector = try self.collector()
        try await collector.base.publish("long")
        let attempts = Recorder<Int>()
        let gate = Gate()
        let options = WorkerOptions(concurrency: 1, lease: .seconds(30))
        let worker = Worker(acknowledging: collector, options: options, clock: self.clock) { delivery in
            attempts.record(delivery.attempt)
            await gate.pass()
        }
        try await worker.whileRunning {
            await attempts.count(reaches: 1)
            for beat in 1...30 {
                await self.clock.sleeperCount(reaches: 1)
                self.clock.advance(by: .seconds(10))
                await collector.extends.count(reaches: beat)
                // A beat is left out while the one before has no answer.
                while worker.status.sinceLastSuccess != .zero { await Task.yield() }
            }
            #expect(collector.base.counts == .init(leased: 1))
            gate.open()
            try await collector.base.drained()
        }
        #expect(attempts.values == [1])
        #expect(worker.counters.acknowledged == 1)
        #expect(worker.counters.lostLeases == 0)
    }

    @Test func oneHeartbeatServesAllHandlers() async throws {
        let collector = try self.collector()
        try await collector.base.publish("1", "2", "3")
        let started = Recorder<Receipt>()
        let gate = Gate()
        let worker = Worker(acknowledging: collector, options: WorkerOptions(concurrency: 3), clock: self.clock) {
            delivery in
            started.record(delivery.receipt)
            await gate.pass()
        }
        try await worker.whileRunning {
            await started.count(reaches: 3)
            await self.clock.sleeperCount(reaches: 1)
            self.clock.advance(by: .seconds(10))
            await collector.extends.count(reaches: 1)
            gate.open()
        }
        #expect(Set(collector.extends.values[0]) == Set(started.values))
        #expect(collector.extends.values.count == 1)
    }

    @Test func backendWithoutExtensionIsNotAsked() async throws {
        let collector = try self.collector { $0.leaseExtension = false }
        try await collector.base.publish("work")
        let started = Recorder<Void>()
        let gate = Gate()
        // The timeout is there to have a sleeper to wait for.
        let options = WorkerOptions(lease: .seconds(30), timeout: .seconds(1000))
        let worker = Worker(acknowledging: collector, options: options, clock: self.clock) { _ in
            started.record(())
            await gate.pass()
        }
        try await worker.whileRunning {
            await started.count(reaches: 1)
            await self.clock.sleeperCount(reaches: 1)
            self.clock.advance(by: .seconds(20))
            gate.open()
            try await collector.base.drained()
        }
        #expect(collector.extends.values.isEmpty)
        #expect(worker.counters.acknowledged == 1)
    }

    @Test func lostLeaseCancelsHandlerAndDropsItsResult() async throws {
        let collector = try self.collector()
        try await collector.base.publish("contended")
        let attempts = Recorder<Int>()
        let cancelled = Recorder<Int>()
        let options = WorkerOptions(lease: .seconds(30))
        let worker = Worker(collector: collector, options: options, clock: self.clock) { delivery in
            attempts.record(delivery.attempt)
            guard delivery.attempt == 1 else { return .acknowledge }
            try? await hangUntilCancelled()
            cancelled.record(delivery.attempt)
            return .deadLetter(reason: "must not be used")
        }
        try await worker.whileRunning {
            await attempts.count(reaches: 1)
            await self.clock.sleeperCount(reaches: 1)
            // More than the lease at once: the heartbeat comes too late.
            self.clock.advance(by: .seconds(31))
            await cancelled.count(reaches: 1)
            try await collector.base.drained()
        }
        #expect(attempts.values == [1, 2])
        #expect(worker.counters.lostLeases == 1)
        #expect(worker.counters.deadLettered == 0)
        #expect(collector.base.deadLetters.isEmpty)
    }

    @Test func timeoutCancelsAndRetries() async throws {
        let collector = try self.collector()
        try await collector.base.publish("slow")
        let attempts = Recorder<Int>()
        let options = WorkerOptions(lease: .seconds(300), retryPolicy: try .every(.zero, max: 2), timeout: .seconds(60))
        let worker = Worker(acknowledging: collector, options: options, clock: self.clock) { delivery in
            attempts.record(delivery.attempt)
            try await hangUntilCancelled()
        }
        try await worker.whileRunning {
            for attempt in 1...2 {
                await attempts.count(reaches: attempt)
                // The heartbeat, the timeout and, from the first cancellation on, the end of its grace.
                await self.clock.sleeperCount(reaches: attempt == 1 ? 2 : 3)
                self.clock.advance(by: .seconds(60))
            }
            try await collector.base.drained()
        }
        #expect(attempts.values == [1, 2])
        #expect(collector.base.deadLetters.first?.history == ["timed out after 1m", "timed out after 1m"])
        #expect(worker.counters.timedOut == 2)
    }

    @Test func handlerThatIgnoresCancellationHoldsOnlyItsSlot() async throws {
        let collector = try self.collector()
        try await collector.base.publish("stuck", "fine 1")
        let started = Recorder<String>()
        let gate = Gate()
        let options = WorkerOptions(
            concurrency: 2,
            lease: .seconds(300),
            retryPolicy: try .every(.zero, max: 1),
            timeout: .seconds(60),
            cancellationGrace: .seconds(5)
        )
        let worker = Worker(
            collector: collector,
            options: options,
            clock: self.clock,
            until: { try await collector.base.drained() },
            handler: { delivery in
                started.record(delivery.text)
                if delivery.text == "stuck" { await gate.pass() }
                return .acknowledge
            }
        )
        async let run: Void = worker.run()
        await started.count(reaches: 2)
        // The heartbeat, the timeout and the take that waits.
        await self.clock.sleeperCount(reaches: 3)
        self.clock.advance(by: .seconds(60))
        try await collector.base.publish("fine 2")
        await started.count(reaches: 3)
        // Now the grace, too.
        while worker.counters.timedOut < 1 { await Task.yield() }
        await self.clock.sleeperCount(reaches: 3)
        self.clock.advance(by: .seconds(5))
        // Returns although the handler still runs.
        try await run
        #expect(collector.base.deadLetters.map(\.reason) == ["timed out after 1m"])
        #expect(worker.counters.acknowledged == 2)
        #expect(worker.counters.inFlight == 1)
        gate.open()
        while worker.counters.inFlight > 0 { await Task.yield() }
        #expect(worker.counters.acknowledged == 2)
    }

    @Test func outcomesGatherWhileOneCallRuns() async throws {
        let collector = try self.collector()
        for number in 0..<8 { try await collector.base.publish("\(number)") }
        let gate = Gate()
        collector.holdNextFinish(at: gate)
        let ended = Recorder<Void>()
        let worker = Worker(acknowledging: collector, options: WorkerOptions(concurrency: 8), clock: self.clock) { _ in
            ended.record(())
        }
        try await worker.whileRunning {
            await ended.count(reaches: 8)
            await collector.finishes.count(reaches: 1)
            while worker.counters.received < 8 { await Task.yield() }
            for _ in 0..<100 { await Task.yield() }
            gate.open()
            try await collector.base.drained()
        }
        #expect(collector.finishes.values.count <= 3, "8 outcomes took \(collector.finishes.values.map(\.count))")
        #expect(worker.counters.acknowledged == 8)
    }

    @Test func wakesCollectorOnlyWhenToldTo() async throws {
        let collector = try self.collector()
        let worker = Worker(
            acknowledging: collector,
            options: WorkerOptions(wakesCollector: false),
            clock: self.clock
        ) { _ in }
        try await worker.whileRunning { await self.clock.sleeperCount(reaches: 1) }
        #expect(try await collector.base.status.isAsleep)
        try await Worker(acknowledging: collector, clock: self.clock) { _ in }
            .whileRunning { await self.clock.sleeperCount(reaches: 1) }
        #expect(try await !collector.base.status.isAsleep)
    }

    @Test(arguments: [
        WorkerOptions(concurrency: 0), WorkerOptions(lease: .zero), WorkerOptions(lease: .seconds(86_400)),
        WorkerOptions(timeout: .zero), WorkerOptions(cancellationGrace: .seconds(-1)),
        WorkerOptions(pollWait: .seconds(-1)), WorkerOptions(maxReplacedHandlers: -1),
        WorkerOptions(stopGrace: .seconds(-1)), WorkerOptions(takeLimit: 0),
        WorkerOptions(backoff: WorkerBackoff(from: .zero)), WorkerOptions(backoff: WorkerBackoff(cap: .zero)),
    ])
    func senselessOptionsAreRefused(options: WorkerOptions) async throws {
        let worker = Worker(acknowledging: try self.collector(), options: options, clock: self.clock) { _ in }
        let error = await #expect(throws: StalkError.self) { try await worker.run() }
        #expect(error?.code == .invalidArgument)
    }
}
