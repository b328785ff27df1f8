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
    public func kick(_ id: MessageID) async throws -> Bool { try await self.change(.kick, id) }

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
        let number = try self.inspector.number(of: queue)
        // A message that fails and is delayed again meanwhile is not kicked for ever.
        let delayed = self.core.look { $0.queues[number].delayed }
        return try await self.change(.kick, number, [.delayed], max: min(delayed, max ?? .max), progress)
    }

    /// Moves a message to the end of another queue: ready, attempts counted from zero, history kept.
    ///
    /// - Parameters:
    ///   - id: The message.
    ///   - queue: The queue, which is made when there is none.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchMessage``, or with ``StalkError/Code/messageLeased`` while
    ///   somebody works on it. When it returns, the move survives a power cut.
    public func move(_ id: MessageID, to queue: QueueName) async throws {
        _ = try await self.change(.move(to: queue), id)
    }

    /// Deletes a message: it is never delivered again.
    ///
    /// - Parameter id: The message.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchMessage``, or with ``StalkError/Code/messageLeased`` while
    ///   somebody works on it. When it returns, the message stays away after a power cut too.
    public func delete(_ id: MessageID) async throws {
        _ = try await self.change(.delete, id)
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
        let number = try self.inspector.number(of: queue)
        return try await self.change(.delete, number, states, max: max ?? .max, progress)
    }

    private func change(_ change: MessageChange, _ id: MessageID) async throws -> Bool {
        let changes = MessageChanges(core: self.core, change: change)
        let isChanged = try await onOwnThread("stalk-change") { () throws(StalkError) in try changes.one(id) }
        if isChanged { try await self.sync() }
        return isChanged
    }

    private func change(
        _ change: MessageChange,
        _ number: UInt32,
        _ states: Set<MessageState>,
        max: Int,
        _ progress: (@Sendable (Int) -> Void)?
    ) async throws -> Int {
        let changes = MessageChanges(core: self.core, change: change)
        let end = self.core.look { $0.meta.nextSequence }
        let selection = MessageChanges.Selection(queue: number, states: states, end: end)
        var total = 0
        var bytes = 0
        for isDead in [false, true] where !states.isDisjoint(with: isDead ? [.dead] : [.ready, .delayed]) {
            var place: MessageChanges.Place? = MessageChanges.Place(isDead: isDead)
            while let from = place, total < max {
                let limit = min(512, max - total)
                let part = try await onOwnThread("stalk-change") { () throws(StalkError) in
                    try changes.step(selection, from: from, limit: limit)
                }
                total += part.count
                bytes += change == .delete ? 0 : part.bytes
                place = part.next
                progress?(total)
                if bytes > 32 << 20 || self.core.look({ $0.dirtyCount > $0.limits.dirtyMessagesMax / 2 }) {
                    try await self.checkpoint()
                    bytes = 0
                }
            }
        }
        try await self.sync()
        return total
    }
}
