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
    /// Deliveries that the worker holds now: at most its concurrency, unless that was just lowered.
    public var inFlight = 0

    /// Counts nothing yet.
    public init() {}
}
