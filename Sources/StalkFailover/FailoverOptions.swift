// How a failover collector behaves, and what it tells of itself.

public import StalkCore

/// How a ``FailoverCollector`` behaves.
public struct FailoverOptions: Hashable, Sendable {
    /// Where a message goes first.
    public enum Mode: Hashable, Sendable {
        /// To the remote, while it is well and nothing waits for it; else into the store.
        case direct
        /// Into the store, always: publishing takes one disk sync, whatever the network does.
        case writeThrough
    }

    /// What publishing does when the spool holds as much as it may.
    public enum WhenFull: Hashable, Sendable {
        /// Refuse with ``StalkCore/StalkError/Code/storageFull``.
        case reject
        /// Wait for room this long, then refuse.
        case wait(Duration)
        /// Let the oldest messages go, and count them. For data that is worthless when it is late.
        case dropOldest
    }

    /// Where a message goes first.
    public var mode: Mode = .direct
    /// How messages leave the spool.
    public var forwarding = ForwardingOptions()
    /// How long the remote has for a direct publish; after it the message is stored, and counts as ambiguous.
    public var directDeadline: Duration = .seconds(5)
    /// The most messages in the spool; `nil` without a limit.
    public var maxMessages: Int?
    /// The most bytes of bodies in the spool; `nil` without a limit.
    public var maxBytes: Int?
    /// How old the first in line may become; `nil` without a limit.
    ///
    /// From then on the spool counts as full: with ``WhenFull/dropOldest`` what is older goes when new ones come.
    public var maxOldestAge: Duration?
    /// What publishing does when the spool holds as much as it may.
    public var whenFull: WhenFull = .reject
    /// A queue of the same store for what the remote refuses; `nil` keeps it in the spool's queue, as dead.
    public var errorQueue: QueueName?
    /// How long a delivery that was finished while the remote was away is recognised when its message comes again.
    public var rememberOutcomes: Duration = .seconds(12 * 3600)

    /// Makes the options.
    ///
    /// - Parameter mode: Where a message goes first.
    public init(mode: Mode = .direct) {
        self.mode = mode
    }

    /// Checks the numbers.
    ///
    /// - Throws: ``StalkCore/StalkError`` with `invalidArgument`, naming the one that has no meaning.
    public func validate() throws(StalkError) {
        try self.forwarding.validate()
        for (name, count) in [("maxMessages", self.maxMessages), ("maxBytes", self.maxBytes)] {
            guard let count, count < 1 else { continue }
            throw StalkError(.invalidArgument, "\(name) is \(count): give at least 1, or nil for no limit.")
        }
        if let age = self.maxOldestAge, age <= .zero {
            throw StalkError(.invalidArgument, "maxOldestAge is \(age): give more than zero, or nil for no limit.")
        }
        guard self.directDeadline > .zero else {
            throw StalkError(.invalidArgument, "directDeadline is \(self.directDeadline): give more than zero.")
        }
    }
}

/// How a ``FailoverCollector`` is doing.
public struct FailoverStats: Hashable, Sendable {
    /// Messages in the spool that are on their way or can be sent.
    public var waiting: Int
    /// Messages in the spool whose time has not come.
    public var delayed: Int
    /// Messages that were set aside and wait for a person.
    public var setAside: Int
    /// The size of all bodies in the spool, in bytes.
    public var bytes: Int
    /// How long the first in line has waited; `nil` when none does.
    public var oldestAge: Duration?
    /// Where the circuit breaker stands.
    public var breaker: BreakerPhase
    /// How long it is until the remote is tried again; `nil` unless the breaker is open.
    public var triedIn: Duration?
    /// The bound on messages per second right now; `nil` without one.
    public var rateLimit: Double?
    /// Messages that left for the remote in the last second.
    public var rate: Int
    /// The size of their bodies, in bytes.
    public var byteRate: Int
    /// How long the spool takes to empty at this rate; `nil` where that can't be said.
    public var timeToEmpty: Duration?
    /// Messages that went to the remote at once.
    public var direct: Int
    /// Messages that were stored first.
    public var stored: Int
    /// Messages that went because newer ones came, with ``FailoverOptions/WhenFull/dropOldest``.
    public var dropped: Int
    /// Publishes that were refused because the spool was full.
    public var refusedFull: Int
    /// Outcomes of deliveries that wait for the remote.
    public var outcomesWaiting: Int
    /// Deliveries that were recognised as done and finished without a handler.
    public var recognised: Int
    /// What has passed through the forwarder.
    public var forwarding: ForwardingCounters

    /// How long so many messages take to leave at a rate; `nil` where that can't be said.
    package static func timeToEmpty(_ waiting: Int, rate: Int) -> Duration? {
        guard waiting > 0 else { return .zero }
        return rate > 0 ? .milliseconds(Int64(waiting) * 1000 / Int64(rate)) : nil
    }
}
