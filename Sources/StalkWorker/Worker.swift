// Runs a handler for each message of any collector, so that business logic neither takes nor finishes by itself.

public import Logging
public import ServiceLifecycle
public import StalkCore

/// Takes deliveries from a collector and runs a handler for each.
///
/// - At most ``WorkerOptions/concurrency`` deliveries are held at a time, from the take until the outcome is stored.
/// - What the handler returns becomes of the message. What it throws is a failure: the message is retried by its
///   policy and goes to the error queue when its attempts are used up. ``DeadLetter`` and ``RetryLater`` say more.
/// - Leases are extended while handlers run, where the collector can. A handler whose lease is lost is cancelled, and
///   its result is not used: the message may be with somebody else.
/// - While the backend can't be reached, the worker tries again with growing waits. Other errors end ``run()``.
///
/// A graceful shutdown takes no more and lets what runs finish. Cancelling the task of ``run()`` cancels the handlers
/// and releases what they did not complete.
public final class Worker: Service {
    private struct State {
        var machine: WorkerStateMachine
        var actions: AsyncStream<WorkerAction>.Continuation?
    }

    /// Where messages come from.
    public let collector: any Collector
    /// How it works; the concurrency is what it began with.
    public let options: WorkerOptions
    let clock: ElapsedClock
    let logger: Logger?
    let until: (@Sendable () async throws -> Void)?
    let handler: DeliveryHandler
    let metrics: WorkerMetrics
    private let state: Locked<State>

    /// Makes a worker whose handler says what becomes of each message.
    ///
    /// - Parameters:
    ///   - collector: Where messages come from.
    ///   - options: How to work.
    ///   - clock: What leases, timeouts and waits are counted by.
    ///   - logger: What the worker tells about failures, at levels up to info; `nil` for nothing.
    ///   - middleware: What stands around the handler, the first one outermost.
    ///   - until: The worker stops as in a graceful shutdown once this returns, for instance when a queue is drained;
    ///     what it throws, ``run()`` throws after the stop.
    ///   - handler: What to do with a delivery. It should end soon after its task is cancelled.
    public init(
        collector: any Collector,
        options: WorkerOptions = WorkerOptions(),
        clock: any Clock<Duration> = ContinuousClock(),
        logger: Logger? = nil,
        middleware: [Middleware] = [],
        until: (@Sendable () async throws -> Void)? = nil,
        handler: @escaping DeliveryHandler
    ) {
        self.collector = collector
        self.options = options
        self.clock = ElapsedClock(clock)
        self.logger = logger
        self.until = until
        self.handler = middleware.around(handler)
        self.metrics = WorkerMetrics(options: options, queue: collector.queue)
        let machine = WorkerStateMachine(
            options: options,
            capabilities: collector.capabilities,
            seed: .random(in: .min ... .max)
        )
        self.state = Locked(State(machine: machine))
    }

    /// What the worker has done since it was made, and what it holds now.
    public var counters: WorkerCounters { self.state.withLock { $0.machine.counters } }

    /// How the worker is right now.
    public var status: WorkerStatus {
        let now = self.clock.elapsed()
        return self.state.withLock { $0.machine.status(now: now) }
    }

    /// Changes how many handlers run at a time, now or before the worker runs.
    ///
    /// What runs above a lower limit finishes; what a take brings above it is released.
    ///
    /// - Parameter concurrency: The most handlers, from 0, which lets what runs drain.
    /// - Throws: ``StalkCore/StalkError`` with `invalidArgument` for a negative number.
    public func scale(to concurrency: Int) throws(StalkError) {
        guard concurrency >= 0 else {
            throw StalkError(.invalidArgument, "Can't scale to \(concurrency): give 0 to drain, or more.")
        }
        self.tell { $0.scale(to: concurrency, now: $1) }
    }

    /// Works until a graceful shutdown, until `until` returns, or until the task is cancelled.
    ///
    /// Returns when every outcome is stored and every handler has ended; of handlers that ignore their cancellation it
    /// waits for no more than ``WorkerOptions/cancellationGrace``. May be run again afterwards.
    ///
    /// - Throws: `CancellationError` when the task is cancelled; ``StalkCore/StalkError`` for options that the
    ///   collector can't follow, for a worker that runs already, and for what the collector refuses for good.
    public func run() async throws {
        try self.options.validate(for: self.collector.capabilities)
        let (actions, continuation) = AsyncStream.makeStream(of: WorkerAction.self)
        try self.begin(continuation)
        await withTaskCancellationHandler {
            await withGracefulShutdownHandler {
                // In a task of its own, because storing outcomes must go on when the caller's task is cancelled.
                await Task { await self.drive(actions) }.value
            } onGracefulShutdown: {
                self.tell { $0.stop(now: $1) }
            }
        } onCancel: {
            self.tell { $0.cancel(now: $1) }
        }
        if let failure = self.state.withLock({ $0.machine.failure }) { throw failure }
        try Task.checkCancellation()
    }

    private func begin(_ continuation: AsyncStream<WorkerAction>.Continuation) throws(StalkError) {
        let now = self.clock.elapsed()
        let hasBegun = self.state.withLock { state in
            guard let actions = state.machine.start(now: now) else { return false }
            state.actions = continuation
            for action in actions { continuation.yield(action) }
            return true
        }
        guard hasBegun else {
            throw StalkError(.invalidArgument, "This worker runs already: make another one, or raise its concurrency.")
        }
    }

    /// Tells the state machine what happened; the driver does what it answers.
    func tell(_ event: (inout WorkerStateMachine, Duration) -> [WorkerAction]) {
        let now = self.clock.elapsed()
        // Handed on under the lock, so that actions are done in the order in which they were decided; told to the metrics
        // before that, so that they are right when the run ends.
        self.state.withLock { state in
            let before = state.machine.counters
            let actions = event(&state.machine, now)
            self.metrics.report(before, state.machine.counters)
            for action in actions {
                state.actions?.yield(action)
                if action == .end { state.actions?.finish() }
            }
        }
    }
}
