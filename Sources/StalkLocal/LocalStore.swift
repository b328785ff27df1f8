// One directory on disk holding many queues.

public import StalkCore

/// A durable store of queues in one directory.
///
/// Everything that was acknowledged with ``Durability/synced`` survives the death of the process and a power cut. Opening
/// recovers from whatever a crash left behind. What each call promises is in `docs/durability.md`.
///
/// Several processes of a machine may open the same store: the first one owns it and serves the others, and when it goes,
/// one of them takes its place. Calls that are under way then are carried out once all the same. See `docs/sharing.md`.
///
/// ```swift
/// let store = try await LocalStore.open(at: "/var/lib/app/queues")
/// let mail = try store.queue("mail")
/// try await mail.publish(Message("hello"))
/// ```
public final class LocalStore: Sendable {
    /// Where the store is.
    public let path: String
    /// What opening found and mended; nothing when another process owns the store.
    public let recovery: RecoveryReport

    let options: LocalStoreOptions
    let access: StoreAccess

    private init(_ opening: StoreOpening, _ access: StoreAccess, _ recovery: RecoveryReport) {
        self.path = opening.path
        self.options = opening.options
        self.access = access
        self.recovery = recovery
    }

    /// Opens the store in a directory, recovering from whatever a crash left there.
    ///
    /// - Parameters:
    ///   - path: The directory.
    ///   - options: How to open it. When another process owns the store, its options count.
    /// - Throws: ``StalkError``: ``StalkError/Code/storeBusy`` when another process owns it and does not serve others, or
    ///   does not answer, ``StalkError/Code/notAStore``, ``StalkError/Code/noSuchStore``, ``StalkError/Code/newerFormat``,
    ///   ``StalkError/Code/storeDamaged``, ``StalkError/Code/networkFileSystem``,
    ///   ``StalkError/Code/permissionDenied``, ``StalkError/Code/pathTooLong`` or ``StalkError/Code/storageFull``;
    ///   ``StalkError/Code/unsupported`` when the owner's version and this one can't talk.
    public static func open(at path: String, options: LocalStoreOptions = .init()) async throws -> LocalStore {
        try await Self.open(StoreOpening(path: path, options: options))
    }

    /// Opens a store as an opening says.
    static func open(_ opening: StoreOpening) async throws -> LocalStore {
        let (access, recovery) = try await onOwnThread("stalk-open") { () throws(StalkError) in
            try StoreAccess.open(opening)
        }
        return LocalStore(opening, access, recovery)
    }

    /// A collector on a queue, which starts asleep; the queue is made by its first publish.
    ///
    /// - Parameters:
    ///   - name: The queue.
    ///   - options: How the collector behaves.
    public func queue(_ name: QueueName, options: LocalQueueOptions = .init()) -> LocalQueue {
        LocalQueue(queue: name, options: options, store: self)
    }

    /// A collector on a queue, which starts asleep; the queue is made by its first publish.
    ///
    /// - Parameters:
    ///   - name: The queue.
    ///   - options: How the collector behaves.
    /// - Throws: ``StalkError`` with ``StalkError/Code/invalidQueueName``, naming the byte that is not allowed.
    public func queue(_ name: String, options: LocalQueueOptions = .init()) throws -> LocalQueue {
        self.queue(try QueueName(name), options: options)
    }

    /// Whether the store holds the queue.
    ///
    /// - Parameter name: The queue.
    /// - Throws: ``StalkError`` when the store is closed, or its owner does not answer.
    public func hasQueue(_ name: QueueName) async throws -> Bool { try await self.count(.hasQueue(name)) > 0 }

    /// Lets nothing be taken from a queue until it is resumed, also after a restart.
    ///
    /// Every collector of the queue waits as if it were empty. Publishing goes on, and what runs can be finished.
    /// Pausing twice is harmless.
    ///
    /// - Parameter queue: The queue.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchQueue``; another when the pause holds but is not on the disk.
    public func pause(_ queue: QueueName) async throws { try await self.carryOut(.setPaused(true, queue)) }

    /// Lets messages be taken from a queue again; resuming twice is harmless.
    ///
    /// - Parameter queue: The queue.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchQueue``; another when it is resumed but that is not on the disk.
    public func resume(_ queue: QueueName) async throws { try await self.carryOut(.setPaused(false, queue)) }

    /// Returns once everything published or finished so far survives a power cut.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/storageFailed`` when the disk failed.
    public func sync() async throws { try await self.carryOut(.sync) }

    /// Moves what gathered in the log into LMDB; this happens by itself, and calling it is never needed for safety.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/storageFull`` or ``StalkError/Code/storageFailed``.
    public func checkpoint() async throws { try await self.carryOut(.checkpoint) }

    /// Ends all waiting calls and gives the store up; closing twice is harmless.
    ///
    /// What this process took and did not finish comes again. The owner of the store writes a checkpoint first.
    ///
    /// - Throws: ``StalkError`` when the last checkpoint failed; nothing is lost then either, since the log has it all.
    public func close() async throws { try await self.access.close() }

    // MARK: Orders

    /// Has the owner of the store do something.
    @discardableResult
    func carryOut(_ order: StoreOrder, progress: StoreProgress? = nil) async throws -> StoreReply {
        try await self.access.perform { service, _ in try await service.carryOut(order, progress: progress) }
    }

    /// Has the owner of the store do something that is counted.
    func count(_ order: StoreOrder, progress: StoreProgress? = nil) async throws -> Int {
        guard case .count(let count) = try await self.carryOut(order, progress: progress) else {
            throw StalkError.unexpectedReply
        }
        return count
    }

    /// Has the owner of the store show messages.
    func messages(_ order: StoreOrder) async throws -> [StoredMessage] {
        guard case .messages(let messages) = try await self.carryOut(order) else { throw StalkError.unexpectedReply }
        return messages
    }
}

extension StalkError {
    static var unexpectedReply: StalkError {
        StalkError(
            .unsupported,
            "The owner of the store answers something else than was asked: use the same version of Stalk in both processes."
        )
    }
}
