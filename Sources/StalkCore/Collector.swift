// The seam between business logic and every backend.

/// A source and sink of messages: a local queue, or a remote broker's queue behind the same calls.
///
/// One rule for attempts holds everywhere: the first delivery is attempt 1, and deliveries that ended in a crash count.
/// A collector starts asleep: ``Collector/wake()`` lets it deliver, publishing works at all times.
/// `StalkTesting` has a conformance suite that every collector runs against itself.
public protocol Collector: Sendable {
    /// The queue that this collector publishes to and takes from.
    var queue: QueueName { get }

    /// What the backend can do.
    var capabilities: CollectorCapabilities { get }

    /// Publishes messages and returns when each is safe, or refused.
    ///
    /// The call does not stop half-way when its task is cancelled, since a message may already be on its way.
    ///
    /// - Parameters:
    ///   - messages: Up to ``CollectorCapabilities/maxBatch`` messages, kept in this order.
    ///   - durability: What each must survive before the call returns.
    /// - Returns: For each message its id, or why it was refused. A refusal of one does not stop the others.
    /// - Throws: ``StalkError`` when the call as a whole failed and nothing is known to be stored.
    func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>]

    /// Takes ready messages under a lease; each delivery counts as an attempt and is recorded as one first.
    ///
    /// A sleeping collector delivers nothing: the call waits as if the queue were empty.
    ///
    /// - Parameter request: How many, how long to wait for the first, and how long the lease is.
    /// - Returns: Between one and `request.max` deliveries, or none when the wait is over.
    /// - Throws: `CancellationError` when the task is cancelled before anything was delivered; ``StalkError`` otherwise.
    func take(_ request: TakeRequest) async throws -> [Delivery]

    /// Ends deliveries.
    ///
    /// Acknowledging twice with the same receipt is harmless.
    ///
    /// - Parameters:
    ///   - completions: Up to ``CollectorCapabilities/maxBatch`` receipts with their dispositions.
    ///   - durability: What the outcome must survive before the call returns.
    /// - Returns: For each completion success, or why it was refused: ``StalkError/Code/staleReceipt`` means that the
    ///   message may come again.
    /// - Throws: ``StalkError`` when the call as a whole failed.
    func finish(_ completions: [Completion], durability: Durability) async throws -> [Result<Void, StalkError>]

    /// Extends leases, counted from now.
    ///
    /// - Parameters:
    ///   - receipts: The deliveries still worked on.
    ///   - lease: How long from now, up to ``CollectorCapabilities/maxLease``.
    /// - Returns: For each receipt success, or why it was refused.
    /// - Throws: ``StalkError`` with ``StalkError/Code/unsupported`` where the backend can't extend.
    func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>]

    /// Changes whether and how much the collector delivers, and reports its state.
    ///
    /// Every command is idempotent. Sleeping leaves running deliveries alone; scaling never wakes a sleeper.
    ///
    /// - Parameter command: What to change.
    /// - Returns: The state after the change.
    /// - Throws: ``StalkError`` with ``StalkError/Code/invalidArgument`` for a negative scale.
    @discardableResult
    func control(_ command: CollectorCommand) async throws -> CollectorStatus
}

/// A change of how a collector delivers.
public enum CollectorCommand: Hashable, Sendable {
    /// Change nothing, only report.
    case report
    /// Deliver nothing more; running deliveries go on.
    case sleep
    /// Deliver.
    case wake
    /// Let at most this many deliveries be unfinished at a time; 0 lets what runs drain.
    case scale(Int)
}

/// How a collector delivers right now.
public struct CollectorStatus: Hashable, Sendable {
    /// Whether it sleeps.
    public var isAsleep: Bool
    /// The most deliveries that may be unfinished at a time; `nil` without a limit.
    public var maxInFlight: Int?
    /// The deliveries of this collector that are unfinished.
    public var inFlight: Int

    /// States how a collector delivers; collectors do this.
    public init(isAsleep: Bool, maxInFlight: Int?, inFlight: Int) {
        self.isAsleep = isAsleep
        self.maxInFlight = maxInFlight
        self.inFlight = inFlight
    }
}

/// What a caller of ``Collector/take(_:)`` asks for.
public struct TakeRequest: Hashable, Sendable {
    /// The most deliveries, at least 1.
    public var max: Int
    /// How long to wait for the first one; zero asks only for what is ready now.
    public var wait: Duration
    /// How long each delivery is leased, more than zero.
    public var lease: Duration

    /// Asks for up to `max` deliveries.
    ///
    /// - Parameters:
    ///   - max: The most deliveries, at least 1.
    ///   - wait: How long to wait for the first one.
    ///   - lease: How long each delivery is leased.
    public init(max: Int = 1, wait: Duration = .zero, lease: Duration = .seconds(30)) {
        self.max = max
        self.wait = wait
        self.lease = lease
    }

    /// Checks the request against what a collector can do.
    ///
    /// - Parameter capabilities: The limits of the collector.
    /// - Throws: ``StalkError`` with ``StalkError/Code/invalidArgument``, naming the value and its limit.
    public func validate(for capabilities: CollectorCapabilities) throws(StalkError) {
        guard self.max >= 1 else {
            throw StalkError(.invalidArgument, "Can't take \(self.max) messages: ask for at least 1.")
        }
        guard self.wait >= .zero else {
            throw StalkError(.invalidArgument, "Can't wait \(self.wait): a wait is zero or more.")
        }
        try Self.validate(lease: self.lease, for: capabilities)
    }

    /// Checks a lease against what a collector can do.
    ///
    /// - Parameters:
    ///   - lease: The lease.
    ///   - capabilities: The limits of the collector.
    /// - Throws: ``StalkError`` with ``StalkError/Code/invalidArgument``.
    public static func validate(lease: Duration, for capabilities: CollectorCapabilities) throws(StalkError) {
        guard lease > .zero else {
            throw StalkError(.invalidArgument, "A lease of \(lease) would be over at once: give more than zero.")
        }
        guard lease <= capabilities.maxLease else {
            throw StalkError(
                .invalidArgument,
                "The lease is \(lease.stalkText), the longest here is \(capabilities.maxLease.stalkText): "
                    + "take a shorter one and extend it."
            )
        }
    }
}

/// What a change survives once the call that made it has returned.
public enum Durability: Hashable, Sendable {
    /// The death of the process: the operating system has it.
    case written
    /// A power cut: the disk has it. A broker's acceptance counts as this.
    case synced
}

extension Collector {
    /// Publishes one message and returns its id once it is safe.
    ///
    /// - Parameters:
    ///   - message: The message.
    ///   - durability: What it must survive before the call returns.
    /// - Returns: Its id.
    /// - Throws: ``StalkError`` when it was refused or could not be stored.
    @discardableResult
    public func publish(_ message: Message, durability: Durability = .synced) async throws -> MessageID {
        try await self.publish([message], durability: durability)[0].get()
    }

    /// Publishes messages that are to survive a power cut.
    ///
    /// - Parameter messages: The messages, kept in this order.
    /// - Returns: For each its id, or why it was refused.
    /// - Throws: ``StalkError`` when the call as a whole failed.
    @discardableResult
    public func publish(_ messages: [Message]) async throws -> [Result<MessageID, StalkError>] {
        try await self.publish(messages, durability: .synced)
    }

    /// Ends one delivery.
    ///
    /// - Parameters:
    ///   - delivery: The delivery.
    ///   - disposition: How it ends.
    ///   - durability: What the outcome must survive before the call returns.
    /// - Throws: ``StalkError`` when it was refused.
    public func finish(
        _ delivery: Delivery,
        _ disposition: Disposition,
        durability: Durability = .synced
    ) async throws {
        try await self.finish([Completion(delivery.receipt, disposition)], durability: durability)[0].get()
    }

    /// Ends deliveries with outcomes that are to survive a power cut.
    ///
    /// - Parameter completions: The receipts with their dispositions.
    /// - Returns: For each success, or why it was refused.
    /// - Throws: ``StalkError`` when the call as a whole failed.
    @discardableResult
    public func finish(_ completions: [Completion]) async throws -> [Result<Void, StalkError>] {
        try await self.finish(completions, durability: .synced)
    }

    /// Acknowledges one delivery: the message is done.
    ///
    /// - Parameter delivery: The delivery.
    /// - Throws: ``StalkError`` when it was refused.
    public func acknowledge(_ delivery: Delivery) async throws {
        try await self.finish(delivery, .acknowledge)
    }

    /// Extends one lease, counted from now.
    ///
    /// - Parameters:
    ///   - delivery: The delivery still worked on.
    ///   - lease: How long from now.
    /// - Throws: ``StalkError`` when it was refused.
    public func extend(_ delivery: Delivery, lease: Duration) async throws {
        try await self.extend([delivery.receipt], lease: lease)[0].get()
    }

    /// Stops delivering; running deliveries go on.
    ///
    /// - Returns: The state after the change.
    /// - Throws: ``StalkError`` when the backend can't be told.
    @discardableResult
    public func sleep() async throws -> CollectorStatus { try await self.control(.sleep) }

    /// Starts delivering.
    ///
    /// - Returns: The state after the change.
    /// - Throws: ``StalkError`` when the backend can't be told.
    @discardableResult
    public func wake() async throws -> CollectorStatus { try await self.control(.wake) }

    /// Lets at most this many deliveries be unfinished at a time; never wakes a sleeper.
    ///
    /// - Parameter maxInFlight: The limit; 0 lets what runs drain.
    /// - Returns: The state after the change.
    /// - Throws: ``StalkError`` for a negative number.
    @discardableResult
    public func scale(to maxInFlight: Int) async throws -> CollectorStatus {
        try await self.control(.scale(maxInFlight))
    }

    /// How the collector delivers right now.
    ///
    /// - Throws: ``StalkError`` when the backend can't be asked.
    public var status: CollectorStatus { get async throws { try await self.control(.report) } }
}
