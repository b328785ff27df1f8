// Changing messages by hand: by their ids, and whole queues.

public import StalkCore

extension LocalStore {
    /// Lets a message be tried again now.
    ///
    /// A delayed one is ready at once, its attempts and its history kept. One that failed for good goes back to where it
    /// failed, as with ``redrive(_:max:progress:)``.
    ///
    /// - Parameter id: The message.
    /// - Returns: Whether anything changed, which survives a power cut then; `false` for what is ready anyway.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchMessage``, or with ``StalkError/Code/messageLeased`` while
    ///   somebody works on it.
    @discardableResult
    public func kick(_ id: MessageID) async throws -> Bool { try await self.count(.kick(id)) > 0 }

    /// Makes the delayed messages of a queue ready at once, first in line first; attempts and history stay.
    ///
    /// - Parameters:
    ///   - queue: The queue.
    ///   - max: The most messages; `nil` for all.
    ///   - progress: Called now and then with the number done so far.
    /// - Returns: How many; that survives a power cut.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchQueue``.
    public func kick(
        _ queue: QueueName,
        max: Int? = nil,
        progress: (@Sendable (Int) -> Void)? = nil
    ) async throws -> Int {
        try await self.count(.kickQueue(queue, max: max), progress: progress)
    }

    /// Moves a message to the end of another queue: ready, attempts counted from zero, history kept.
    ///
    /// - Parameters:
    ///   - id: The message.
    ///   - queue: The queue, which is made when there is none.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchMessage``, or with ``StalkError/Code/messageLeased`` while
    ///   somebody works on it. When it returns, the move survives a power cut.
    public func move(_ id: MessageID, to queue: QueueName) async throws {
        _ = try await self.count(.move(id, to: queue))
    }

    /// Deletes a message: it is never delivered again.
    ///
    /// - Parameter id: The message.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchMessage``, or with ``StalkError/Code/messageLeased`` while
    ///   somebody works on it. When it returns, the message stays away after a power cut too.
    public func delete(_ id: MessageID) async throws {
        _ = try await self.count(.delete(id))
    }

    /// Deletes the messages of a queue that are there now; what somebody works on stays.
    ///
    /// - Parameters:
    ///   - queue: The queue; it remains, with its settings.
    ///   - states: Which messages.
    ///   - max: The most messages; `nil` for all.
    ///   - progress: Called now and then with the number done so far.
    /// - Returns: How many; they stay away after a power cut too.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchQueue``, or ``StalkError/Code/invalidArgument`` for leased ones.
    public func purge(
        _ queue: QueueName,
        states: Set<MessageState> = [.ready, .delayed, .dead],
        max: Int? = nil,
        progress: (@Sendable (Int) -> Void)? = nil
    ) async throws -> Int {
        guard !states.contains(.leased) else {
            throw StalkError(.invalidArgument, "What somebody works on can't be purged: finish it, or wait for it.")
        }
        return try await self.count(.purge(queue, states, max: max), progress: progress)
    }
}
