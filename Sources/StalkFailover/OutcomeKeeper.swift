// Outcomes of deliveries while the remote is away: kept in the store, sent when it is back, recognised when a message
// comes again.

internal import StalkCore
internal import StalkLocal

/// Keeps what became of deliveries until the remote knows.
///
/// An outcome that the remote did not take is a message of the queue `QUEUE.outcomes`, and a ``Forwarder`` of its own
/// moves it. What was sent too late, after the lease was over, is remembered in `QUEUE.done`: its message comes again,
/// and is finished the same way without a handler.
final class OutcomeKeeper: Sendable {
    private struct State {
        /// The ids of deliveries that are out, oldest first.
        var ids: [Receipt: String] = [:]
        var order: [Receipt] = []
        var start = 0
        var recognised = 0
    }

    /// How many deliveries are known by their receipts; what is older was abandoned long ago.
    private static let mostReceipts = 100_000

    let queue: QueueName
    private let primary: any Collector
    private let spool: LocalStore
    private let kept: LocalQueue
    private let done: RememberedIDs
    private let forwarder: Forwarder
    private let wallTime: @Sendable () -> Timestamp
    private let state = Locked(State())

    init(
        primary: any Collector,
        spool: LocalStore,
        _ options: FailoverOptions,
        clock: ElapsedClock,
        wallTime: @escaping @Sendable () -> Timestamp
    ) throws(StalkError) {
        self.queue = try QueueName("\(primary.queue).outcomes")
        self.primary = primary
        self.spool = spool
        self.kept = spool.queue(self.queue)
        self.done = RememberedIDs(
            store: spool,
            queue: try QueueName("\(primary.queue).done"),
            window: options.rememberOutcomes,
            wallTime: wallTime
        )
        self.wallTime = wallTime
        var forwarding = ForwardingOptions()
        forwarding.failuresToOpen = 1
        forwarding.minBackoff = options.forwarding.minBackoff
        forwarding.maxBackoff = options.forwarding.maxBackoff
        forwarding.sendsDeduplicationID = false
        self.forwarder = Forwarder(
            from: self.kept,
            to: OutcomeSink(primary: primary, queue: self.queue, done: self.done, wallTime: wallTime),
            options: forwarding,
            attemptsAreSends: true,
            clock: clock,
            wallTime: wallTime
        ) { _ in }
    }

    /// How many deliveries were finished by their ids.
    var recognised: Int { self.state.withLock { $0.recognised } }

    /// Reads what an earlier process kept.
    func load() async throws {
        try await self.done.load()
        try await self.kept.wake()
        guard try await self.spool.hasQueue(self.queue) else { return }
        let waiting = try await self.spool.peek(self.queue, state: .ready, max: .max)
        self.done.remember(
            waiting.compactMap { message in
                message.headers[FailoverHeader.id].map { ($0, Outcome(message.headers)) }
            }
        )
    }

    /// Sends what is kept, until ``stop()``.
    func drive() async { await self.forwarder.drive() }

    func stop() { self.forwarder.stop() }

    // MARK: Deliveries

    /// Finishes those that are done already or whose retry is not due, and gives the others to their takers.
    func recognise(_ deliveries: [Delivery]) async -> [Delivery] {
        var known: [Completion] = []
        var fresh: [Delivery] = []
        for delivery in deliveries {
            if let disposition = self.done.held(delivery.id.rawValue) {
                known.append(Completion(delivery.receipt, disposition))
            } else {
                fresh.append(delivery)
            }
        }
        self.note(fresh)
        guard !known.isEmpty else { return fresh }
        // What the remote does not hear now comes once more, and is recognised again.
        _ = try? await self.primary.finishAll(known)
        self.state.withLock { $0.recognised += known.count }
        return fresh
    }

    private func note(_ deliveries: [Delivery]) {
        self.state.withLock { state in
            for delivery in deliveries {
                state.ids[delivery.receipt] = delivery.id.rawValue
                state.order.append(delivery.receipt)
            }
            while state.order.count - state.start > Self.mostReceipts {
                state.ids[state.order[state.start]] = nil
                state.start += 1
            }
            // Those that were finished stand here too: the front is cut off when it is most of all.
            while state.start < state.order.count, state.ids[state.order[state.start]] == nil { state.start += 1 }
            if state.start > 1024, state.start > state.order.count / 2 {
                state.order.removeFirst(state.start)
                state.start = 0
            }
        }
    }

    // MARK: Outcomes

    func finish(_ completions: [Completion], durability: Durability) async throws -> [Result<Void, StalkError>] {
        let refused = completions.indices.filter { index in
            if case .acknowledgeAndPublish = completions[index].disposition { true } else { false }
        }
        guard refused.isEmpty else {
            let rest = completions.indices.filter { !refused.contains($0) }
            var outcomes = try await self.finish(rest.map { completions[$0] }, durability: durability)[...]
            let error = StalkError(
                .unsupported,
                "A failover collector can't acknowledge and publish in one step: publish first, then acknowledge."
            )
            return completions.indices.map { refused.contains($0) ? .failure(error) : outcomes.removeFirst() }
        }
        var results = try await self.ask(completions, durability)
        var late: [Int] = []
        for index in completions.indices {
            guard case .failure(let error) = results[index], error.isWorthWaiting,
                completions[index].disposition.isKept
            else { continue }
            if let refusal = completions[index].refusal(by: self.primary.capabilities) {
                results[index] = .failure(refusal)
            } else {
                late.append(index)
            }
        }
        let outcomes = try await self.keep(late.map { completions[$0] }, durability)
        for (index, outcome) in zip(late, outcomes) { results[index] = outcome }
        self.state.withLock { state in
            for (completion, result) in zip(completions, results) where (try? result.get()) != nil {
                state.ids[completion.receipt] = nil
            }
        }
        return results
    }

    /// Asks the remote, unless it is known to be away.
    private func ask(_ completions: [Completion], _ durability: Durability) async throws -> [Result<Void, StalkError>] {
        if self.forwarder.breaker != .closed, completions.allSatisfy({ $0.disposition.isKept }) {
            let away = StalkError(.unavailable, "The remote is away.")
            return completions.map { _ in .failure(away) }
        }
        do {
            return try await self.primary.finish(completions, durability: durability)
        } catch let error as StalkError where error.isWorthWaiting && error.code != .storageFull {
            return completions.map { _ in .failure(error) }
        }
    }

    private func keep(_ completions: [Completion], _ durability: Durability) async throws -> [Result<Void, StalkError>]
    {
        guard !completions.isEmpty else { return [] }
        let ids = self.state.withLock { state in completions.map { state.ids[$0.receipt] } }
        let wall = self.wallTime()
        let outcomes = zip(completions, ids).map { completion, id in
            (
                id: id ?? completion.receipt.description,
                outcome: Outcome(completion.disposition, at: wall) ?? .acknowledge
            )
        }
        let messages = zip(completions, outcomes).map { completion, kept in
            var headers = kept.outcome.headers(kept.id)
            headers[OutcomeSink.receipt] = completion.receipt.description
            return Message([], headers: headers)
        }
        // Known first: the message may come again before this returns.
        self.done.remember(outcomes)
        return try await self.kept.publish(messages, durability: durability).map { $0.map { _ in } }
    }
}

extension Completion {
    /// Why the remote would not take it; `nil` where it would.
    fileprivate func refusal(by capabilities: CollectorCapabilities) -> StalkError? {
        guard case .retry(let delay, _) = self.disposition else { return nil }
        do throws(StalkError) {
            try Message.validate(delay: delay, largest: capabilities.maxRetryDelay)
            return nil
        } catch {
            return error
        }
    }
}

extension Disposition {
    /// Whether it can be told to the remote later, about a message that has come again.
    fileprivate var isKept: Bool {
        switch self {
        case .acknowledge, .deadLetter, .retry: true
        case .release, .acknowledgeAndPublish: false
        }
    }
}

/// Where kept outcomes go: each message published here finishes a delivery of the remote.
struct OutcomeSink: Collector {
    let primary: any Collector
    let queue: QueueName
    let done: RememberedIDs
    let wallTime: @Sendable () -> Timestamp

    /// In the store alone: the delivery that ended.
    static let receipt = "Stalk-Receipt"

    var capabilities: CollectorCapabilities { self.primary.capabilities }

    func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>] {
        let wall = self.wallTime()
        let completions = messages.map { message in
            let receipt = Receipt(message.headers[Self.receipt] ?? "")
            return Completion(receipt, Outcome(message.headers).disposition(at: wall))
        }
        let results = try await self.primary.finish(completions, durability: durability)
        // Also one that was taken may come again, since its lease may have been over.
        let answered = results.map { result in
            switch result {
            case .success: true
            case .failure(let error): [.staleReceipt, .foreignReceipt, .noSuchMessage].contains(error.code)
            }
        }
        try await self.done.keep(
            zip(messages, answered).filter { $0.1 }.map { message, _ in
                (message.headers[FailoverHeader.id] ?? "", Outcome(message.headers))
            }
        )
        return zip(results, answered).map { result, isAnswered in
            if isAnswered { return .success(MessageID("")) }
            return result.map { _ in MessageID("") }
        }
    }

    func take(_ request: TakeRequest) async throws -> [Delivery] { throw self.onlyPublishes() }

    func finish(_ completions: [Completion], durability: Durability) async throws -> [Result<Void, StalkError>] {
        throw self.onlyPublishes()
    }

    func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        throw self.onlyPublishes()
    }

    func control(_ command: CollectorCommand) async throws -> CollectorStatus { throw self.onlyPublishes() }

    private func onlyPublishes() -> StalkError {
        StalkError(.unsupported, "Outcomes can only be sent.")
    }
}
