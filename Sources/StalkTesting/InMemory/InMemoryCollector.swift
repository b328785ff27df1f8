public import StalkCore

/// A complete collector in memory: for tests of what is built on collectors, and the reference for those who write one.
///
/// It does everything the protocol names, by an injected clock: with a ``ManualClock`` delays, leases and waits
/// pass when the test says so. It starts asleep. ``Disposition/acknowledgeAndPublish(_:)`` reaches the queues of the
/// same ``InMemoryBroker``. It remembers which messages were acknowledged for as long as it lives, so it is for tests,
/// not for a long-running service.
public final class InMemoryCollector: Collector {
    /// A message that failed for good.
    public struct DeadMessage: Hashable, Sendable {
        /// The message's id.
        public var id: MessageID
        /// The payload.
        public var body: [UInt8]
        /// Named text that travels with it.
        public var headers: Headers
        /// How often it was delivered.
        public var attempts: Int
        /// Why it failed for good.
        public var reason: String
        /// The reasons of all its failures, first to last.
        public var history: [String]
    }

    /// How many messages are in which state.
    public struct Counts: Hashable, Sendable {
        /// Messages that can be taken now.
        public var ready: Int
        /// Messages whose time has not come.
        public var delayed: Int
        /// Messages in the hands of a worker.
        public var leased: Int
        /// Messages that failed for good.
        public var dead: Int

        /// States how many messages are in which state.
        public init(ready: Int = 0, delayed: Int = 0, leased: Int = 0, dead: Int = 0) {
            self.ready = ready
            self.delayed = delayed
            self.leased = leased
            self.dead = dead
        }
    }

    /// The queue that this collector publishes to and takes from.
    public let queue: QueueName
    /// The queues that it can publish to in one step with an acknowledge.
    public let broker: InMemoryBroker

    init(queue: QueueName, broker: InMemoryBroker) {
        self.queue = queue
        self.broker = broker
    }

    /// Makes a collector with a broker of its own, asleep and without messages.
    ///
    /// - Parameters:
    ///   - queue: The queue's name.
    ///   - capabilities: What it is to be able to do; what is left out it refuses, like a backend that can't.
    ///   - clock: What delays, leases and waits are counted by.
    public convenience init(
        queue: QueueName,
        capabilities: CollectorCapabilities = InMemoryBroker.capabilities,
        clock: some Clock<Duration> = ContinuousClock()
    ) {
        self.init(queue: queue, broker: InMemoryBroker(capabilities: capabilities, clock: clock))
    }

    /// Makes a collector with a broker of its own and a manual clock, wall time included, asleep and without messages.
    ///
    /// - Parameters:
    ///   - queue: The queue's name.
    ///   - capabilities: What it is to be able to do; what is left out it refuses, like a backend that can't.
    ///   - clock: What delays, leases and waits are counted by, and what stamps messages.
    public convenience init(
        queue: QueueName,
        capabilities: CollectorCapabilities = InMemoryBroker.capabilities,
        clock: ManualClock
    ) {
        self.init(queue: queue, broker: InMemoryBroker(capabilities: capabilities, clock: clock))
    }

    /// What it can do.
    public var capabilities: CollectorCapabilities { self.broker.capabilities }

    /// The messages that failed for good, oldest first.
    public var deadLetters: [DeadMessage] { self.broker.queueState(self.queue).queue.dead }

    /// How many messages are in which state.
    public var counts: Counts {
        let (queue, now) = self.broker.queueState(self.queue)
        let ready = queue.waiting.prefix { $0.dueAt <= now }.count
        return Counts(
            ready: ready,
            delayed: queue.waiting.count - ready,
            leased: queue.leased.count,
            dead: queue.dead.count
        )
    }

    /// How many calls wait for messages, in all queues of its broker: what a test waits for before it lets time pass.
    public var waitingCalls: Int { self.broker.waitingCalls }

    /// Returns once nothing is ready, delayed or leased.
    ///
    /// - Throws: `CancellationError` when the task is cancelled first.
    public func drained() async throws { try await self.broker.drained(self.queue) }

    /// Publishes messages; see ``Collector/publish(_:durability:)``.
    public func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>] {
        try self.broker.publish(messages, to: self.queue)
    }

    /// Takes ready messages; see ``Collector/take(_:)``.
    public func take(_ request: TakeRequest) async throws -> [Delivery] {
        try await self.broker.take(request, from: self.queue)
    }

    /// Ends deliveries; see ``Collector/finish(_:durability:)``.
    public func finish(
        _ completions: [Completion],
        durability: Durability
    ) async throws -> [Result<Void, StalkError>] {
        try self.broker.finish(completions, in: self.queue)
    }

    /// Extends leases; see ``Collector/extend(_:lease:)``.
    public func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        try self.broker.extend(receipts, lease: lease, in: self.queue)
    }

    /// Changes how it delivers; see ``Collector/control(_:)``.
    @discardableResult
    public func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        try self.broker.control(command, of: self.queue)
    }
}

extension InMemoryCollector.DeadMessage {
    init(_ entry: InMemoryBrokerStateMachine.Entry, id: MessageID, reason: String) {
        self.init(
            id: id,
            body: entry.message.body,
            headers: entry.message.headers,
            attempts: entry.attempts,
            reason: reason,
            history: entry.history
        )
    }
}
