// Moves messages from one collector to another: carries out what ForwardingStateMachine decides.

public import StalkCore
public import StalkLocal
internal import StalkPlatform

/// Moves messages from one collector to another, in order, in batches, for as long as it takes.
///
/// A message leaves the source only after the destination has accepted it. While the destination fails, messages stay at
/// the source behind a circuit breaker. What the destination refuses for good is set aside at the source with its reason.
/// What was sent without an answer is sent again, with the same `Stalk-Id`.
public final class Forwarder: Sendable {
    struct State {
        var machine: ForwardingStateMachine
        var nudge: AsyncStream<Void>.Continuation?
        var isRunning = false
    }

    /// Where messages come from.
    public let source: any Collector
    /// Where they go.
    public let destination: any Collector
    /// How they are moved.
    public let options: ForwardingOptions

    let clock: ElapsedClock
    let wallTime: @Sendable () -> Timestamp
    let state: Locked<State>
    private let metrics: FailoverMetrics?
    private let board: ForwardingBoard?
    private let observer: @Sendable (ForwardingNote) -> Void

    init(
        from source: any Collector,
        to destination: any Collector,
        options: ForwardingOptions,
        attemptsAreSends: Bool,
        clock: ElapsedClock,
        wallTime: @escaping @Sendable () -> Timestamp,
        metrics: FailoverMetrics? = nil,
        reportingIn path: String? = nil,
        observer: @escaping @Sendable (ForwardingNote) -> Void
    ) {
        self.source = source
        self.destination = destination
        self.options = options
        self.clock = clock
        self.wallTime = wallTime
        self.metrics = metrics
        self.board = path.map { ForwardingBoard(store: $0, queue: source.queue, clock: clock) }
        self.observer = observer
        let machine = ForwardingStateMachine(
            options: options,
            source: source.capabilities,
            destination: destination.capabilities,
            sendsDeduplicationID: options.sendsDeduplicationID(to: destination.queue),
            attemptsAreSends: attemptsAreSends,
            seed: .random(in: .min ... .max)
        )
        self.state = Locked(State(machine: machine))
    }

    /// Makes a forwarder.
    ///
    /// - Parameters:
    ///   - source: Where messages come from; it is woken by ``run(until:)``.
    ///   - destination: Where they go.
    ///   - options: How they are moved.
    ///   - attemptsAreSends: Whether nobody else takes from the source, so that a delivery which is not the first one was
    ///     perhaps sent by a forwarder that was killed; it counts as ambiguous then.
    ///   - clock: What waits are counted by.
    ///   - store: A store, usually that of the source, where other processes read how it is doing; see
    ///     ``ForwardingReport``.
    ///   - events: Told when the destination fails, works again, or refuses a message.
    /// - Throws: ``StalkCore/StalkError`` with `invalidArgument` for options without a meaning.
    public convenience init(
        from source: any Collector,
        to destination: any Collector,
        options: ForwardingOptions = ForwardingOptions(),
        attemptsAreSends: Bool = false,
        clock: some Clock<Duration> = ContinuousClock(),
        reportingIn store: LocalStore? = nil,
        events: @escaping @Sendable (ForwardingEvent) -> Void = { _ in }
    ) throws(StalkError) {
        try options.validate()
        self.init(
            from: source,
            to: destination,
            options: options,
            attemptsAreSends: attemptsAreSends,
            clock: ElapsedClock(clock),
            wallTime: { SystemStoreClock().wallTime() },
            reportingIn: store?.path,
            observer: { note in ForwardingEvent(note).map(events) }
        )
    }

    /// What has passed through so far.
    public var counters: ForwardingCounters { self.state.withLock { $0.machine.counters } }

    /// Where the breaker stands.
    public var breaker: BreakerPhase { self.state.withLock { $0.machine.breaker.phase } }

    /// How long it is until the destination is tried again; `nil` unless the breaker is open.
    public var triedIn: Duration? {
        let now = self.clock.elapsed()
        return self.state.withLock { $0.machine.breaker.openUntil.map { max($0 - now, .zero) } }
    }

    /// Messages that left for the destination in the last second.
    public var rate: Int {
        let now = self.clock.elapsed()
        return self.state.withLock { $0.machine.rate.measured(now: now) }
    }

    /// The size of their bodies, in bytes.
    public var byteRate: Int {
        let now = self.clock.elapsed()
        return self.state.withLock { $0.machine.rate.measuredBytes(now: now) }
    }

    /// The bound on messages per second right now, what throttling left of it; `nil` without one.
    public var rateLimit: Double? { self.state.withLock { $0.machine.rate.limit } }

    /// Moves messages until the task is cancelled, `until` returns, or the source fails for good.
    ///
    /// At the end nothing new is sent; what is on its way is waited for and recorded, and what is held goes back.
    ///
    /// - Parameter until: Ends the forwarding when it returns, for instance when the source is drained.
    /// - Throws: ``StalkCore/StalkError`` of a source that failed for good; what `until` throws.
    public func run(until: (@Sendable () async throws -> Void)? = nil) async throws {
        try await self.source.wake()
        // In a task of its own, since what is on its way is recorded also when the caller's task is cancelled.
        let driving = Task { await self.drive() }
        let ending = Task {
            do {
                try await until?()
                if until != nil { self.stop() }
            } catch {
                self.stop()
                if !(error is CancellationError) { throw error }
            }
        }
        await withTaskCancellationHandler {
            await driving.value
        } onCancel: {
            self.stop()
        }
        ending.cancel()
        try await ending.value
        if let failure = self.state.withLock({ $0.machine.failure }) { throw failure }
    }

    /// Takes no more and sends no more.
    func stop() {
        self.state.withLock { state in
            state.machine.stop()
            state.nudge?.yield()
        }
    }

    /// Lets the driver look again, since something changed that it did not do itself.
    func nudge() {
        self.state.withLock { _ = $0.nudge?.yield() }
    }

    var moment: ForwardingStateMachine.Moment {
        ForwardingStateMachine.Moment(now: self.clock.elapsed(), wall: self.wallTime())
    }

    /// Takes note of what became of messages of these sizes that went past the source.
    func directEnded(
        _ results: [Result<MessageID, StalkError>],
        sizes: [Int],
        _ moment: ForwardingStateMachine.Moment
    ) {
        let actions = self.state.withLock { state in
            let before = state.machine.counters
            let actions = state.machine.directEnded(results, sizes: sizes, moment)
            self.metrics?.report(before, state.machine.counters, state.machine.breaker.phase)
            return actions
        }
        self.note(actions)
    }

    /// Tells the observer what concerns it, and leaves the rest.
    private func note(_ actions: [ForwardingStateMachine.Action]) {
        for case .note(let note) in actions { self.observer(note) }
    }

    // MARK: Driving

    /// What others are told of it.
    func figures() -> ForwardingReport.Figures {
        let moment = self.moment
        return self.state.withLock { state in
            let triedAt = state.machine.breaker.openUntil.map { until in
                let wait = max(until - moment.now, .zero).wholeMillisecondsRoundedUp
                return Timestamp(millisecondsSince1970: moment.wall.millisecondsSince1970 + wait)
            }
            return ForwardingReport.Figures(
                breaker: state.machine.breaker.phase,
                triedAt: triedAt,
                rate: state.machine.rate.measured(now: moment.now),
                byteRate: state.machine.rate.measuredBytes(now: moment.now),
                rateLimit: state.machine.rate.limit,
                counters: state.machine.counters
            )
        }
    }

    func drive() async {
        guard let board = self.board else { return await self.move() }
        let destination = self.destination.queue
        let reporting = Task { await board.run(to: destination) { self.figures() } }
        await self.move()
        reporting.cancel()
        await reporting.value
    }

    private func move() async {
        let (nudges, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        self.state.withLock { $0.nudge = continuation }
        await withTaskGroup(of: ForwardingStateMachine.Event.self) { group in
            group.addTask { await Self.next(nudges) }
            var event = ForwardingStateMachine.Event.nudged
            var hasCancelled = false
            while true {
                let moment = self.moment
                let handled = event
                let (actions, isStopping, hasEnded, hasTurned) = self.state.withLock { state in
                    let (before, phase) = (state.machine.counters, state.machine.breaker.phase)
                    let actions = state.machine.handle(handled, moment)
                    self.metrics?.report(before, state.machine.counters, state.machine.breaker.phase)
                    let hasTurned = state.machine.breaker.phase != phase
                    return (actions, state.machine.isStopping, state.machine.hasEnded, hasTurned)
                }
                self.board?.poke(isUrgent: hasTurned)
                self.note(actions)
                for action in actions { self.start(action, in: &group) }
                if hasEnded, actions.isEmpty { break }
                if isStopping, !hasCancelled {
                    hasCancelled = true
                    group.cancelAll()
                }
                guard let next = await group.next() else { break }
                if case .nudged = next, !isStopping { group.addTask { await Self.next(nudges) } }
                event = next
            }
            group.cancelAll()
        }
        self.state.withLock { $0.nudge = nil }
    }

    private static func next(_ nudges: AsyncStream<Void>) async -> ForwardingStateMachine.Event {
        for await _ in nudges { break }
        return .nudged
    }

    private func start(
        _ action: ForwardingStateMachine.Action,
        in group: inout TaskGroup<ForwardingStateMachine.Event>
    ) {
        switch action {
        case .note:
            break
        case .take(let request):
            group.addTask {
                do {
                    return .taken(.success(try await self.source.take(request)))
                } catch {
                    return .taken(.failure(error))
                }
            }
        case .send(let batch, let messages):
            group.addTask {
                let result = await Self.uncancelled {
                    try await self.destination.publish(messages, durability: .synced)
                }
                return .sent(batch, result)
            }
        case .record(let call, let completions):
            group.addTask {
                .recorded(call, await Self.uncancelled { try await self.source.finishAll(completions) })
            }
        case .extend(let receipts, let lease):
            group.addTask {
                .extended(receipts, await Self.uncancelled { try await self.source.extendAll(receipts, lease: lease) })
            }
        case .alarm(let moment):
            group.addTask {
                try? await self.clock.sleep(moment)
                return .alarm(moment)
            }
        }
    }

    /// Carries a call through that must not be cut short.
    private static func uncancelled<Value: Sendable>(
        _ body: @escaping @Sendable () async throws -> Value
    ) async -> Result<Value, any Error> {
        await Task { try await body() }.result
    }
}

/// What happens to a forwarding that a person may want to know.
public enum ForwardingEvent: Sendable, CustomStringConvertible {
    /// The destination can't be used: messages wait at the source. It is tried again by itself.
    case held(StalkError)
    /// The destination is there and refuses: somebody must mend it. It is tried again, seldom.
    case refused(StalkError)
    /// Everything that waited has gone.
    case resumed(forwarded: Int, after: Duration)
    /// A message was refused for good and set aside at the source.
    case setAside(id: String, reason: String)

    init?(_ note: ForwardingNote) {
        switch note {
        case .looking, .idle, .left: return nil
        case .began(let error, let isRefused): self = isRefused ? .refused(error) : .held(error)
        case .refused(let error): self = .refused(error)
        case .ended(let forwarded, let after): self = .resumed(forwarded: forwarded, after: after)
        case .setAside(let id, let reason): self = .setAside(id: id, reason: reason)
        }
    }

    /// The event as one line.
    public var description: String {
        switch self {
        case .held(let error): "messages wait: \(error.message)"
        case .refused(let error): "messages wait until somebody mends this: \(error.message)"
        case .resumed(let count, let time): "nothing waits any more: \(count) forwarded in \(time.rounded.stalkText)"
        case .setAside(let id, let reason): "set aside \(id): \(reason)"
        }
    }
}

extension Duration {
    fileprivate var rounded: Duration { .milliseconds(self.wholeMillisecondsRoundedUp) }
}

extension ForwardingOptions {
    /// Whether a destination is to get deduplication ids: SQS says by the name which of its queues need them.
    func sendsDeduplicationID(to queue: QueueName) -> Bool {
        self.sendsDeduplicationID ?? queue.rawValue.hasSuffix(".fifo")
    }
}

extension Collector {
    /// Finishes any number of deliveries, in calls as large as the collector takes.
    func finishAll(_ completions: [Completion]) async throws -> [Result<Void, StalkError>] {
        var results: [Result<Void, StalkError>] = []
        for part in completions.parts(of: self.capabilities.maxBatch) {
            results += try await self.finish(part, durability: .synced)
        }
        return results
    }

    /// Extends any number of leases, in calls as large as the collector takes.
    func extendAll(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        var results: [Result<Void, StalkError>] = []
        for part in receipts.parts(of: self.capabilities.maxBatch) {
            results += try await self.extend(part, lease: lease)
        }
        return results
    }
}

extension Array {
    /// The elements in order, in arrays of at most so many.
    func parts(of size: Int) -> [[Element]] {
        stride(from: 0, to: self.count, by: Swift.max(size, 1)).map {
            Array(self[$0..<Swift.min($0 + Swift.max(size, 1), self.count)])
        }
    }
}
