// How many handlers should run: the rule alone, then the loop that reads, asks it and scales.

public import ServiceLifecycle
internal import StalkCore

/// Between which bounds, and how eagerly, concurrency follows the work.
public struct AutoscaleOptions: Hashable, Sendable {
    /// The fewest handlers, at least 1.
    public var min: Int
    /// The most handlers, no fewer than `min`.
    public var max: Int
    /// In how much time a backlog should be worked off; longer needs fewer handlers.
    public var drainIn: Duration
    /// How often to look.
    public var interval: Duration
    /// How many looks in a row must find too many handlers before there are fewer.
    public var patience: Int

    /// Makes the options.
    ///
    /// - Parameters:
    ///   - min: The fewest handlers, at least 1.
    ///   - max: The most handlers.
    ///   - drainIn: In how much time a backlog should be worked off.
    ///   - interval: How often to look.
    ///   - patience: How many looks in a row must find too many handlers before there are fewer.
    public init(
        min: Int = 1,
        max: Int,
        drainIn: Duration = .seconds(60),
        interval: Duration = .seconds(5),
        patience: Int = 6
    ) {
        self.min = min
        self.max = max
        self.drainIn = drainIn
        self.interval = interval
        self.patience = patience
    }

    func validate() throws(StalkError) {
        guard self.min >= 1, self.max >= self.min, self.drainIn > .zero, self.interval > .zero, self.patience >= 1
        else {
            throw StalkError(
                .invalidArgument,
                "Autoscaling goes from at least 1 to no fewer handlers, in times of more than zero: \(self)."
            )
        }
    }
}

/// What one look finds.
public struct AutoscaleReading: Hashable, Sendable {
    /// How many messages are ready and wait.
    public var backlog: Int
    /// How many handlers ended since the last look.
    public var handled: Int
    /// How long those ran, together.
    public var handlerTime: Duration
    /// How long ago the last look was.
    public var elapsed: Duration

    /// States what a look found.
    public init(backlog: Int, handled: Int, handlerTime: Duration, elapsed: Duration) {
        self.backlog = backlog
        self.handled = handled
        self.handlerTime = handlerTime
        self.elapsed = elapsed
    }
}

/// The rule of autoscaling, a value without clocks.
///
/// It is written out in `docs/worker.md`, "Autoscale".
public struct Autoscaler: Sendable {
    /// How many handlers should run.
    public private(set) var concurrency: Int

    private let options: AutoscaleOptions
    /// How long a handler takes, in seconds: half the last look, half those before.
    private var mean: Double?
    /// How long it took, and how many were handled in a second, before the last growth; `nil` once that proved good.
    private var beforeGrowth: (concurrency: Int, mean: Double, rate: Double)?
    /// Looks for which it does not grow, since growing did not help.
    private var rest = 0
    /// Looks in a row that found too many handlers.
    private var excess = 0

    /// Begins with the fewest handlers.
    ///
    /// - Parameter options: Between which bounds, and how eagerly.
    public init(_ options: AutoscaleOptions) {
        self.options = options
        self.concurrency = options.min
    }

    /// Takes a reading and says how many handlers should run from now on.
    public mutating func take(_ reading: AutoscaleReading) -> Int {
        let elapsed = Swift.max(reading.elapsed.inSeconds, 1e-9)
        if reading.handled > 0 {
            let mean = reading.handlerTime.inSeconds / Double(reading.handled)
            self.mean = self.mean.map { ($0 + mean) / 2 } ?? mean
        }
        self.judgeGrowth(rate: Double(reading.handled) / elapsed)
        self.rest = Swift.max(0, self.rest - 1)
        let needed = self.needed(reading, elapsed: elapsed)
        if needed > self.concurrency {
            self.excess = 0
            self.grow(to: needed, rate: Double(reading.handled) / elapsed)
        } else if needed < self.concurrency {
            self.excess += 1
            if self.excess >= self.options.patience {
                self.concurrency -= (self.concurrency - needed + 1) / 2
                self.excess = 0
                self.beforeGrowth = nil
            }
        } else {
            self.excess = 0
        }
        return self.concurrency
    }

    /// What is busy on average, and what it takes besides to work the backlog off in time.
    private func needed(_ reading: AutoscaleReading, elapsed: Double) -> Int {
        guard let mean = self.mean else {
            return reading.backlog > 0 ? self.concurrency + 1 : self.options.min
        }
        let busy = reading.handlerTime.inSeconds / elapsed
        let catchingUp = Double(reading.backlog) * mean / self.options.drainIn.inSeconds
        let needed = (busy + catchingUp).rounded(.up)
        return Int(Swift.min(Swift.max(needed, Double(self.options.min)), Double(self.options.max)))
    }

    private mutating func grow(to needed: Int, rate: Double) {
        guard self.rest == 0, self.concurrency < self.options.max else { return }
        if let mean = self.mean, rate > 0 { self.beforeGrowth = (self.concurrency, mean, rate) }
        self.concurrency = Swift.min(needed, self.concurrency * 2, self.options.max)
    }

    /// Takes a growth back after which handlers took longer and no more was done: they wait for the same thing.
    private mutating func judgeGrowth(rate: Double) {
        guard let before = self.beforeGrowth, let mean = self.mean, self.rest == 0 else { return }
        if mean > before.mean * 1.25, rate < before.rate * 1.1 {
            self.concurrency = Swift.max(before.concurrency, self.options.min)
            self.rest = 2 * self.options.patience
        }
        self.beforeGrowth = nil
    }
}

/// Scales a worker by the rule of ``Autoscaler`` for as long as it runs.
public struct Autoscaling: Service {
    private let worker: Worker
    private let options: AutoscaleOptions
    private let clock: ElapsedClock
    private let backlog: @Sendable () async throws -> Int

    /// Makes the service.
    ///
    /// - Parameters:
    ///   - worker: What to scale.
    ///   - options: Between which bounds, and how eagerly.
    ///   - clock: What looks are counted by.
    ///   - backlog: How many messages wait; what it throws skips a look.
    public init(
        _ worker: Worker,
        options: AutoscaleOptions,
        clock: any Clock<Duration> = ContinuousClock(),
        backlog: @escaping @Sendable () async throws -> Int
    ) {
        self.worker = worker
        self.options = options
        self.clock = ElapsedClock(clock)
        self.backlog = backlog
    }

    /// Looks and scales until a graceful shutdown, or until the task is cancelled.
    ///
    /// - Throws: ``StalkCore/StalkError`` for options without sense.
    public func run() async throws {
        try self.options.validate()
        try await cancelWhenGracefulShutdown { try await self.loop() }
    }

    private func loop() async throws {
        var rule = Autoscaler(self.options)
        try self.worker.scale(to: rule.concurrency)
        var (lastAt, last) = (self.clock.elapsed(), self.worker.counters.durations)
        while (try? await self.clock.sleep(lastAt + self.options.interval)) != nil {
            let (now, durations) = (self.clock.elapsed(), self.worker.counters.durations)
            guard let backlog = try? await self.backlog() else { continue }
            let reading = AutoscaleReading(
                backlog: backlog,
                handled: durations.count - last.count,
                handlerTime: durations.sum - last.sum,
                elapsed: now - lastAt
            )
            (lastAt, last) = (now, durations)
            try self.worker.scale(to: rule.take(reading))
        }
    }
}

extension Duration {
    fileprivate var inSeconds: Double {
        let (seconds, attoseconds) = self.components
        return Double(seconds) + Double(attoseconds) * 1e-18
    }
}
