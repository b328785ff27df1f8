// The seam between the calls of a store and the process that owns it.

internal import StalkCore

/// What a collector of a store is told, so that another owner can be told the same.
struct CollectorRecord: Hashable, Sendable {
    var queue: QueueName
    var isAsleep = true
    var maxInFlight: Int?
}

/// Messages to publish.
struct PublishCall: Sendable {
    var queue: QueueName
    var messages: [Message]
    var durability: Durability
    /// What names the call to owners to come; `nil` while no other process owns the store.
    var origin: CallOrigin?
}

/// Deliveries to end.
struct FinishCall: Sendable {
    var queue: QueueName
    var errorQueue: QueueName?
    var completions: [Completion]
    var durability: Durability
}

/// A store, owned by this process or by another.
///
/// A call that could not be carried out since the owner went throws ``OwnerGone``: it is to be repeated at the next owner.
protocol StoreService: AnyObject, Sendable {
    /// Whether another process owns the store, so that calls may have to be repeated.
    var isRemote: Bool { get }

    /// Makes a collector known under a number of the caller's own.
    func addCollector(_ number: UInt64, _ record: CollectorRecord)
    /// Forgets a collector; what it holds stays leased.
    func removeCollector(_ number: UInt64)

    func publish(_ call: PublishCall) async throws -> [Result<MessageID, StalkError>]
    func take(
        _ request: TakeRequest,
        by collector: UInt64,
        from queue: QueueName,
        _ durability: Durability
    ) async throws -> [Delivery]
    func finish(_ call: FinishCall) async throws -> [Result<Void, StalkError>]
    func extend(_ receipts: [Receipt], of queue: QueueName, lease: Duration) async throws -> [Result<Void, StalkError>]
    func control(_ command: CollectorCommand, of collector: UInt64) async throws -> CollectorStatus
    func drained(_ queue: QueueName) async throws
    func carryOut(_ order: StoreOrder, progress: StoreProgress?) async throws -> StoreReply
}

/// The process that owned the store has gone, or gave it up.
struct OwnerGone: Error {}
