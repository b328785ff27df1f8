// Looking into a store, and sending back what failed.

internal import Glibc
public import StalkCore
internal import StalkFiles

extension LocalStore {
    /// The figures of the store and its queues.
    ///
    /// - Throws: ``StalkError`` when LMDB can't be read.
    public func stats() async throws -> StoreStats {
        try await self.inspector.stats(owner: getpid())
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
        try await self.inspector.peek(queue, state: state, max: max)
    }

    /// One message, wherever it stands.
    ///
    /// - Parameter id: The message.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchMessage``.
    public func message(_ id: MessageID) async throws -> StoredMessage {
        try await self.inspector.message(id)
    }

    /// Sends what failed for good back to where it failed: ready, attempts counted from zero, history kept.
    ///
    /// Dead messages of the queue go back into it; of a named error queue, ready messages go back to their queues.
    ///
    /// - Parameters:
    ///   - queue: The queue, or the named error queue.
    ///   - max: The most messages; `nil` for all.
    ///   - progress: Called now and then with the number done so far.
    /// - Returns: How many went back; that survives a power cut.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchQueue``.
    public func redrive(
        _ queue: QueueName,
        max: Int? = nil,
        progress: (@Sendable (Int) -> Void)? = nil
    ) async throws -> Int {
        let redrive = Redrive(core: self.core, queue: try self.inspector.number(of: queue), max: max ?? .max)
        var total = 0
        for pass in Redrive.Pass.allCases {
            var start: RedriveStart? = .first(pass)
            while let from = start, total < redrive.max {
                let limit = min(512, redrive.max - total)
                let (count, next) = try await onOwnThread("stalk-redrive") { () throws(StalkError) in
                    try redrive.step(from, limit: limit)
                }
                total += count
                start = next
                progress?(total)
                if self.core.look({ $0.dirtyCount > $0.limits.dirtyMessagesMax / 2 }) {
                    try await self.checkpoint()
                }
            }
        }
        try await self.sync()
        return total
    }
}

extension LocalStore {
    /// How many messages ``redrive(_:max:progress:)`` would send back.
    ///
    /// - Parameter queue: The queue, or the named error queue.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchQueue``.
    public func countRedrivable(_ queue: QueueName) async throws -> Int {
        let redrive = Redrive(core: self.core, queue: try self.inspector.number(of: queue), max: .max)
        return try await onOwnThread("stalk-look") { () throws(StalkError) in try redrive.count() }
    }
}
