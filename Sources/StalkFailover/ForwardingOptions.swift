// How messages are moved from one collector to another.

public import StalkCore

/// What must leave in order.
public enum ForwardingOrder: Hashable, Sendable {
    /// Everything: one batch is on its way at a time.
    case queue
    /// What has the same header `Stalk-Group`; messages without it are one group. Several batches are on their way.
    case group
}

/// How messages are moved to a destination, and what is done when it fails.
public struct ForwardingOptions: Hashable, Sendable {
    /// What must leave in order.
    public var order: ForwardingOrder = .queue
    /// The most batches on their way at a time, where the order allows more than one.
    public var maxInFlight: Int = 4
    /// The most messages of a batch; the destination's own limit holds too.
    public var maxBatch: Int = 1000
    /// The most bytes of a batch; a single message may be larger.
    public var maxBatchBytes: Int = 4 << 20
    /// The most messages of the batch that tries a destination again after it failed.
    public var trialBatch: Int = 10
    /// The most messages per second; `nil` without a limit.
    public var messagesPerSecond: Double?
    /// The most bytes of bodies per second; `nil` without a limit.
    public var bytesPerSecond: Double?
    /// How many transport failures in a row open the breaker.
    public var failuresToOpen: Int = 3
    /// The longest wait after the breaker opened for the first time; it doubles each time.
    public var minBackoff: Duration = .seconds(1)
    /// The longest wait of all.
    public var maxBackoff: Duration = .seconds(60)
    /// How often a queue that is gone or denies access is tried: after half of this at the earliest.
    public var refusedInterval: Duration = .seconds(60)
    /// After how many refused messages in a row, with none accepted in between, the queue counts as refused.
    public var refusalsInARow: Int = 10
    /// How long the remote recognises a message that comes again: SQS FIFO queues do for five minutes.
    public var deduplicationWindow: Duration = .zero
    /// How old a message may become before it is set aside; `nil` without a limit.
    public var maxAge: Duration?
    /// How often a message may be sent before it is set aside; `nil` without a limit.
    public var maxTries: Int?
    /// The lease under which messages are held; the source's own limit holds too.
    public var lease: Duration = .seconds(3600)
    /// Whether messages carry the header `Stalk-Id`, by which a consumer knows those that come twice.
    public var sendsID: Bool = true
    /// Whether messages carry `Stalk-Deduplication-Id`, which SQS FIFO queues need; `nil` for queues named `….fifo`.
    public var sendsDeduplicationID: Bool?

    /// Makes the options.
    public init() {}

    /// Checks the numbers.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/invalidArgument``, naming the one that has no meaning.
    public func validate() throws(StalkError) {
        let counts = [
            ("maxInFlight", self.maxInFlight), ("maxBatch", self.maxBatch), ("maxBatchBytes", self.maxBatchBytes),
            ("trialBatch", self.trialBatch), ("failuresToOpen", self.failuresToOpen),
            ("refusalsInARow", self.refusalsInARow), ("maxTries", self.maxTries ?? 1),
        ]
        for (name, count) in counts where count < 1 {
            throw StalkError(.invalidArgument, "\(name) is \(count): give at least 1.")
        }
        let rates = [("messagesPerSecond", self.messagesPerSecond), ("bytesPerSecond", self.bytesPerSecond)]
        for (name, rate) in rates {
            guard let rate, !(rate > 0 && rate.isFinite) else { continue }
            throw StalkError(.invalidArgument, "\(name) is \(rate): give more than zero, or nil for no limit.")
        }
        let waits = [
            ("minBackoff", self.minBackoff), ("maxBackoff", self.maxBackoff),
            ("refusedInterval", self.refusedInterval), ("lease", self.lease), ("maxAge", self.maxAge ?? .seconds(1)),
        ]
        for (name, wait) in waits where wait <= .zero || wait > Message.maxDelay {
            throw StalkError(.invalidArgument, "\(name) is \(wait): give more than zero, up to ten years.")
        }
    }
}

/// Where a circuit breaker stands.
public enum BreakerPhase: String, Hashable, Sendable {
    /// The destination answers: everything is sent.
    case closed
    /// It does not: nothing is sent until the next trial.
    case open
    /// One batch is on its way to try it.
    case halfOpen
}

/// What has passed through a forwarder since it was made.
public struct ForwardingCounters: Hashable, Sendable {
    /// Messages that the destination accepted.
    public var forwarded = 0
    /// Messages that were set aside with a reason, those over a limit included.
    public var setAside = 0
    /// Sends of a message whose answer was lost, so that it may have arrived.
    public var ambiguous = 0
    /// Messages that were sent again after such a send, longer ago than the destination remembers.
    public var mayBeDuplicate = 0
    /// How often the breaker opened.
    public var opened = 0
    /// How often the destination asked for less.
    public var throttled = 0

    /// Starts at zero.
    public init() {}
}
