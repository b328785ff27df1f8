import StalkCore
import StalkTesting
import Synchronization
import Testing

@testable import StalkSQS

/// Reaches a collector on the server in memory, under a manual clock.
final class FakeHarness: CollectorHarness {
    let clock = ManualClock()
    let server: FakeSQS
    private let names = Atomic64()
    private let collectors = Mutex<[SQSCollector]>([])

    init() {
        self.server = FakeSQS(clock: self.clock)
    }

    func makeCollector() async throws -> SQSCollector {
        let number = self.names.increment()
        self.server.createQueue("queue-\(number)")
        self.server.createQueue("errors-\(number)")
        var configuration = SQSConfiguration.test
        configuration.errorQueue = "errors-\(number)"
        let collector = try await self.server.open("queue-\(number)", configuration)
        self.collectors.withLock { $0.append(collector) }
        return collector
    }

    func advance(by duration: Duration) async throws {
        self.clock.advance(by: duration)
        // Whoever the clock woke has to run before what comes next is looked at.
        for _ in 0..<50 { await Task.yield() }
    }

    func takeIsWaiting() async throws {
        while !Task.isCancelled {
            for collector in self.collectors.withLock({ $0 }) where collector.waitingTakes > 0 {
                // One that may deliver waits at the server.
                let status = try await collector.status
                if status.isAsleep || status.maxInFlight == 0 || self.server.waitingPolls > 0 { return }
            }
            await Task.yield()
        }
    }

    func deadLetters(of collector: SQSCollector) async throws -> [ConformanceDeadLetter]? {
        let number = collector.queue.rawValue.split(separator: "-").last ?? ""
        return self.server.messages("errors-\(number)").map { message in
            ConformanceDeadLetter(
                body: Array(message.body.utf8),
                reason: message.attributes?[MessageCoding.reasonName]?["StringValue"]?.text ?? ""
            )
        }
    }

    func finishUp(_ collector: SQSCollector) async throws { await collector.close() }
}

@Suite struct ConformanceTests {
    private static let needLess: Set<CollectorCheck> = [
        .missingExtensionIsRefused, .publishingWithAcknowledgeIsOneStep, .staleReceiptPublishesNothing,
        .readyMessagesLeaveInOrder, .retriedMessageTakesPlaceByDueTime, .releasedMessageReturnsToFront,
    ]

    @Test(.timeLimit(.minutes(10)), arguments: CollectorCheck.allCases)
    func inMemoryServer(check: CollectorCheck) async throws {
        let outcome = try await CollectorConformance(FakeHarness()).run(check)
        #expect((outcome == .passed) != Self.needLess.contains(check), "\(outcome)")
    }
}
