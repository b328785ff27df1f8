// What a backend can and can't do, stated instead of found out.

/// What a collector can do; what it can't, it refuses with ``StalkError/Code/unsupported`` and never clamps in silence.
public struct CollectorCapabilities: Hashable, Sendable {
    /// How ready messages leave.
    public enum Ordering: Hashable, Sendable {
        /// In the order in which they became ready.
        case firstInFirstOut
        /// Roughly in that order.
        case bestEffort
    }

    /// The largest body, in bytes.
    public var maxBodyBytes: Int
    /// The longest delay of a message.
    public var maxDelay: Duration
    /// The longest delay of a retry.
    public var maxRetryDelay: Duration
    /// The longest lease, and the longest that a lease can be extended to from now.
    public var maxLease: Duration
    /// The most messages, completions or deliveries in one call.
    public var maxBatch: Int
    /// How ready messages leave.
    public var ordering: Ordering
    /// Whether a lease can be extended.
    public var leaseExtension: Bool
    /// Whether ``Disposition/acknowledgeAndPublish(_:)`` works, as one atomic step.
    public var atomicPublish: Bool
    /// Whether ``Disposition/release`` takes the attempt back.
    public var uncountedRelease: Bool
    /// Whether delays and retries survive a restart of the backend.
    public var durableDelay: Bool

    /// States the capabilities; retries are delayed as long as messages unless `maxRetryDelay` says otherwise.
    public init(
        maxBodyBytes: Int,
        maxDelay: Duration,
        maxRetryDelay: Duration? = nil,
        maxLease: Duration,
        maxBatch: Int,
        ordering: Ordering,
        leaseExtension: Bool,
        atomicPublish: Bool,
        uncountedRelease: Bool,
        durableDelay: Bool
    ) {
        self.maxBodyBytes = maxBodyBytes
        self.maxDelay = maxDelay
        self.maxRetryDelay = maxRetryDelay ?? maxDelay
        self.maxLease = maxLease
        self.maxBatch = maxBatch
        self.ordering = ordering
        self.leaseExtension = leaseExtension
        self.atomicPublish = atomicPublish
        self.uncountedRelease = uncountedRelease
        self.durableDelay = durableDelay
    }
}
