import StalkCore
import StalkTesting
import StalkWorker
import Testing

@testable import StalkCLI

@Suite("Worker run", .timeLimit(.minutes(1)))
struct WorkerRunTests {
    @Test("The command's exit code decides over each message, until the queue is drained")
    func drained() async throws {
        let collector = InMemoryCollector(queue: try QueueName("q"))
        _ = try await collector.publish(["0", "65", "0", "1"].map { Message($0) })
        let script = "read -r code; echo \"exit with $code\" >&2; exit $code"
        let run = WorkerRun(
            queue: collector,
            policy: try .fixed(.milliseconds(1), maxAttempts: 3),
            jobs: 2,
            command: try ShellCommand(["bash", "-c", script], timeout: nil),
            drained: { try await collector.drained() }
        )
        let counters = try await run()
        #expect(counters.received == 6 && counters.acknowledged == 2)
        #expect(counters.retried == 2 && counters.deadLettered == 2)
        let dead = collector.deadLetters.sorted { $0.attempts < $1.attempts }
        #expect(dead.map(\.attempts) == [1, 3])
        #expect(dead.map(\.reason) == ["exit with 65", "exit with 1"])
    }

    @Test("The counts, for people and for scripts")
    func counts() {
        var counters = WorkerCounters()
        (counters.received, counters.acknowledged, counters.retried, counters.deadLettered) = (6, 1, 2, 3)
        #expect(counters.text == "1 acknowledged, 2 retried, 3 dead-lettered")
        #expect(
            String(decoding: counters.json.line, as: UTF8.self)
                == #"{"received":6,"acknowledged":1,"retried":2,"deadLettered":3,"released":0,"lostLeases":0}"# + "\n"
        )
        counters.lostLeases = 1
        #expect(counters.text.hasSuffix(", 1 lost its lease"))
    }
}
