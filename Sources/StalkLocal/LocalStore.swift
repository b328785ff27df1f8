// One directory on disk holding many queues.

public import StalkCore

/// A durable store of queues in one directory, owned by this process while it is open.
public final class LocalStore: Sendable {
    static let stubCapabilities = CollectorCapabilities(
        maxBodyBytes: 0, maxDelay: .zero, maxLease: .zero, maxBatch: 0, ordering: .firstInFirstOut,
        leaseExtension: true, atomicPublish: true, uncountedRelease: true, durableDelay: true)

    /// Opens the store in a directory, recovering from whatever a crash left there.
    public static func open(at path: String, options: LocalStoreOptions = .init()) async throws -> LocalStore {
        throw StalkError(.unsupported, "not built yet")
    }

    /// What opening found and mended.
    public var recovery: RecoveryReport {
        RecoveryReport(replayedFrames: 0, replayedRecords: 0, tornBytes: 0, quarantinedFrames: 0)
    }

    /// A collector on a queue, which starts asleep; the queue is made by its first publish.
    public func queue(_ name: QueueName, options: LocalQueueOptions = .init()) throws -> LocalQueue {
        LocalQueue(queue: name)
    }

    /// A collector on a queue, which starts asleep; the queue is made by its first publish.
    public func queue(_ name: String, options: LocalQueueOptions = .init()) throws -> LocalQueue {
        try self.queue(QueueName(name), options: options)
    }

    /// Whether the store holds the queue.
    public func hasQueue(_ name: QueueName) -> Bool { false }

    /// The figures of the store and its queues.
    public func stats() async throws -> StoreStats { throw StalkError(.unsupported, "not built yet") }

    /// The messages of a queue in one state, first in line first, without taking them.
    ///
    /// Throws noSuchQueue.
    public func peek(_ queue: QueueName, state: MessageState = .ready, max: Int = 10) async throws -> [StoredMessage] {
        throw StalkError(.unsupported, "not built yet")
    }

    /// One message. Throws noSuchMessage.
    public func message(_ id: MessageID) async throws -> StoredMessage {
        throw StalkError(.unsupported, "not built yet")
    }

    /// Sends dead messages of a queue (and, when it is a named error queue, messages that died elsewhere) back to the
    /// queue where they died, ready, attempts from zero, history kept.
    ///
    /// - Parameters:
    ///   - queue: The queue.
    ///   - max: The most to send back; nil for all.
    ///   - progress: called now and then with the number done so far.
    /// - Returns: How many went back.
    public func redrive(
        _ queue: QueueName,
        max: Int? = nil,
        progress: (@Sendable (Int) -> Void)? = nil
    ) async throws -> Int {
        throw StalkError(.unsupported, "not built yet")
    }

    /// Returns once everything published or finished so far survives a power cut.
    public func sync() async throws {}

    /// Moves what gathered in the log into LMDB.
    public func checkpoint() async throws {}

    /// Ends all waiting calls, writes a checkpoint and gives the store up. Closing twice is harmless.
    public func close() async throws {}

    /// Checks every checksum of the log and of LMDB in a store that nobody has open; changes nothing.
    ///
    /// - Parameters:
    ///   - path: The store's directory
    ///   - progress: called now and then with (bytes checked, bytes in all).
    public static func verify(
        at path: String,
        progress: (@Sendable (Int, Int) -> Void)? = nil
    ) async throws -> VerifyReport {
        throw StalkError(.unsupported, "not built yet")
    }
}
