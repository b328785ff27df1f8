// Messages that are done, remembered in a local store for a while: a process that comes after knows them too.

public import StalkCore
public import StalkLocal
internal import StalkPlatform

/// The ids of messages that are done, with how they ended, durable for a window of time.
///
/// Each id is a message of a queue of its own, delayed by the window: when its time has come, it is forgotten. All that
/// are remembered are in memory too, about 200 bytes each.
public final class RememberedIDs: Sendable {
    private let queue: LocalQueue
    private let store: LocalStore
    private let window: Duration
    private let wallTime: @Sendable () -> Timestamp
    private let known = Locked<[String: Outcome]>([:])

    /// Makes the memory; ``load()`` fills it.
    ///
    /// - Parameters:
    ///   - store: Where ids are kept.
    ///   - queue: A queue of it that nobody else uses.
    ///   - window: How long an id is remembered.
    public convenience init(store: LocalStore, queue: QueueName, window: Duration) {
        self.init(store: store, queue: queue, window: window) { SystemStoreClock().wallTime() }
    }

    init(store: LocalStore, queue: QueueName, window: Duration, wallTime: @escaping @Sendable () -> Timestamp) {
        self.store = store
        self.queue = store.queue(queue)
        self.window = window
        self.wallTime = wallTime
    }

    /// How many ids are remembered.
    public var count: Int { self.known.withLock { $0.count } }

    /// Reads what an earlier process remembered.
    ///
    /// - Throws: ``StalkCore/StalkError`` of the store.
    public func load() async throws {
        try await self.queue.wake()
        guard try await self.store.hasQueue(self.queue.queue) else { return }
        let stored = try await self.store.peek(self.queue.queue, state: .delayed, max: .max)
        self.remember(
            stored.compactMap { message in
                message.headers[FailoverHeader.id].map { (id: $0, outcome: Outcome(message.headers)) }
            }
        )
    }

    /// How a message ended; `nil` for one that is not remembered.
    ///
    /// - Parameter id: The message.
    public func disposition(of id: String) -> Disposition? {
        guard let outcome = self.known.withLock({ $0[id] }), outcome.isFinal else { return nil }
        return outcome.disposition(at: self.wallTime())
    }

    /// What to tell the remote of a message that has come again; `nil` when it is for a handler.
    func held(_ id: String) -> Disposition? {
        let wall = self.wallTime()
        guard let outcome = self.known.withLock({ $0[id] }), outcome.holds(at: wall) else { return nil }
        return outcome.disposition(at: wall)
    }

    /// Remembers messages; returns when that survives a power cut.
    ///
    /// - Parameter outcomes: The messages' ids, and how they ended: acknowledged or dead-lettered.
    /// - Throws: ``StalkCore/StalkError`` when it can't be stored.
    public func insert(_ outcomes: [(id: String, disposition: Disposition)]) async throws {
        let wall = self.wallTime()
        try await self.keep(outcomes.map { ($0.id, Outcome($0.disposition, at: wall) ?? .acknowledge) })
    }

    /// Remembers outcomes, a retry until its time has come.
    func keep(_ outcomes: [(id: String, outcome: Outcome)]) async throws {
        try await self.forget()
        let wall = self.wallTime()
        let messages = outcomes.map { id, outcome in
            let rest = if case .retry(let due, _) = outcome { due.remaining(at: wall) } else { self.window }
            return Message([], headers: outcome.headers(id), delay: rest)
        }
        for part in messages.parts(of: self.queue.capabilities.maxBatch) {
            for result in try await self.queue.publish(part, durability: .synced) { _ = try result.get() }
        }
        self.remember(outcomes)
    }

    /// Remembers messages in this process alone.
    func remember(_ outcomes: [(id: String, outcome: Outcome)]) {
        self.known.withLock { known in
            // What is done stays done, whatever is read or comes after it of another delivery.
            for (id, outcome) in outcomes where outcome.isFinal || known[id]?.isFinal != true { known[id] = outcome }
        }
    }

    /// Lets go of those whose window is over.
    private func forget() async throws {
        let over = try await self.queue.take(TakeRequest(max: 1000))
        guard !over.isEmpty else { return }
        self.known.withLock { known in
            for delivery in over {
                // Not what was remembered of the same message since.
                guard let id = delivery.headers[FailoverHeader.id], known[id] == Outcome(delivery.headers)
                else { continue }
                known[id] = nil
            }
        }
        _ = try await self.queue.finishAll(over.map { Completion($0.receipt, .acknowledge) })
    }
}
