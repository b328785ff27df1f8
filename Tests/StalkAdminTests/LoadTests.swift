import StalkAdmin
import StalkCore
import StalkLocal
import StalkTesting
import StalkWorker
import Testing

/// Control under load: whatever is told when, every message is worked on once.
@Suite(.timeLimit(.minutes(10))) struct LoadTests {
    /// Counts runs by body, and how many run at a time.
    private final class Tally: Sendable {
        private let state = Locked((runs: [String: Int](), now: 0, most: 0))

        var runs: [String: Int] { self.state.withLock { $0.runs } }
        /// The most that ran at a time since this was asked the last time.
        func takeMost() -> Int {
            self.state.withLock { state in
                defer { state.most = state.now }
                return state.most
            }
        }

        func run(_ body: String) async {
            self.state.withLock { state in
                state.runs[body, default: 0] += 1
                state.now += 1
                state.most = max(state.most, state.now)
            }
            for _ in 0..<20 { await Task.yield() }
            self.state.withLock { $0.now -= 1 }
        }
    }

    @Test func sleepWakeScaleUnderLoadLosesNothing() async throws {
        let tally = Tally()
        try await withPipeline(concurrency: 1, handler: { await tally.run("\($0.queue) \($0.text)") }) { pipeline in
            let count = 6000
            @Sendable func processed() -> Int { pipeline.workers.reduce(0) { $0 + $1.counters.acknowledged } }
            @Sendable func waitFor(_ more: Int) async throws {
                let target = min(processed() + more, 2 * count + 1)
                while processed() < target { try await Task.sleep(for: .milliseconds(2)) }
            }
            #expect(try await pipeline.post("/sleep").status == 200)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for collector in [pipeline.local, pipeline.memory] as [any Collector] {
                    group.addTask {
                        for start in stride(from: 0, to: count, by: 50) {
                            try await collector.publish((start..<start + 50).map { Message("\($0)") })
                        }
                    }
                }
                // Asleep: what was in flight ends, and nothing more begins while messages come in.
                while pipeline.workers.contains(where: { $0.counters.inFlight > 0 }) { await Task.yield() }
                let before = processed()
                while try await pipeline.store.stats().queues.first?.ready ?? 0 < 1000 { await Task.yield() }
                #expect(processed() == before, "a sleeper took messages")
                #expect(try await pipeline.post("/scale?to=1").status == 200)
                #expect(processed() == before, "scaling woke a sleeper")

                _ = tally.takeMost()
                #expect(try await pipeline.post("/wake").status == 200)
                try await waitFor(200)
                #expect(tally.takeMost() <= 2, "two collectors with one handler each")
                #expect(try await pipeline.post("/scale?to=8").status == 200)
                try await waitFor(2000)
                let most = tally.takeMost()
                #expect(most > 2 && most <= 16, "\(most) ran at a time")
                #expect(try await pipeline.post("/scale?to=2").status == 200)
                while pipeline.workers.contains(where: { $0.counters.inFlight > 2 }) { await Task.yield() }
                _ = tally.takeMost()
                try await waitFor(500)
                #expect(tally.takeMost() <= 4)
                #expect(try await pipeline.post("/sleep?collector=one").status == 200)
                try await waitFor(100)
                #expect(try await pipeline.post("/wake?collector=one").status == 200)
                try await group.waitForAll()
            }
            try await pipeline.local.drained()
            try await pipeline.memory.drained()
            while processed() < 2 * count + 1 { await Task.yield() }

            // To the message: each ran once, and each way of counting says the same.
            let runs = tally.runs
            #expect(runs.count == 2 * count + 1)
            #expect(runs.values.allSatisfy { $0 == 1 })
            for (worker, expected) in zip(pipeline.workers, [count + 1, count]) {
                let counters = worker.counters
                #expect(counters.acknowledged == expected)
                #expect(counters.received == counters.acknowledged + counters.released)
                #expect(counters.retried + counters.deadLettered + counters.lostLeases + counters.timedOut == 0)
                #expect(counters.inFlight == 0 && counters.durations.count == expected)
            }
            let queue = try #require(try await pipeline.store.stats().queues.first)
            #expect(queue.ready + queue.delayed + queue.leased + queue.dead == 0)
        }
    }
}
