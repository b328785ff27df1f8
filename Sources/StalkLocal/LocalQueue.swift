// A queue of a local store, as a collector.

public import StalkCore

/// How a ``LocalQueue`` behaves.
public struct LocalQueueOptions: Hashable, Sendable {
    /// A queue of the same store that takes what fails for good; `nil` keeps it in the queue itself, as dead.
    public var errorQueue: QueueName?
    /// What the record of an attempt survives before a delivery is handed out.
    public var takeDurability: Durability

    /// Makes the options.
    public init(errorQueue: QueueName? = nil, takeDurability: Durability = .synced) {
        self.errorQueue = errorQueue
        self.takeDurability = takeDurability
    }
}

/// A queue of a ``LocalStore``. Starts asleep.
public final class LocalQueue: Collector {
    public let queue: QueueName

    init(queue: QueueName) {
        self.queue = queue
    }

    public var capabilities: CollectorCapabilities { LocalStore.stubCapabilities }

    public func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>] {
        throw StalkError(.unsupported, "not built yet")
    }

    public func take(_ request: TakeRequest) async throws -> [Delivery] {
        throw StalkError(.unsupported, "not built yet")
    }

    public func finish(
        _ completions: [Completion],
        durability: Durability
    ) async throws -> [Result<Void, StalkError>] {
        throw StalkError(.unsupported, "not built yet")
    }

    public func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        throw StalkError(.unsupported, "not built yet")
    }

    public func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        throw StalkError(.unsupported, "not built yet")
    }

    /// Returns once the queue holds nothing ready, delayed or leased, or throws `CancellationError`.
    public func drained() async throws {
        throw StalkError(.unsupported, "not built yet")
    }
}
