// What one sees of a store without taking anything from it.

public import StalkCore

/// Where a stored message stands.
public enum MessageState: String, CaseIterable, Hashable, Sendable {
    /// It can be taken now.
    case ready
    /// It becomes ready at its due time.
    case delayed
    /// Somebody works on it.
    case leased
    /// It failed for good and waits in the error queue for a person.
    case dead
}

/// One failed attempt in a message's history.
public struct Failure: Hashable, Sendable {
    /// Which delivery failed, from 1.
    public var attempt: Int
    /// When, by the wall clock.
    public var at: Timestamp
    /// Why, as the worker said.
    public var reason: String

    /// Records a failed attempt.
    public init(attempt: Int, at: Timestamp, reason: String) {
        self.attempt = attempt
        self.at = at
        self.reason = reason
    }
}

/// A message as it stands in a store.
public struct StoredMessage: Sendable {
    /// Its identity.
    public var id: MessageID
    /// The queue it is in.
    public var queue: QueueName
    /// Where it stands.
    public var state: MessageState
    /// The payload.
    public var body: [UInt8]
    /// Named text that travels with it.
    public var headers: Headers
    /// How often it was delivered.
    public var attempts: Int
    /// When it was published, by the wall clock.
    public var publishedAt: Timestamp
    /// When it became or becomes ready, by the store's clock.
    public var dueAt: Timestamp
    /// The last failures, oldest first; at most eight are kept.
    public var failures: [Failure]
    /// The queue where it failed for good, when it was moved to a named error queue.
    public var diedIn: QueueName?
}

/// The figures of one queue.
public struct QueueStats: Hashable, Sendable {
    /// The queue.
    public var name: QueueName
    /// How many can be taken now.
    public var ready: Int
    /// How many become ready later.
    public var delayed: Int
    /// How many are being worked on.
    public var leased: Int
    /// How many failed for good.
    public var dead: Int
    /// The bodies' size, as published, in bytes.
    public var bytes: Int
    /// How long the message that is first in line has been ready; `nil` when none is.
    public var oldestAge: Duration?
    /// Whether nothing is taken from it until it is resumed.
    public var isPaused = false
}

/// The figures of a store.
public struct StoreStats: Hashable, Sendable {
    /// The queues, by name.
    public var queues: [QueueStats]
    /// The log's size on disk, in bytes.
    public var logBytes: Int
    /// The LMDB file's size, in bytes.
    public var lmdbBytes: Int
    /// The log that the next checkpoint will move into LMDB, in bytes.
    public var checkpointLag: Int
    /// The process that owns the store.
    public var owner: Int32
    /// Values whose checksum failed and that were set aside since the store was opened.
    public var setAside: Int
    /// What the store asked of the disk.
    public var activity: StoreActivity
    /// How late the schedule is: for how long what should have happened by now has waited.
    public var scheduleLag = Duration.zero
}

/// What a store asked of the disk; differences between two readings tell what some work cost.
public struct StoreActivity: Hashable, Sendable {
    /// Group commits written to the log in the store's life.
    public var frames: Int
    /// Transactions committed to LMDB in the store's life; each syncs twice.
    public var lmdbCommits: Int
    /// Syncs of the log and of directories since the store was opened.
    public var syncs: Int
    /// Bytes written to the log since the store was opened, prepared segments included.
    public var logBytesWritten: Int
    /// How many calls waited for each group commit since the store was opened.
    public var commitCalls: StoreHistogram
    /// How long the syncs of the log took since the store was opened, in microseconds.
    public var logSyncs: StoreHistogram

    /// States what a store asked of the disk; stores do this.
    public init(
        frames: Int,
        lmdbCommits: Int,
        syncs: Int,
        logBytesWritten: Int,
        commitCalls: StoreHistogram = StoreHistogram(bounds: []),
        logSyncs: StoreHistogram = StoreHistogram(bounds: [])
    ) {
        self.frames = frames
        self.lmdbCommits = lmdbCommits
        self.syncs = syncs
        self.logBytesWritten = logBytesWritten
        self.commitCalls = commitCalls
        self.logSyncs = logSyncs
    }
}

/// What opening a store found and mended.
public struct RecoveryReport: Hashable, Sendable {
    /// Frames of the log that were read again.
    public var replayedFrames: Int
    /// Records in them.
    public var replayedRecords: Int
    /// Bytes behind the last whole frame that a crash had left half written.
    public var tornBytes: Int
    /// Frames moved to the side file, with `onDamage: .quarantine`.
    public var quarantinedFrames: Int
}

/// What checking a store found; nothing was changed.
public struct VerifyReport: Hashable, Sendable {
    /// One finding.
    public struct Problem: Hashable, Sendable {
        /// The file, relative to the store.
        public var file: String
        /// The byte in it, where that is known.
        public var offset: Int?
        /// What is wrong.
        public var what: String
    }

    /// Frames of the log that are whole.
    public var frames: Int
    /// Records in them.
    public var records: Int
    /// Messages in LMDB whose checksums hold.
    public var messages: Int
    /// Bytes behind the last whole frame that a crash had left half written; harmless.
    public var tornBytes: Int
    /// What is damaged.
    public var problems: [Problem]

    /// Makes a report.
    public init(frames: Int, records: Int, messages: Int, tornBytes: Int, problems: [Problem]) {
        self.frames = frames
        self.records = records
        self.messages = messages
        self.tornBytes = tornBytes
        self.problems = problems
    }
}
