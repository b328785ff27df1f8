// A remote that is opened when it is first needed, so that a program can start while the remote is away.

public import StalkCore

/// A collector that is opened by its first call, and by each next one until that succeeds.
///
/// Opening a remote queue asks the remote, which fails while it is away. Behind a ``FailoverCollector`` that must stop
/// nobody from publishing.
public final class DeferredCollector: Collector {
    private struct State {
        var opened: (any Collector)?
        var opening: Task<any Collector, any Error>?
        /// What was asked for before it was open.
        var isAwake = false
        var maxInFlight: Int?
    }

    /// The queue's name.
    public let queue: QueueName
    private let assumed: CollectorCapabilities
    private let open: @Sendable () async throws -> any Collector
    private let state = Locked(State())

    /// Makes the collector without opening it.
    ///
    /// - Parameters:
    ///   - queue: The queue's name.
    ///   - capabilities: What is assumed of the remote until it is open: the least that is known for sure.
    ///   - open: Opens it.
    public init(
        queue: QueueName,
        assuming capabilities: CollectorCapabilities,
        open: @escaping @Sendable () async throws -> any Collector
    ) {
        self.queue = queue
        self.assumed = capabilities
        self.open = open
    }

    /// What the remote can do; until it is open, what is assumed.
    public var capabilities: CollectorCapabilities {
        self.state.withLock { $0.opened }?.capabilities ?? self.assumed
    }

    /// The collector, once it could be opened.
    public var opened: (any Collector)? { self.state.withLock { $0.opened } }

    private func remote() async throws -> any Collector {
        let (opened, opening) = self.state.withLock { state in
            if state.opened == nil, state.opening == nil {
                let open = self.open
                state.opening = Task { try await open() }
            }
            return (state.opened, state.opening)
        }
        if let opened { return opened }
        guard let opening else { throw StalkError(.unavailable, "The remote is not open.") }
        do {
            let remote = try await opening.value
            // Before others see it, so that nothing is taken with another limit than the one that was asked for.
            let (isAwake, maxInFlight) = self.state.withLock { ($0.isAwake, $0.maxInFlight) }
            if let maxInFlight { try await remote.scale(to: maxInFlight) }
            if isAwake { try await remote.wake() }
            self.state.withLock { state in
                state.opened = remote
                state.opening = nil
            }
            return remote
        } catch {
            self.state.withLock { state in if state.opening == opening { state.opening = nil } }
            throw error
        }
    }

    /// Publishes messages; see ``StalkCore/Collector/publish(_:durability:)``.
    public func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>] {
        let remote: any Collector
        do {
            remote = try await self.remote()
        } catch {
            // Surely nothing was sent, whatever opening says.
            guard let error = error as? StalkError, error.code != .interrupted else {
                throw StalkError(.unavailable, "The remote of \(self.queue) can't be opened.", cause: error)
            }
            throw error
        }
        return try await remote.publish(messages, durability: durability)
    }

    /// Takes messages; see ``StalkCore/Collector/take(_:)``.
    public func take(_ request: TakeRequest) async throws -> [Delivery] {
        try await self.remote().take(request)
    }

    /// Ends deliveries; see ``StalkCore/Collector/finish(_:durability:)``.
    public func finish(_ completions: [Completion], durability: Durability) async throws -> [Result<Void, StalkError>] {
        try await self.remote().finish(completions, durability: durability)
    }

    /// Extends leases; see ``StalkCore/Collector/extend(_:lease:)``.
    public func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        try await self.remote().extend(receipts, lease: lease)
    }

    /// Changes how the remote delivers; what is asked for before it can be opened is done then, and counts as done.
    @discardableResult
    public func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        switch command {
        case .wake: self.state.withLock { $0.isAwake = true }
        case .sleep: self.state.withLock { $0.isAwake = false }
        case .scale(let most) where most >= 0: self.state.withLock { $0.maxInFlight = most }
        case .report, .scale: break
        }
        do {
            return try await self.remote().control(command)
        } catch let error as StalkError where error.isWorthWaiting && self.opened == nil {
            return self.state.withLock { state in
                CollectorStatus(isAsleep: !state.isAwake, maxInFlight: state.maxInFlight, inFlight: 0)
            }
        }
    }
}
