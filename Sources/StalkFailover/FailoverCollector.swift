// A remote collector with a local store in front of it.

public import Logging
public import StalkCore
public import StalkLocal
internal import StalkPlatform

/// A remote queue whose publishers need not care whether the remote is there.
///
/// ``publish(_:durability:)`` returns when the message is safe: at the remote, or in a local store that survives the
/// process. What is stored is forwarded in order, in batches, behind a circuit breaker, and leaves the store only when
/// the remote has it. Nothing is dropped for its age or for the number of tries, unless a limit was set.
///
/// ```swift
/// let store = try await LocalStore.open(at: "/var/lib/app/spool")
/// let orders = try FailoverCollector(primary: SQSCollector.open("orders"), spool: store)
/// try await orders.publish(Message("hello"))
/// await orders.close()
/// ```
///
/// The store holds the messages in a queue with the name of the remote one. Each message has the header `Stalk-Id`, which
/// stays the same when it is sent twice; it is also the id that publishing returns and that deliveries have.
public final class FailoverCollector: Collector {
    struct State {
        var routing: RoutingStateMachine
        var random = Jitter(seed: .random(in: .min ... .max))
        var direct = 0
        var stored = 0
        var dropped = 0
        var refusedFull = 0
        var roomWaiters: [UInt64: CheckedContinuation<Void, Never>] = [:]
        var isClosed = false
    }

    /// The remote's queue.
    public let queue: QueueName
    /// The remote.
    public let primary: any Collector
    /// The store in front of it.
    public let spool: LocalStore
    /// How it behaves.
    public let options: FailoverOptions

    let spoolQueue: LocalQueue
    let forwarder: Forwarder
    let outcomes: OutcomeKeeper
    let metrics: FailoverMetrics
    let clock: ElapsedClock
    let wallTime: @Sendable () -> Timestamp
    let state: SharedState
    /// What tells this process's messages in the spool from those of an earlier one.
    let token: String
    private let opening: Task<Void, any Error>
    private let driving: Task<Void, Never>

    /// Puts a store in front of a remote queue, and begins to forward what waits there.
    ///
    /// - Parameters:
    ///   - primary: The remote; see ``DeferredCollector`` for one that can't be opened while it is away.
    ///   - spool: The store; its owner closes it, after ``close()``.
    ///   - options: How to behave.
    ///   - clock: What waits are counted by.
    ///   - logger: Told when messages begin to wait and when none does any more; `nil` for nothing.
    /// - Throws: ``StalkCore/StalkError`` with `invalidArgument` for options without a meaning.
    public convenience init(
        primary: any Collector,
        spool: LocalStore,
        options: FailoverOptions = FailoverOptions(),
        clock: some Clock<Duration> = ContinuousClock(),
        logger: Logger? = nil
    ) throws(StalkError) {
        try self.init(
            primary: primary,
            spool: spool,
            options: options,
            clock: ElapsedClock(clock),
            wallTime: { SystemStoreClock().wallTime() },
            logger: logger
        )
    }

    init(
        primary: any Collector,
        spool: LocalStore,
        options: FailoverOptions,
        clock: ElapsedClock,
        wallTime: @escaping @Sendable () -> Timestamp,
        logger: Logger?
    ) throws(StalkError) {
        try options.validate()
        let state = SharedState(options)
        let spoolQueue = spool.queue(primary.queue, options: LocalQueueOptions(errorQueue: options.errorQueue))
        let token = String(UInt32.random(in: .min ... .max), radix: 16)
        let log = FailoverLog(queue: primary.queue, logger: logger)
        let metrics = FailoverMetrics(queue: primary.queue)
        let forwarder = Forwarder(
            from: spoolQueue,
            to: primary,
            options: options.forwarding,
            attemptsAreSends: true,
            clock: clock,
            wallTime: wallTime,
            metrics: metrics,
            reportingIn: spool.path
        ) { note in
            state.observe(note, token: token)
            // Under the lock, so that nothing older is told last.
            state.locked.withLock { metrics.holds($0.routing) }
            log.write(note)
        }
        let outcomes = try OutcomeKeeper(primary: primary, spool: spool, options, clock: clock, wallTime: wallTime)
        self.queue = primary.queue
        self.primary = primary
        self.spool = spool
        self.options = options
        self.spoolQueue = spoolQueue
        self.forwarder = forwarder
        self.outcomes = outcomes
        self.metrics = metrics
        self.clock = clock
        self.wallTime = wallTime
        self.state = state
        self.token = token
        let opening = Task {
            let found = try await spool.stats().queues.first { $0.name == primary.queue }
            let count = found.map { $0.ready + $0.delayed + $0.leased } ?? 0
            // Delayed ones hold nobody up, but who is ready behind them can't be told from here.
            let age = found?.oldestAge?.wholeMillisecondsRoundedUp
            state.opened(
                messages: count,
                bytes: found?.bytes ?? 0,
                waiting: found.map { $0.ready + $0.leased } ?? 0,
                since: age.map { Timestamp(millisecondsSince1970: wallTime().millisecondsSince1970 - $0) }
            )
            try await outcomes.load()
            try await spoolQueue.wake()
        }
        self.opening = opening
        self.driving = Task {
            guard (try? await opening.value) != nil else { return }
            async let outcomesDone: Void = outcomes.drive()
            await forwarder.drive()
            await outcomesDone
        }
    }

    deinit {
        self.forwarder.stop()
        self.outcomes.stop()
    }

    /// What can be done while the remote is there, with delays as long as the store keeps them.
    public var capabilities: CollectorCapabilities {
        var capabilities = self.primary.capabilities
        let remoteBytes = max(capabilities.maxBodyBytes - Self.reservedBytes, 0)
        capabilities.maxBodyBytes = min(remoteBytes, self.spoolQueue.capabilities.maxBodyBytes)
        capabilities.maxDelay = Message.maxDelay
        // What waited here for its time comes after what the remote has by then.
        if !self.primary.capabilities.durableDelay { capabilities.ordering = .bestEffort }
        // What is published must be able to wait in the spool, which an atomic step can't.
        capabilities.atomicPublish = false
        return capabilities
    }

    /// What the headers of forwarding take of the remote's limit.
    private static var reservedBytes: Int { 64 }

    /// Returns once what an earlier process left behind is known.
    func opened() async throws {
        try await self.opening.value
    }

    /// Sends nothing more and returns when what was on its way is recorded; what waits stays in the store.
    ///
    /// The remote and the store stay open: close them afterwards.
    public func close() async {
        self.state.locked.withLock { $0.isClosed = true }
        self.forwarder.stop()
        self.outcomes.stop()
        await self.driving.value
        self.state.wakeRoomWaiters()
    }

    // MARK: Consuming

    /// Takes messages of the remote; see ``StalkCore/Collector/take(_:)``.
    ///
    /// One that was finished while the remote was away, and comes again, is finished by its id and not handed out.
    public func take(_ request: TakeRequest) async throws -> [Delivery] {
        try request.validate(for: self.capabilities)
        let deadline = self.clock.elapsed() + request.wait
        while true {
            var request = request
            request.wait = max(deadline - self.clock.elapsed(), .zero)
            let taken = try await self.primary.take(request)
            let deliveries = await self.outcomes.recognise(taken.map(Self.named))
            // Only where all that came was done already is there a reason to ask again.
            if !deliveries.isEmpty || taken.isEmpty { return deliveries }
        }
    }

    /// A delivery under the id that its publisher knows.
    private static func named(_ delivery: Delivery) -> Delivery {
        guard let id = delivery.headers[FailoverHeader.id] else { return delivery }
        var delivery = delivery
        delivery.id = MessageID(id)
        delivery.headers[FailoverHeader.id] = nil
        return delivery
    }

    /// Ends deliveries; see ``StalkCore/Collector/finish(_:durability:)``.
    ///
    /// While the remote is away, acknowledgements, dead letters and retries are kept in the store and count as done.
    public func finish(
        _ completions: [Completion],
        durability: Durability
    ) async throws -> [Result<Void, StalkError>] {
        try await self.opened()
        return try await self.outcomes.finish(completions, durability: durability)
    }

    /// Extends leases at the remote; see ``StalkCore/Collector/extend(_:lease:)``.
    public func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        try await self.primary.extend(receipts, lease: lease)
    }

    /// Changes how the remote delivers; see ``StalkCore/Collector/control(_:)``.
    @discardableResult
    public func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        try await self.primary.control(command)
    }
}

/// The state of a collector, which its forwarder's observer shares.
final class SharedState: Sendable {
    let locked: Locked<FailoverCollector.State>

    init(_ options: FailoverOptions) {
        self.locked = Locked(FailoverCollector.State(routing: RoutingStateMachine(limits: options)))
    }

    func opened(messages: Int, bytes: Int, waiting: Int, since: Timestamp?) {
        self.locked.withLock {
            $0.routing.opened(messages: messages, bytes: bytes, waiting: waiting, since: since)
        }
    }

    func observe(_ note: ForwardingNote, token: String) {
        switch note {
        case .looking: self.locked.withLock { $0.routing.looking() }
        case .idle: self.locked.withLock { $0.routing.foundNothing() }
        case .left(let entries):
            self.locked.withLock { state in
                for entry in entries {
                    state.routing.left(
                        entry.group,
                        bytes: entry.message.body.count,
                        isCounted: entry.countedBy == token
                    )
                }
            }
            self.wakeRoomWaiters()
        case .began, .refused, .ended, .setAside: break
        }
    }

    func wakeRoomWaiters() {
        let waiters = self.locked.withLock { state in
            defer { state.roomWaiters = [:] }
            return Array(state.roomWaiters.values)
        }
        for waiter in waiters { waiter.resume() }
    }
}

/// One line when messages begin to wait, and one when none does any more.
struct FailoverLog: Sendable {
    let queue: QueueName
    let logger: Logger?

    func write(_ note: ForwardingNote) {
        guard let event = ForwardingEvent(note) else { return }
        let level: Logger.Level =
            switch event {
            case .held, .setAside: .warning
            case .refused: .error
            case .resumed: .notice
            }
        self.logger?.log(level: level, "\(event)", metadata: ["queue": "\(self.queue)"])
    }
}
