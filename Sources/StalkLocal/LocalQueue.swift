// A queue of a local store, as a collector.

public import StalkCore

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
        self.id = store.access.addCollector(of: queue)
    }

    deinit {
        self.store.access.removeCollector(self.id)
    }

    /// The store's limits; leases, delays and retries survive whatever the store survives.
    public var capabilities: CollectorCapabilities { .local(maxBodyBytes: self.store.options.maxBodyBytes) }

    /// Publishes messages; see ``Collector/publish(_:durability:)``.
    public func publish(
        _ messages: [Message],
        durability: Durability
    ) async throws -> [Result<MessageID, StalkError>] {
        guard !messages.isEmpty else { return [] }
        try self.capabilities.validate(batch: messages.count)
        let access = self.store.access
        var origin: CallOrigin?
        defer { if let origin { access.book.noteAnswered(origin) } }
        return try await access.perform { service, _ in
            // Named once, so that the next owner knows the call again.
            if service.isRemote, origin == nil { origin = access.book.nextOrigin() }
            let call = PublishCall(queue: self.queue, messages: messages, durability: durability, origin: origin)
            return try await service.publish(call)
        }
    }

    /// Takes ready messages under a lease; see ``Collector/take(_:)``.
    public func take(_ request: TakeRequest) async throws -> [Delivery] {
        let capabilities = self.capabilities
        try request.validate(for: capabilities)
        try Task.checkCancellation()
        let clock = ContinuousClock()
        // What lies beyond the end of time never comes.
        let end = request.wait < .seconds(1 << 32) ? clock.now.advanced(by: request.wait) : nil
        return try await self.store.access.perform { service, isRepeated in
            try Task.checkCancellation()
            var request = request
            request.max = min(request.max, capabilities.maxBatch)
            if isRepeated, let end { request.wait = max(.zero, clock.now.duration(to: end)) }
            return try await service.take(request, by: self.id, from: self.queue, self.options.takeDurability)
        }
    }

    /// Ends deliveries, each outcome as one atomic record; see ``Collector/finish(_:durability:)``.
    public func finish(
        _ completions: [Completion],
        durability: Durability
    ) async throws -> [Result<Void, StalkError>] {
        guard !completions.isEmpty else { return [] }
        try self.capabilities.validate(batch: completions.count)
        let access = self.store.access
        return try await access.perform { service, isRepeated in
            // What the last owner carried out before it went is done.
            let isDone = completions.map { isRepeated && access.book.wasEnded($0.receipt) }
            let call = FinishCall(
                queue: self.queue,
                errorQueue: self.options.errorQueue,
                completions: zip(completions, isDone).filter { !$0.1 }.map(\.0),
                durability: durability
            )
            guard !call.completions.isEmpty else { return completions.map { _ in .success(()) } }
            var outcomes = try await service.finish(call).makeIterator()
            return isDone.map { $0 ? .success(()) : outcomes.next() ?? .success(()) }
        }
    }

    /// Extends leases; see ``Collector/extend(_:lease:)``.
    public func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        let capabilities = self.capabilities
        try capabilities.validate(batch: receipts.count)
        try TakeRequest.validate(lease: lease, for: capabilities)
        return try await self.store.access.perform { service, _ in
            try await service.extend(receipts, of: self.queue, lease: lease)
        }
    }

    /// Changes how a collector delivers; see ``Collector/control(_:)``.
    @discardableResult
    public func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        if case .scale(let most) = command, most < 0 {
            throw StalkError(.invalidArgument, "Can't scale to \(most): give 0 (drain) or more.")
        }
        let access = self.store.access
        let status = try await access.perform { service, _ in try await service.control(command, of: self.id) }
        access.book.note(status, of: self.id)
        return status
    }

    /// Returns once the queue holds nothing ready, delayed or leased; dead messages don't count.
    ///
    /// - Throws: `CancellationError` when the task is cancelled first; ``StalkError`` when the store is closed or failed.
    public func drained() async throws {
        try await self.store.access.perform { service, _ in try await service.drained(self.queue) }
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
