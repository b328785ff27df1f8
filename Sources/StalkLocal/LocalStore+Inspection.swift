// Looking into a store, and sending back what failed.

public import StalkCore

extension LocalStore {
    /// The figures of the store and its queues.
    ///
    /// - Throws: ``StalkError`` when LMDB can't be read.
    public func stats() async throws -> StoreStats {
        guard case .stats(let stats) = try await self.carryOut(.stats) else { throw StalkError.unexpectedReply }
        return stats
    }

    /// The messages of a queue in one state, first in line first, without taking them.
    ///
    /// - Parameters:
    ///   - queue: The queue.
    ///   - state: The state.
    ///   - max: The most messages.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchQueue``.
    public func peek(
        _ queue: QueueName,
        state: MessageState = .ready,
        max: Int = 10
    ) async throws -> [StoredMessage] {
        try await self.messages(.peek(queue, state, max: max))
    }

    /// One message, wherever it stands.
    ///
    /// - Parameter id: The message.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchMessage``.
    public func message(_ id: MessageID) async throws -> StoredMessage {
        guard let message = try await self.messages(.message(id)).first else { throw StalkError.noSuchMessage(id) }
        return message
    }

    /// Sends what failed for good back to where it failed: ready, attempts counted from zero, history kept.
    ///
    /// Dead messages of the queue go back into it; of a named error queue, ready messages go back to their queues.
    ///
    /// - Parameters:
    ///   - queue: The queue, or the named error queue.
    ///   - max: The most messages; `nil` for all.
    ///   - progress: Called now and then with the number done so far.
    /// - Returns: How many went back; that survives a power cut. When another process owned the store and went meanwhile,
    ///   those that the next owner sent back.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchQueue``.
    public func redrive(
        _ queue: QueueName,
        max: Int? = nil,
        progress: (@Sendable (Int) -> Void)? = nil
    ) async throws -> Int {
        try await self.count(.redrive(queue, max: max), progress: progress)
    }

    /// How many messages ``redrive(_:max:progress:)`` would send back.
    ///
    /// - Parameter queue: The queue, or the named error queue.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchQueue``.
    public func countRedrivable(_ queue: QueueName) async throws -> Int {
        try await self.count(.countRedrivable(queue))
    }
}
