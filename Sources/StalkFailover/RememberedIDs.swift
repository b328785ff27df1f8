// Messages that are done, remembered in a local store for a while: a process that comes after knows them too.

public import StalkCore
public import StalkLocal
internal import Synchronization

/// The ids of messages that are done, with how they ended, durable for a window of time.
///
/// Each id is a message of a queue of its own, delayed by the window: when its time has come, it is forgotten. All that
/// are remembered are in memory too, about 200 bytes each.
public final class RememberedIDs: Sendable {
    private let queue: LocalQueue
    private let store: LocalStore
    private let window: Duration
    private let known = Locked<[String: Disposition]>([:])

    /// Makes the memory; ``load()`` fills it.
    ///
    /// - Parameters:
    ///   - store: Where ids are kept.
    ///   - queue: A queue of it that nobody else uses.
    ///   - window: How long an id is remembered.
    public init(store: LocalStore, queue: QueueName, window: Duration) {
        self.store = store
        self.queue = store.queue(queue)
        self.window = window
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
        self.known.withLock { known in
            for message in stored {
                guard let id = message.headers[FailoverHeader.id] else { continue }
                known[id] = OutcomeCoding.disposition(message.headers)
            }
        }
    }

    /// How a message ended; `nil` for one that is not remembered.
    ///
    /// - Parameter id: The message.
    public func disposition(of id: String) -> Disposition? {
        self.known.withLock { $0[id] }
    }

    /// Remembers messages; returns when that survives a power cut.
    ///
    /// - Parameter outcomes: The messages' ids, and how they ended: acknowledged or dead-lettered.
    /// - Throws: ``StalkCore/StalkError`` when it can't be stored.
    public func insert(_ outcomes: [(id: String, disposition: Disposition)]) async throws {
        try await self.forget()
        let messages = outcomes.map { outcome in
            Message([], headers: OutcomeCoding.headers(outcome.id, outcome.disposition), delay: self.window)
        }
        for part in messages.parts(of: self.queue.capabilities.maxBatch) {
            for result in try await self.queue.publish(part, durability: .synced) { _ = try result.get() }
        }
        self.remember(outcomes)
    }

    /// Remembers messages in this process alone.
    func remember(_ outcomes: [(id: String, disposition: Disposition)]) {
        self.known.withLock { known in
            for outcome in outcomes { known[outcome.id] = outcome.disposition }
        }
    }

    /// Lets go of those whose window is over.
    private func forget() async throws {
        let over = try await self.queue.take(TakeRequest(max: 1000))
        guard !over.isEmpty else { return }
        self.known.withLock { known in
            for delivery in over { delivery.headers[FailoverHeader.id].map { known[$0] = nil } }
        }
        _ = try await self.queue.finishAll(over.map { Completion($0.receipt, .acknowledge) })
    }
}

/// Outcomes in the form of headers.
enum OutcomeCoding {
    private static let kind = "Stalk-Outcome"
    private static let reason = "Stalk-Reason"
    static let receipt = "Stalk-Receipt"

    static func headers(_ id: String, _ disposition: Disposition) -> Headers {
        var headers: Headers = [FailoverHeader.id: id]
        if case .deadLetter(let reason) = disposition {
            headers[self.kind] = "dead-letter"
            // Bounded, since headers are.
            headers[self.reason] = String(reason.prefix(8000))
        } else {
            headers[self.kind] = "acknowledge"
        }
        return headers
    }

    static func disposition(_ headers: Headers) -> Disposition {
        guard headers[self.kind] == "dead-letter" else { return .acknowledge }
        return .deadLetter(reason: headers[self.reason] ?? "")
    }
}
