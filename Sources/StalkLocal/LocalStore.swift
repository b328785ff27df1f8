// One directory on disk holding many queues.

public import StalkCore
internal import StalkFiles
internal import StalkIndex
internal import StalkPlatform
internal import Synchronization

/// A durable store of queues in one directory, owned by this process while it is open.
///
/// Everything that was acknowledged with ``Durability/synced`` survives the death of the process and a power cut. Opening
/// recovers from whatever a crash left behind. What each call promises is in `docs/durability.md`.
///
/// ```swift
/// let store = try await LocalStore.open(at: "/var/lib/app/queues")
/// let mail = try store.queue("mail")
/// try await mail.publish(Message("hello"))
/// ```
public final class LocalStore: Sendable {
    /// Where the store is.
    public let path: String
    /// What opening found and mended.
    public let recovery: RecoveryReport

    let core: StoreCore
    let inspector: StoreInspector
    private let threads: StoreThreads
    private let lock: Locked<DirectoryLock?>

    private init(path: String, _ opened: StoreOpening.Opened) {
        self.path = path
        self.recovery = opened.report
        self.core = opened.core
        self.inspector = StoreInspector(core: opened.core)
        self.threads = opened.threads
        self.lock = Locked(opened.lock)
    }

    deinit {
        // A store that is let go without close() loses nothing: its threads end, and the log says the rest.
        self.core.stop()
    }

    /// Opens the store in a directory, recovering from whatever a crash left there.
    ///
    /// - Parameters:
    ///   - path: The directory.
    ///   - options: How to open it.
    /// - Throws: ``StalkError``: ``StalkError/Code/storeBusy`` when another process owns it,
    ///   ``StalkError/Code/notAStore``, ``StalkError/Code/noSuchStore``, ``StalkError/Code/newerFormat``,
    ///   ``StalkError/Code/storeDamaged``, ``StalkError/Code/networkFileSystem``,
    ///   ``StalkError/Code/permissionDenied``, ``StalkError/Code/pathTooLong`` or ``StalkError/Code/storageFull``.
    public static func open(at path: String, options: LocalStoreOptions = .init()) async throws -> LocalStore {
        try await Self.open(StoreOpening(path: path, options: options))
    }

    /// Opens a store as an opening says.
    static func open(_ opening: StoreOpening) async throws -> LocalStore {
        let opened = try await onOwnThread("stalk-open") { () throws(StalkError) in try opening.run() }
        return LocalStore(path: opening.path, opened)
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
    public func hasQueue(_ name: QueueName) -> Bool {
        self.core.look { $0.queueNumbers[name] != nil }
    }

    /// Lets nothing be taken from a queue until it is resumed, also after a restart.
    ///
    /// Every collector of the queue waits as if it were empty. Publishing goes on, and what runs can be finished.
    /// Pausing twice is harmless.
    ///
    /// - Parameter queue: The queue.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchQueue``; another when the pause holds but is not on the disk.
    public func pause(_ queue: QueueName) async throws { try await self.setPaused(true, queue) }

    /// Lets messages be taken from a queue again; resuming twice is harmless.
    ///
    /// - Parameter queue: The queue.
    /// - Throws: ``StalkError`` with ``StalkError/Code/noSuchQueue``; another when it is resumed but that is not on the disk.
    public func resume(_ queue: QueueName) async throws { try await self.setPaused(false, queue) }

    private func setPaused(_ isPaused: Bool, _ queue: QueueName) async throws {
        let number = try self.inspector.number(of: queue)
        self.core.step { engine, now in engine.setPaused(isPaused, queue: number, now: now) }
        // No record of the log says it: earlier versions could not read one. LMDB is told at once instead.
        try await self.checkpoint()
    }

    /// Returns once everything published or finished so far survives a power cut.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/storageFailed`` when the disk failed.
    public func sync() async throws {
        try await withCheckedThrowingContinuation { continuation in
            self.core.step { engine, _ in
                engine.waitForSync { outcome in continuation.resume(with: outcome) }
            }
        }
    }

    /// Moves what gathered in the log into LMDB; this happens by itself, and calling it is never needed for safety.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/storageFull`` or ``StalkError/Code/storageFailed``.
    public func checkpoint() async throws {
        try await withCheckedThrowingContinuation { continuation in
            self.core.step { engine, _ in
                engine.requestCheckpoint { outcome in continuation.resume(with: outcome) }
            }
        }
    }

    /// Ends all waiting calls, writes a checkpoint and gives the store up; closing twice is harmless.
    ///
    /// Leases are over with the owner: what was taken and not finished comes again.
    ///
    /// - Throws: ``StalkError`` when the last checkpoint failed; nothing is lost then either, since the log has it all.
    public func close() async throws {
        let isOpen = self.lock.withLock { $0 != nil }
        guard isOpen else { return }
        let failed: StalkError? = await {
            do {
                self.core.step { engine, _ in engine.endWaits(with: .storeClosed) }
                try await self.sync()
                try await self.checkpoint()
                return nil
            } catch {
                return error as? StalkError
            }
        }()
        self.core.step { engine, _ in engine.fail(.storeClosed) }
        await self.giveUp()
        // On a full disk the last checkpoint waits for the next opening: the log has it all.
        if let failed, failed.code != .closed, failed.code != .storageFull { throw failed }
    }

    /// Ends the threads, closes LMDB and gives the lock back.
    func giveUp() async {
        _ = try? await onOwnThread("stalk-close") { () throws(StalkError) in
            self.threads.stop()
            self.core.tables.bodies.finishTraining()
            self.core.tables.index.close()
            self.lock.withLock { $0 = nil }
        }
    }
}

extension StalkError {
    static var storeClosed: StalkError {
        StalkError(.closed, "The store was closed: open it again.")
    }
}
