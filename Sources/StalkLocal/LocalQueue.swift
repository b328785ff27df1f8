// A queue of a local store, as a collector.

public import StalkCore
internal import StalkIndex
internal import Synchronization

/// How a ``LocalQueue`` behaves.
public struct LocalQueueOptions: Hashable, Sendable {
    /// A queue of the same store that takes what fails for good; `nil` keeps it in the queue itself, as dead.
    public var errorQueue: QueueName?
    /// What the record of an attempt survives before a delivery is handed out.
    public var takeDurability: Durability

    /// Makes the options.
    ///
    /// - Parameters:
    ///   - errorQueue: A queue of the same store that takes what fails for good.
    ///   - takeDurability: What the record of an attempt survives before a delivery is handed out.
    public init(errorQueue: QueueName? = nil, takeDurability: Durability = .synced) {
        self.errorQueue = errorQueue
        self.takeDurability = takeDurability
    }
}

/// A queue of a ``LocalStore``; starts asleep, like every collector.
///
/// Several collectors may work on one queue, each with its own sleep and scale. What a collector holds when it is let go
/// stays leased until the lease ends.
public final class LocalQueue: Collector {
    /// The queue that it publishes to and takes from.
    public let queue: QueueName
    /// How it behaves.
    public let options: LocalQueueOptions

    private let store: LocalStore
    private let id: UInt64

    init(queue: QueueName, options: LocalQueueOptions, store: LocalStore) {
        self.queue = queue
        self.options = options
        self.store = store
        self.id = store.core.look { $0.addCollector(of: queue) }
    }

    deinit {
        let id = self.id
        self.store.core.look { $0.removeCollector(id) }
    }

    /// The store's limits; leases, delays and retries survive whatever the store survives.
    public var capabilities: CollectorCapabilities {
        CollectorCapabilities(
            maxBodyBytes: self.store.core.options.maxBodyBytes,
            maxDelay: Message.maxDelay,
            maxLease: .seconds(7 * 86_400),
            maxBatch: 10_000,
            ordering: .firstInFirstOut,
            leaseExtension: true,
            atomicPublish: true,
            uncountedRelease: true,
            durableDelay: true
        )
    }

    /// Publishes messages; see ``Collector/publish(_:durability:)``.
    public func publish(
        _ messages: [Message],
        durability: Durability
    ) async throws -> [Result<MessageID, StalkError>] {
        guard !messages.isEmpty else { return [] }
        let capabilities = self.capabilities
        try capabilities.validate(batch: messages.count)
        let results = messages.map { message -> Result<MessageID, StalkError>? in
            do throws(StalkError) {
                try message.validate(for: capabilities)
                return nil
            } catch {
                return .failure(error)
            }
        }
        let core = self.store.core
        return try await withCheckedThrowingContinuation { continuation in
            let call = PendingPublish(
                queue: self.queue,
                messages: messages,
                publishedAt: core.wall,
                results: results,
                durability: durability
            ) { outcome in continuation.resume(with: outcome) }
            core.step { engine, now in engine.publish(call, now: now) }
        }
    }

    /// Takes ready messages under a lease; see ``Collector/take(_:)``.
    public func take(_ request: TakeRequest) async throws -> [Delivery] {
        let capabilities = self.capabilities
        try request.validate(for: capabilities)
        try Task.checkCancellation()
        let core = self.store.core
        let id = core.look { $0.makeID() }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let taker = Taker(
                    id: id,
                    collector: self.id,
                    max: min(request.max, capabilities.maxBatch),
                    lease: request.lease,
                    durability: self.options.takeDurability,
                    isImmediate: request.wait == .zero
                ) { outcome in continuation.resume(with: outcome) }
                core.step { engine, now in engine.take(taker, from: self.queue, wait: request.wait, now: now) }
                // Cancelled before the taker was there: the handler found nobody to send away.
                if Task.isCancelled { self.cancelTaker(id) }
            }
        } onCancel: {
            self.cancelTaker(id)
        }
    }

    private func cancelTaker(_ id: UInt64) {
        self.store.core.step { engine, _ in engine.cancelTaker(id, of: self.queue, with: CancellationError()) }
    }

    /// Ends deliveries, each outcome as one atomic record; see ``Collector/finish(_:durability:)``.
    public func finish(
        _ completions: [Completion],
        durability: Durability
    ) async throws -> [Result<Void, StalkError>] {
        guard !completions.isEmpty else { return [] }
        let capabilities = self.capabilities
        try capabilities.validate(batch: completions.count)
        let refusals = completions.map { $0.refusal(for: capabilities) }
        let accepted = zip(completions, refusals).filter { $0.1 == nil }.map(\.0)
        let core = self.store.core
        let outcomes: [FinishOutcome] = try await withCheckedThrowingContinuation { continuation in
            core.step { engine, now in
                engine.finish(
                    accepted,
                    of: self.queue,
                    as: self.options,
                    durability,
                    now: now,
                    wall: core.wall
                ) { outcome in
                    continuation.resume(with: outcome)
                }
            }
        }
        var rest = zip(accepted, try await self.resolve(outcomes, of: accepted)).makeIterator()
        return refusals.map { refusal in
            if let refusal { return .failure(refusal) }
            return rest.next()?.1 ?? .success(())
        }
    }

    /// Extends leases; see ``Collector/extend(_:lease:)``.
    public func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        let capabilities = self.capabilities
        try capabilities.validate(batch: receipts.count)
        try TakeRequest.validate(lease: lease, for: capabilities)
        let outcomes = try self.store.core.step { engine, now in
            engine.extend(receipts, of: self.queue, lease: lease, now: now)
        }.get()
        return outcomes.map { outcome in
            switch outcome {
            case .done: .success(())
            case .refused(let error): .failure(error)
            case .notInMemory(let sequence): .failure(.staleReceipt(MessageID(sequence: sequence)))
            }
        }
    }

    /// Asks LMDB about messages that memory does not know: acknowledging one that is gone is harmless.
    private func resolve(
        _ outcomes: [FinishOutcome],
        of completions: [Completion]
    ) async throws -> [Result<Void, StalkError>] {
        var results: [Result<Void, StalkError>] = []
        results.reserveCapacity(outcomes.count)
        for (outcome, completion) in zip(outcomes, completions) {
            switch outcome {
            case .done: results.append(.success(()))
            case .refused(let error): results.append(.failure(error))
            case .notInMemory(let sequence):
                let isGone = try await self.store.inspector.isGone(sequence)
                let isHarmless = isGone && completion.disposition == .acknowledge
                results.append(isHarmless ? .success(()) : .failure(.staleReceipt(MessageID(sequence: sequence))))
            }
        }
        return results
    }

    /// Changes how the collector delivers; see ``Collector/control(_:)``.
    @discardableResult
    public func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        if case .scale(let most) = command, most < 0 {
            throw StalkError(.invalidArgument, "Can't scale to \(most): give 0 (drain) or more.")
        }
        return self.store.core.step { engine, now in engine.control(command, of: self.id, now: now) }
    }

    /// Returns once the queue holds nothing ready, delayed or leased; dead messages don't count.
    ///
    /// - Throws: `CancellationError` when the task is cancelled first; ``StalkError`` when the store is closed or failed.
    public func drained() async throws {
        let core = self.store.core
        let id = core.look { $0.makeID() }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                core.step { engine, _ in
                    engine.waitUntilDrained(self.queue, id: id) { outcome in continuation.resume(with: outcome) }
                }
                if Task.isCancelled { self.cancelDrainWait(id) }
            }
        } onCancel: {
            self.cancelDrainWait(id)
        }
    }

    private func cancelDrainWait(_ id: UInt64) {
        self.store.core.step { engine, _ in engine.cancelDrainWait(id, of: self.queue) }
    }
}

extension Completion {
    /// Why a disposition can't be carried out, found before anything is written.
    fileprivate func refusal(for capabilities: CollectorCapabilities) -> StalkError? {
        do throws(StalkError) {
            switch self.disposition {
            case .acknowledge, .release, .deadLetter: break
            case .retry(let delay, _): try Message.validate(delay: delay, largest: capabilities.maxRetryDelay)
            case .acknowledgeAndPublish(let messages):
                for outgoing in messages { try outgoing.message.validate(for: capabilities) }
            }
            return nil
        } catch {
            return error
        }
    }
}

extension CollectorCapabilities {
    fileprivate func validate(batch count: Int) throws(StalkError) {
        guard count <= self.maxBatch else {
            throw StalkError(
                .invalidArgument,
                "The call has \(count) items, at most \(self.maxBatch) go into one: split it. Nothing was done."
            )
        }
    }
}
