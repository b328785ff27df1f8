import StalkCore
import StalkTesting

/// The in-memory collector under the suite, honest or with a planted bug.
struct InMemoryHarness: CollectorHarness {
    let clock = ManualClock()
    var capabilities = InMemoryBroker.capabilities
    var timing = ConformanceTiming.manual
    var bug: PlantedBug?

    func makeCollector() async throws -> AlteredCollector {
        let base = InMemoryCollector(
            queue: try QueueName("conformance"),
            capabilities: self.capabilities,
            clock: self.clock
        )
        var collector = AlteredCollector(base: base, clock: self.clock)
        await self.bug?.plant(&collector)
        return collector
    }

    func advance(by duration: Duration) async throws { self.clock.advance(by: duration) }

    func takeIsWaiting() async throws { await self.clock.sleeperCount(reaches: 1) }

    func deadLetters(of collector: AlteredCollector) async throws -> [ConformanceDeadLetter]? {
        collector.base.deadLetters.map {
            ConformanceDeadLetter(body: $0.body, reason: collector.alterReason($0.reason))
        }
    }
}

/// A collector whose every call can be replaced.
struct AlteredCollector: Collector {
    let base: InMemoryCollector
    let clock: ManualClock
    var capabilities: CollectorCapabilities
    var onPublish: @Sendable ([Message]) async throws -> [Result<MessageID, StalkError>]
    var onTake: @Sendable (TakeRequest) async throws -> [Delivery]
    var onFinish: @Sendable ([Completion]) async throws -> [Result<Void, StalkError>]
    var onExtend: @Sendable ([Receipt], Duration) async throws -> [Result<Void, StalkError>]
    var onControl: @Sendable (CollectorCommand) async throws -> CollectorStatus
    var alterReason: @Sendable (String) -> String = { $0 }

    init(base: InMemoryCollector, clock: ManualClock) {
        self.base = base
        self.clock = clock
        self.capabilities = base.capabilities
        self.onPublish = { try await base.publish($0, durability: .synced) }
        self.onTake = { try await base.take($0) }
        self.onFinish = { try await base.finish($0, durability: .synced) }
        self.onExtend = { try await base.extend($0, lease: $1) }
        self.onControl = { try await base.control($0) }
    }

    var queue: QueueName { self.base.queue }

    func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>] {
        try await self.onPublish(messages)
    }

    func take(_ request: TakeRequest) async throws -> [Delivery] { try await self.onTake(request) }

    func finish(_ completions: [Completion], durability: Durability) async throws -> [Result<Void, StalkError>] {
        try await self.onFinish(completions)
    }

    func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        try await self.onExtend(receipts, lease)
    }

    func control(_ command: CollectorCommand) async throws -> CollectorStatus { try await self.onControl(command) }
}
