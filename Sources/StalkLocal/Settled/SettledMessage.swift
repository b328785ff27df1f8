// What LMDB keeps of a message: the words that the engine and the tables share.

internal import StalkCore

/// Where a message stands among the others of its queue: the smaller leaves first.
struct OrderKey: Hashable, Comparable, Sendable {
    /// Smaller leaves first.
    var priority: UInt8
    /// When the message became or becomes ready, by the store's clock, in milliseconds.
    var dueAt: Int64
    /// The message's number: publish order among those that became ready in the same millisecond.
    var sequence: UInt64

    static var first: OrderKey { OrderKey(priority: 0, dueAt: .min, sequence: 0) }

    static func < (left: OrderKey, right: OrderKey) -> Bool {
        if left.priority != right.priority { return left.priority < right.priority }
        if left.dueAt != right.dueAt { return left.dueAt < right.dueAt }
        return left.sequence < right.sequence
    }

    /// The key that comes right behind this one.
    var successor: OrderKey {
        OrderKey(priority: self.priority, dueAt: self.dueAt, sequence: self.sequence + 1)
    }

    /// Where the message stands in the schedule.
    var scheduleKey: ScheduleKey { ScheduleKey(dueAt: self.dueAt, sequence: self.sequence) }
}

/// Where a delayed message stands among all that wait for their time.
struct ScheduleKey: Hashable, Comparable, Sendable {
    /// When it is due, by the store's clock, in milliseconds.
    var dueAt: Int64
    var sequence: UInt64

    static var first: ScheduleKey { ScheduleKey(dueAt: .min, sequence: 0) }

    static func < (left: ScheduleKey, right: ScheduleKey) -> Bool {
        left.dueAt != right.dueAt ? left.dueAt < right.dueAt : left.sequence < right.sequence
    }
}

/// The part of a message that changes.
struct MessageStanding: Hashable, Sendable {
    /// The number of the queue that it is in.
    var queue: UInt32
    var key: OrderKey
    /// Whether it waits for its due time in the schedule, or did so when it was settled.
    var isScheduled: Bool
    /// Whether it failed for good.
    var isDead = false
    var attempts: UInt32 = 0
    /// The number of the last lease, until it is known how that delivery ended; 0 for none.
    ///
    /// Whoever holds it can go on at another owner of the store.
    var lease: UInt64 = 0
    /// The queue where it failed for good before it was moved here; 0 for none.
    var diedIn: UInt32 = 0
    /// The last failures, oldest first.
    var failures: [FailureRecord] = []
}

/// Where LMDB holds a message.
struct SettledPlace: Hashable, Sendable {
    var queue: UInt32
    var key: OrderKey
    var isScheduled: Bool
    var isDead: Bool
}

extension MessageStanding {
    /// Where LMDB holds a message that stands like this.
    var place: SettledPlace {
        SettledPlace(queue: self.queue, key: self.key, isScheduled: self.isScheduled, isDead: self.isDead)
    }
}

/// One failed attempt.
struct FailureRecord: Hashable, Sendable {
    /// How many are kept of one message.
    static var maxKept: Int { 8 }
    /// How much of a reason is kept, in bytes.
    static var maxReasonBytes: Int { 1024 }

    var attempt: UInt32
    /// When, by the wall clock, in milliseconds.
    var at: Int64
    var reason: String
}

/// The part of a message that never changes.
final class MessageContent: Sendable {
    /// When it was published, by the wall clock, in milliseconds.
    let publishedAt: Int64
    let headers: Headers
    /// Room for a group key, a deduplication key and an expiry.
    let extensions: [UInt8]
    let body: [UInt8]

    /// The content of a message that is done.
    static let none = MessageContent(publishedAt: 0, headers: [:], extensions: [], body: [])

    /// The size of body and headers, in bytes.
    var byteCount: Int { self.body.count + (self.headers.isEmpty ? 0 : self.headers.byteCount) }

    init(publishedAt: Int64, headers: Headers, extensions: [UInt8], body: [UInt8]) {
        self.publishedAt = publishedAt
        self.headers = headers
        self.extensions = extensions
        self.body = body
    }
}

/// A message as LMDB holds it, whole.
struct SettledMessage: Sendable {
    var standing: MessageStanding
    var content: MessageContent
}

/// What a checkpoint changes about one message.
///
/// An object, since tens of thousands of them go through several lists.
final class SettleChange: Sendable {
    let sequence: UInt64
    /// Where LMDB holds it now; `nil` when it does not know the message.
    let before: SettledPlace?
    /// What LMDB is to hold; `nil` when the message is gone.
    let after: MessageStanding?
    /// What to store with a message that LMDB does not know yet.
    let content: MessageContent?

    init(sequence: UInt64, before: SettledPlace?, after: MessageStanding?, content: MessageContent?) {
        self.sequence = sequence
        self.before = before
        self.after = after
        self.content = content
    }
}

/// A queue as LMDB holds it.
struct SettledQueue: Hashable, Sendable {
    var number: UInt32
    var name: QueueName
    var ready = 0
    var delayed = 0
    var dead = 0
    /// The size of its bodies as published.
    var bytes = 0
    /// Whether nothing is taken from it until it is resumed.
    var isPaused = false
}

/// What LMDB knows of the store as a whole.
struct StoreMeta: Hashable, Sendable {
    static var formatVersion: UInt32 { 1 }

    var store: UInt64
    /// The last frame of the log whose outcome is in LMDB.
    var settledFrame: UInt64
    var nextSequence: UInt64
    var nextQueue: UInt32
    /// How often the store was opened.
    var epoch: UInt32
    /// Up to where the schedule was released.
    var releasedThrough: ScheduleKey
    /// The store's clock at the checkpoint, in milliseconds.
    var storeTime: Int64
    /// The boot of the machine that `clockOffset` belongs to.
    var bootID: String
    /// The store's clock less the time since boot, in nanoseconds.
    var clockOffset: Int64
    /// The number of the next lease; the log does not say it of each.
    var nextLease: UInt64 = 1
    /// The calls of other processes that may be repeated.
    var calls = PublishCalls()

    init(store: UInt64) {
        self.store = store
        self.settledFrame = 0
        self.nextSequence = 1
        self.nextQueue = 1
        self.epoch = 0
        self.releasedThrough = .first
        self.storeTime = .min
        self.bootID = ""
        self.clockOffset = 0
    }
}

/// Everything that one checkpoint changes, in one transaction.
struct SettleBatch: Sendable {
    var meta: StoreMeta
    var changes: [SettleChange]
    var queues: [SettledQueue]
}
