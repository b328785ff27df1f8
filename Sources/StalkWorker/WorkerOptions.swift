public import StalkCore

/// How a ``Worker`` works.
public struct WorkerOptions: Hashable, Sendable {
    /// What names this worker's collector to people: in metrics, in health and in the control over HTTP.
    public var collectorID: String
    /// What kind of backend it is, as a label of metrics: `local`, `sqs`, `nsq` or another word.
    public var backend: String
    /// How many handlers run at a time, at least 1; ``Worker/scale(to:)`` changes it while the worker runs.
    public var concurrency: Int
    /// How long each delivery is leased; extended while its handler runs where the collector can extend.
    public var lease: Duration
    /// When a failed message comes again, and how often; a message's own policy overrides it.
    public var retryPolicy: RetryPolicy
    /// How long a handler may run before it is cancelled and its message retried; `nil` lets it run.
    public var timeout: Duration?
    /// How long a cancelled handler may take to end before the worker goes on without it.
    public var cancellationGrace: Duration
    /// How many handlers that ignore their cancellation are replaced by others; more of them occupy slots until they end.
    public var maxReplacedHandlers: Int
    /// How long what runs may go on after a graceful stop was asked for, before it is cancelled; `nil` lets it end.
    public var stopGrace: Duration?
    /// How long one call waits for a message.
    public var pollWait: Duration
    /// The most deliveries of one call, at least 1; `nil` for as many as there is room for.
    public var takeLimit: Int?
    /// Whether the worker wakes the collector when it begins.
    public var wakesCollector: Bool
    /// How long to wait between tries while the backend is away.
    public var backoff: WorkerBackoff
    /// What an outcome must survive before its slot is free again.
    public var durability: Durability

    /// Makes the options.
    public init(
        collectorID: String = WorkerOptions.makeCollectorID(),
        backend: String = "unknown",
        concurrency: Int = 1,
        lease: Duration = .seconds(30),
        retryPolicy: RetryPolicy = .standard,
        timeout: Duration? = nil,
        cancellationGrace: Duration = .seconds(5),
        maxReplacedHandlers: Int = 16,
        stopGrace: Duration? = nil,
        pollWait: Duration = .seconds(20),
        takeLimit: Int? = nil,
        wakesCollector: Bool = true,
        backoff: WorkerBackoff = WorkerBackoff(),
        durability: Durability = .synced
    ) {
        self.collectorID = collectorID
        self.backend = backend
        self.concurrency = concurrency
        self.lease = lease
        self.retryPolicy = retryPolicy
        self.timeout = timeout
        self.cancellationGrace = cancellationGrace
        self.maxReplacedHandlers = maxReplacedHandlers
        self.stopGrace = stopGrace
        self.pollWait = pollWait
        self.takeLimit = takeLimit
        self.wakesCollector = wakesCollector
        self.backoff = backoff
        self.durability = durability
    }

    /// A random UUID (RFC 9562, version 4), as a collector's id when none is given.
    public static func makeCollectorID() -> String {
        let high = UInt64.random(in: .min ... .max) & 0xFFFF_FFFF_FFFF_0FFF | 0x4000
        let low = UInt64.random(in: .min ... .max) & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
        let digits = [high, low].map { number in
            let text = String(number, radix: 16)
            return String(repeating: "0", count: 16 - text.count) + text
        }.joined()
        var parts: [Substring] = []
        var rest = digits[...]
        for length in [8, 4, 4, 4, 12] {
            parts.append(rest.prefix(length))
            rest = rest.dropFirst(length)
        }
        return parts.joined(separator: "-")
    }

    func validate(for capabilities: CollectorCapabilities) throws(StalkError) {
        guard self.concurrency >= 1 else {
            throw StalkError(
                .invalidArgument,
                "A worker can't start with a concurrency of \(self.concurrency): give 1 or more."
            )
        }
        try TakeRequest(wait: self.pollWait, lease: self.lease).validate(for: capabilities)
        if let timeout = self.timeout, timeout <= .zero {
            throw StalkError(
                .invalidArgument,
                "A timeout of \(timeout) would cancel every handler: give more than zero."
            )
        }
        guard self.cancellationGrace >= .zero else {
            throw StalkError(.invalidArgument, "A grace of \(self.cancellationGrace) is no time: give zero or more.")
        }
        guard self.maxReplacedHandlers >= 0 else {
            throw StalkError(
                .invalidArgument,
                "The worker can't replace \(self.maxReplacedHandlers) stuck handlers: give zero or more."
            )
        }
        if let grace = self.stopGrace, grace < .zero {
            throw StalkError(.invalidArgument, "A time to stop of \(grace) is no time: give zero or more.")
        }
        if let limit = self.takeLimit, limit < 1 {
            throw StalkError(.invalidArgument, "A take limit of \(limit) takes nothing: give 1 or more.")
        }
        guard self.backoff.from > .zero, self.backoff.cap >= self.backoff.from else {
            throw StalkError(.invalidArgument, "A backoff grows from more than zero to a cap that is no smaller.")
        }
    }
}

/// How long a worker waits between tries while its backend is away: growing, with jitter.
public struct WorkerBackoff: Hashable, Sendable {
    /// The longest wait after the first failure, more than zero.
    public var from: Duration
    /// The longest wait after any number of failures.
    public var cap: Duration

    /// Makes a backoff.
    ///
    /// - Parameters:
    ///   - from: The longest wait after the first failure, more than zero.
    ///   - cap: The longest wait after any number of failures.
    public init(from: Duration = .milliseconds(100), cap: Duration = .seconds(30)) {
        self.from = from
        self.cap = cap
    }

    /// The wait after the n-th failure in a row: between half of `from` × 2ⁿ⁻¹ and all of it, never over `cap`.
    ///
    /// It is never near zero, unlike a message's retry: here it is the backend that needs the rest.
    func delay(afterFailure count: Int, using generator: inout some RandomNumberGenerator) -> Duration {
        let doublings = min(max(count - 1, 0), 30)
        let largest = min(self.from * (1 << doublings), self.cap)
        return largest / 2 + largest / 2 * Double.random(in: 0...1, using: &generator)
    }
}
