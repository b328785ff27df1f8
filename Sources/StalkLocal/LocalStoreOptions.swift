// How a store is opened.

public import StalkPlatform

/// How a store is opened and what it may use.
public struct LocalStoreOptions: Sendable {
    /// What to do about damage that no crash can cause.
    public enum DamagePolicy: Hashable, Sendable {
        /// Refuse to open, naming file and offset; nothing is changed.
        case refuse
        /// Move what is damaged to a side file and go on with the rest.
        case quarantine
    }

    /// Whether other processes may use the store at the same time.
    public enum Sharing: Hashable, Sendable {
        /// The first process to open the store owns it and serves it to the others, through a socket in the store.
        ///
        /// When the owner goes, one of the others becomes it. See `docs/sharing.md`.
        case automatic
        /// The store is this process's alone: opening fails while another has it, and others that open it are turned away.
        case exclusive
    }

    /// Whether to make the store when there is none.
    public var createIfMissing: Bool
    /// Whether other processes may use the store at the same time.
    public var sharing: Sharing
    /// What to do about damage that no crash can cause.
    public var onDamage: DamagePolicy
    /// The largest body, in bytes, up to half a segment.
    public var maxBodyBytes: Int
    /// The size of a log segment, in bytes, from 256 KiB to 1 GiB; a body takes at most half of one.
    public var segmentBytes: Int
    /// How much log gathers before a checkpoint moves it into LMDB, in bytes.
    public var checkpointBytes: Int
    /// How long the store is quiet before a checkpoint moves what gathered into LMDB.
    public var idleCheckpointDelay: Duration
    /// How many overdue messages are released per second after downtime, at least 1,000.
    public var releaseRate: Int
    /// The clock; tests put a manual one here.
    public var clock: any StoreClock

    /// Makes the options.
    public init(
        createIfMissing: Bool = true,
        sharing: Sharing = .automatic,
        onDamage: DamagePolicy = .refuse,
        maxBodyBytes: Int = 1 << 20,
        segmentBytes: Int = 8 << 20,
        checkpointBytes: Int = 64 << 20,
        idleCheckpointDelay: Duration = .seconds(2),
        releaseRate: Int = 250_000,
        clock: any StoreClock = SystemStoreClock()
    ) {
        self.createIfMissing = createIfMissing
        self.sharing = sharing
        self.onDamage = onDamage
        self.maxBodyBytes = maxBodyBytes
        self.segmentBytes = segmentBytes
        self.checkpointBytes = checkpointBytes
        self.idleCheckpointDelay = idleCheckpointDelay
        self.releaseRate = releaseRate
        self.clock = clock
    }
}
