// A collector that fails when a test says so, in the ways in which remote ones do.

public import StalkCore

/// A collector in front of another one, whose calls fail as scripted.
///
/// It notes every message that reached the one behind it, in order, so that a test can count what was lost, what came
/// twice and what came out of order.
public final class FaultyCollector: Collector {
    /// How a publish fails.
    public enum Fault: Hashable, Sendable {
        /// The remote can't be reached: nothing arrives.
        case notSent
        /// So many of the first messages arrive, and the answer is lost; `nil` for all.
        case lostAnswer(arrived: Int?)
        /// The remote asks for less: nothing arrives.
        case throttled
        /// The remote has no such queue.
        case noSuchQueue
        /// The remote denies access.
        case denied
        /// The call does not return, until the fault is taken away; then nothing has arrived.
        case silence

        /// What is done with the messages, and what is said.
        var error: StalkError {
            switch self {
            case .notSent: StalkError(.unavailable, "scripted: connection refused")
            case .lostAnswer: StalkError(.interrupted, "scripted: the answer was lost")
            case .throttled: StalkError(.throttled, "scripted: slow down")
            case .noSuchQueue: StalkError(.noSuchQueue, "scripted: no such queue")
            case .denied: StalkError(.permissionDenied, "scripted: access denied")
            case .silence: StalkError(.unavailable, "scripted: no answer")
            }
        }
    }

    /// What a ``FaultyCollector`` does with the publishes to come.
    public struct Script: Sendable {
        /// The faults of the next publishes, in order; `nil` lets one through.
        public var next: [Fault?] = []
        /// The fault of all publishes when `next` is used up; `nil` lets them through.
        public var lasting: Fault?
        /// Whether a message is refused for what it is.
        public var refuses: @Sendable (Message) -> Bool = { _ in false }
        /// Whether a refused message makes the whole call fail, instead of being named in the answer.
        public var refusesWholeCalls = false
        /// Whether taking, finishing and extending fail as unavailable.
        public var isConsumerAway = false

        /// Lets everything through.
        public init() {}
    }

    private struct State {
        var script = Script()
        var arrived: [Message] = []
        var batches: [Int] = []
    }

    /// The collector behind.
    public let base: any Collector
    private let state = Locked(State())

    /// Makes a collector that lets everything through.
    ///
    /// - Parameter base: The collector behind.
    public init(_ base: any Collector) {
        self.base = base
    }

    /// The name of the queue behind.
    public var queue: QueueName { self.base.queue }
    /// What the collector behind can do.
    public var capabilities: CollectorCapabilities { self.base.capabilities }
    /// What reached the collector behind, in order.
    public var arrived: [Message] { self.state.withLock { $0.arrived } }
    /// The sizes of all publishes that were tried, in order.
    public var batches: [Int] { self.state.withLock { $0.batches } }

    /// Changes what is done with the publishes to come.
    ///
    /// - Parameter change: The change.
    public func script(_ change: @Sendable (inout Script) -> Void) {
        self.state.withLock { change(&$0.script) }
    }

    /// Publishes messages, or fails as scripted; see ``StalkCore/Collector/publish(_:durability:)``.
    public func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>] {
        let (fault, script) = self.state.withLock { state in
            state.batches.append(messages.count)
            let fault = state.script.next.isEmpty ? state.script.lasting : state.script.next.removeFirst()
            return (fault, state.script)
        }
        switch fault {
        case nil: break
        case .lostAnswer(let count)?:
            let count = min(count ?? messages.count, messages.count)
            _ = try await self.pass(Array(messages.prefix(count)), script, durability)
            throw Fault.lostAnswer(arrived: count).error
        case .silence?:
            while self.state.withLock({ $0.script.lasting == .silence }) {
                try? await ContinuousClock().sleep(for: .milliseconds(1))
            }
            throw Fault.silence.error
        case let fault?:
            throw fault.error
        }
        return try await self.pass(messages, script, durability)
    }

    private func pass(
        _ messages: [Message],
        _ script: Script,
        _ durability: Durability
    ) async throws -> [Result<MessageID, StalkError>] {
        let refusal = StalkError(.invalidArgument, "scripted: this message is refused")
        let accepted = messages.filter { !script.refuses($0) }
        if script.refusesWholeCalls, accepted.count < messages.count { throw refusal }
        guard !accepted.isEmpty else { return messages.map { _ in .failure(refusal) } }
        var results = try await self.base.publish(accepted, durability: durability)[...]
        let arrived = zip(accepted, results).filter { (try? $0.1.get()) != nil }.map(\.0)
        self.state.withLock { $0.arrived += arrived }
        return messages.map { script.refuses($0) ? .failure(refusal) : results.removeFirst() }
    }

    private func checkConsumer() throws(StalkError) {
        if self.state.withLock({ $0.script.isConsumerAway }) { throw Fault.notSent.error }
    }

    /// Takes messages; see ``StalkCore/Collector/take(_:)``.
    public func take(_ request: TakeRequest) async throws -> [Delivery] {
        try self.checkConsumer()
        return try await self.base.take(request)
    }

    /// Ends deliveries; see ``StalkCore/Collector/finish(_:durability:)``.
    public func finish(_ completions: [Completion], durability: Durability) async throws -> [Result<Void, StalkError>] {
        try self.checkConsumer()
        return try await self.base.finish(completions, durability: durability)
    }

    /// Extends leases; see ``StalkCore/Collector/extend(_:lease:)``.
    public func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        try self.checkConsumer()
        return try await self.base.extend(receipts, lease: lease)
    }

    /// Changes how the collector behind delivers; see ``StalkCore/Collector/control(_:)``.
    @discardableResult
    public func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        try await self.base.control(command)
    }
}
