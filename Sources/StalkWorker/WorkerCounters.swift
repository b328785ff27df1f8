/// What a ``Worker`` has done since it was made, and what it holds now.
public struct WorkerCounters: Hashable, Sendable {
    /// Deliveries that the worker got.
    public var received = 0
    /// Messages that are done.
    public var acknowledged = 0
    /// Deliveries that failed and come again.
    public var retried = 0
    /// Messages that failed for good.
    public var deadLettered = 0
    /// Deliveries that were given back without having been worked on.
    public var released = 0
    /// Handlers that ran out of time.
    public var timedOut = 0
    /// Deliveries whose lease was over before their outcome was stored: the message may have come again.
    public var lostLeases = 0
    /// Deliveries that the worker holds now: at most its concurrency, unless that was just lowered or handlers are stuck.
    public var inFlight = 0
    /// Handlers that ignore their cancellation and still run.
    public var stuck = 0
    /// How long handlers ran, middleware included.
    public var durations = DurationHistogram()

    /// Counts nothing yet.
    public init() {}
}

/// How a ``Worker`` is right now.
public struct WorkerStatus: Hashable, Sendable {
    /// Whether ``Worker/run()`` runs.
    public var isRunning: Bool
    /// Whether it takes nothing more and lets what runs end.
    public var isStopping: Bool
    /// How many handlers may run at a time.
    public var concurrency: Int
    /// Whether the last call of each kind to the backend went well.
    public var isBackendReachable: Bool
    /// How long ago the backend last answered; `nil` when it never did.
    public var sinceLastSuccess: Duration?
}

/// How long something took, counted in buckets whose bounds never change, so that counts can be added up.
public struct DurationHistogram: Hashable, Sendable {
    /// The upper bounds of the buckets but the last, which has none.
    public static let bounds: [Duration] = [
        .milliseconds(1), .milliseconds(5), .milliseconds(10), .milliseconds(25), .milliseconds(50),
        .milliseconds(100), .milliseconds(250), .milliseconds(500), .seconds(1), .milliseconds(2500), .seconds(5),
        .seconds(10), .seconds(30), .seconds(60), .seconds(300),
    ]

    /// How many fell into each bucket; one more than there are bounds.
    public private(set) var counts = [Int](repeating: 0, count: Self.bounds.count + 1)
    /// How many there were.
    public private(set) var count = 0
    /// How long all of them took together.
    public private(set) var sum = Duration.zero

    /// Counts nothing yet.
    public init() {}

    /// Counts one.
    ///
    /// - Parameter duration: How long it took; what is negative counts as nothing.
    public mutating func record(_ duration: Duration) {
        let duration = max(duration, .zero)
        let bucket = Self.bounds.firstIndex { duration <= $0 } ?? Self.bounds.count
        self.counts[bucket] += 1
        self.count += 1
        self.sum += duration
    }
}
