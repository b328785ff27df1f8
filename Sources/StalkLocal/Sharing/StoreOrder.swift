// What one asks of a store besides publishing and taking, in a form that can be sent to the process that owns it.

internal import StalkCore

/// One call to a store.
enum StoreOrder: Hashable, Sendable {
    case hasQueue(QueueName)
    case stats
    case peek(QueueName, MessageState, max: Int)
    case message(MessageID)
    case redrive(QueueName, max: Int?)
    case countRedrivable(QueueName)
    case kick(MessageID)
    case kickQueue(QueueName, max: Int?)
    case move(MessageID, to: QueueName)
    case delete(MessageID)
    case purge(QueueName, Set<MessageState>, max: Int?)
    case setPaused(Bool, QueueName)
    case sync
    case checkpoint
    case compact
    case backup(path: String)
}

/// What came of it.
enum StoreReply: Sendable {
    case done
    /// How many were changed, or whether there is one.
    case count(Int)
    case stats(StoreStats)
    case messages([StoredMessage])
    case compaction(CompactionReport)
    case backup(BackupReport)
}

/// Called now and then with the number done so far.
typealias StoreProgress = @Sendable (Int) -> Void
