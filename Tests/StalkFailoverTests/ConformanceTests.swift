import StalkCore
import StalkTesting
import StalkWheel
import Testing

@testable import StalkFailover
@testable import StalkLocal

/// A failover collector under the suite, with an in-memory remote; everything that was published is let arrive.
final class FailoverHarness: CollectorHarness {
    private let clock = ManualClock()
    private let capabilities: CollectorCapabilities
    private let options: FailoverOptions
    private let made = Locked<[InMemoryCollector]>([])

    init(_ mode: FailoverOptions.Mode, keepsDelays: Bool) {
        self.options = FailoverOptions(mode: mode)
        var capabilities = InMemoryBroker.capabilities
        capabilities.durableDelay = keepsDelays
        self.capabilities = capabilities
    }

    func makeCollector() async throws -> SettlingCollector {
        let rig = try Rig(capabilities: self.capabilities, clock: self.clock)
        let (collector, store) = try await rig.open(self.options)
        self.made.withLock { $0.append(rig.base) }
        return SettlingCollector(rig: rig, collector: collector, store: store)
    }

    func advance(by duration: Duration) async throws {
        self.clock.advance(by: duration)
    }

    func takeIsWaiting() async throws {
        while self.made.withLock({ $0.allSatisfy { $0.waitingCalls == 0 } }) { await Task.yield() }
    }

    func deadLetters(of collector: SettlingCollector) async throws -> [ConformanceDeadLetter]? {
        collector.rig.base.deadLetters.map { ConformanceDeadLetter(body: $0.body, reason: $0.reason) }
    }

    func finishUp(_ collector: SettlingCollector) async throws {
        await collector.collector.close()
        try await collector.store.close()
    }
}

/// A failover collector whose calls return when nothing is on its way any more.
struct SettlingCollector: Collector {
    let rig: Rig
    let collector: FailoverCollector
    let store: LocalStore

    var queue: QueueName { self.collector.queue }
    var capabilities: CollectorCapabilities { self.collector.capabilities }

    private func settle() async throws {
        let start = ContinuousClock.now
        while ContinuousClock.now - start < .seconds(20) {
            let now = self.store.core.now.milliseconds
            let isBehind = self.store.core.look { engine in
                let isDue = engine.wheel.nextDeadline ?? .max <= now || engine.nextUnfed ?? .max <= now
                return engine.wheel.now < now || engine.isFeeding || isDue
            }
            let stats = try await self.collector.stats()
            if !isBehind, stats.waiting == 0 { return }
            await Task.yield()
        }
        throw StalkError(.interrupted, "the collector did not settle")
    }

    func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>] {
        let results = try await self.collector.publish(messages, durability: durability)
        try await self.settle()
        return results
    }

    func take(_ request: TakeRequest) async throws -> [Delivery] {
        try await self.settle()
        return try await self.collector.take(request)
    }

    func finish(_ completions: [Completion], durability: Durability) async throws -> [Result<Void, StalkError>] {
        try await self.collector.finish(completions, durability: durability)
    }

    func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        try await self.collector.extend(receipts, lease: lease)
    }

    func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        try await self.collector.control(command)
    }
}

@Suite struct ConformanceTests {
    @Test(.timeLimit(.minutes(10)), arguments: CollectorCheck.allCases)
    func directFailoverKeeps(check: CollectorCheck) async throws {
        try await self.run(check, FailoverHarness(.direct, keepsDelays: true))
    }

    @Test(.timeLimit(.minutes(10)), arguments: CollectorCheck.allCases)
    func writeThroughFailoverKeeps(check: CollectorCheck) async throws {
        try await self.run(check, FailoverHarness(.writeThrough, keepsDelays: true))
    }

    /// In front of a remote whose delays don't last, they wait in the store, and order is as good as that allows.
    @Test(.timeLimit(.minutes(10)), arguments: CollectorCheck.allCases)
    func failoverWithDelaysOfItsOwnKeeps(check: CollectorCheck) async throws {
        let order: Set<CollectorCheck> = [
            .readyMessagesLeaveInOrder, .retriedMessageTakesPlaceByDueTime, .releasedMessageReturnsToFront,
        ]
        try await self.run(check, FailoverHarness(.direct, keepsDelays: false), notApplicable: order)
    }

    private func run(
        _ check: CollectorCheck,
        _ harness: FailoverHarness,
        notApplicable: Set<CollectorCheck> = []
    ) async throws {
        let outcome = try await CollectorConformance(harness).run(check)
        let needsOther: Set<CollectorCheck> = [
            .missingExtensionIsRefused, .publishingWithAcknowledgeIsOneStep, .staleReceiptPublishesNothing,
        ]
        #expect((outcome == .passed) != needsOther.union(notApplicable).contains(check), "\(outcome)")
    }
}
