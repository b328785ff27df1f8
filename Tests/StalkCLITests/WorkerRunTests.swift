import StalkCore
import StalkWorker
import Testing

@testable import StalkCLI

@Suite("Worker run", .timeLimit(.minutes(10)))
struct WorkerRunTests {
    @Test("The command's exit code decides over each message, until the queue is drained")
    func outcomes() async throws {
        let collector = try NotingCollector(ready: ["0", "65", "1", "0"].map { Array($0.utf8) })
        let script = "read -r code; echo \"exit with $code\" >&2; exit $code"
        let run = WorkerRun(
            queue: collector,
            policy: try .fixed(.seconds(3), maxAttempts: 2),
            jobs: 2,
            command: try ShellCommand(["bash", "-c", script], timeout: nil),
            drained: { for await _ in collector.drained {} }
        )
        let counters = try await run()
        #expect(counters.received == 4 && counters.acknowledged == 2)
        #expect(counters.retried == 1 && counters.deadLettered == 1)
        let outcomes = collector.finished.sorted { $0.receipt.description < $1.receipt.description }.map(\.disposition)
        #expect(
            outcomes == [
                .acknowledge, .deadLetter(reason: "exit with 65"), .retry(after: .seconds(3), reason: "exit with 1"),
                .acknowledge,
            ]
        )
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
