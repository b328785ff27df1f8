// A store that this process owns.

internal import Glibc
internal import StalkCore
internal import StalkFiles
internal import StalkIndex
internal import StalkPlatform
internal import Synchronization

/// The engine, its threads and the lock on its directory.
final class OwnedStore: StoreService {
    let core: StoreCore
    let inspector: StoreInspector
    let report: RecoveryReport
    private let threads: StoreThreads
    private let lock: Locked<DirectoryLock?>
    /// The engine's numbers of the caller's collectors.
    private let collectors = Locked<[UInt64: UInt64]>([:])

    init(_ opened: StoreOpening.Opened) {
        self.core = opened.core
        self.inspector = StoreInspector(core: opened.core)
        self.report = opened.report
        self.threads = opened.threads
        self.lock = Locked(opened.lock)
    }

    var isRemote: Bool { false }

    /// What this store can do.
    var capabilities: CollectorCapabilities { .local(maxBodyBytes: self.core.options.maxBodyBytes) }

    // MARK: Collectors

    func addCollector(_ number: UInt64, _ record: CollectorRecord) {
        self.collectors.withLock { collectors in
            guard collectors[number] == nil else { return }
            collectors[number] = self.core.look { $0.addCollector(record) }
        }
    }

    func removeCollector(_ number: UInt64) {
        let id = self.collectors.withLock { $0.removeValue(forKey: number) }
        if let id { self.core.look { $0.removeCollector(id) } }
    }

    /// The engine's number of a collector; 0, which no collector has, for one that is not known.
    func engineNumber(of collector: UInt64) -> UInt64 { self.collectors.withLock { $0[collector] ?? 0 } }

    func control(_ command: CollectorCommand, of collector: UInt64) async throws -> CollectorStatus {
        let id = self.engineNumber(of: collector)
        return self.core.step { engine, now in engine.control(command, of: id, now: now) }
    }

    // MARK: Messages

    func publish(_ call: PublishCall) async throws -> [Result<MessageID, StalkError>] {
        try await withCheckedThrowingContinuation { continuation in
            self.publish(call) { outcome in continuation.resume(with: outcome) }
        }
    }

    /// Publishes messages; what breaks a limit is refused, the rest is stored.
    func publish(
        _ call: PublishCall,
        reply: @escaping @Sendable (Result<[Result<MessageID, StalkError>], StalkError>) -> Void
    ) {
        let capabilities = self.capabilities
        let results = call.messages.map { message -> Result<MessageID, StalkError>? in
            do throws(StalkError) {
                try message.validate(for: capabilities)
                return nil
            } catch {
                return .failure(error)
            }
        }
        let pending = PendingPublish(
            queue: call.queue,
            messages: call.messages,
            publishedAt: self.core.wall,
            results: results,
            origin: call.origin,
            durability: call.durability,
            reply: reply
        )
        self.core.step { engine, now in engine.publish(pending, now: now) }
    }

    func take(
        _ request: TakeRequest,
        by collector: UInt64,
        from queue: QueueName,
        _ durability: Durability
    ) async throws -> [Delivery] {
        let id = self.core.look { $0.makeID() }
        let holder = self.engineNumber(of: collector)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let taker = Taker(
                    id: id,
                    collector: holder,
                    max: request.max,
                    lease: request.lease,
                    durability: durability,
                    isImmediate: request.wait == .zero
                ) { outcome in continuation.resume(with: outcome) }
                self.core.step { engine, now in engine.take(taker, from: queue, wait: request.wait, now: now) }
                // Cancelled before the taker was there: the handler found nobody to send away.
                if Task.isCancelled { self.cancelTaker(id, of: queue) }
            }
        } onCancel: {
            self.cancelTaker(id, of: queue)
        }
    }

    func cancelTaker(_ id: UInt64, of queue: QueueName) {
        self.core.step { engine, _ in engine.cancelTaker(id, of: queue, with: CancellationError()) }
    }

    func finish(_ call: FinishCall) async throws -> [Result<Void, StalkError>] {
        try await withCheckedThrowingContinuation { continuation in
            self.finish(call) { outcome in continuation.resume(with: outcome) }
        }
    }

    /// Ends deliveries, each outcome as one atomic record.
    func finish(
        _ call: FinishCall,
        reply: @escaping @Sendable (Result<[Result<Void, StalkError>], any Error>) -> Void
    ) {
        let capabilities = self.capabilities
        let refusals = call.completions.map { $0.refusal(for: capabilities) }
        let accepted = zip(call.completions, refusals).filter { $0.1 == nil }.map(\.0)
        self.core.step { engine, now in
            engine.finish(
                accepted,
                of: call.queue,
                as: LocalQueueOptions(errorQueue: call.errorQueue),
                call.durability,
                now: now,
                wall: self.core.wall
            ) { outcome in
                switch outcome {
                case .failure(let error): reply(.failure(error))
                case .success(let outcomes):
                    self.resolve(outcomes, of: accepted) { resolved in
                        reply(resolved.map { Self.merge(refusals, $0) })
                    }
                }
            }
        }
    }

    private static func merge(
        _ refusals: [StalkError?],
        _ results: [Result<Void, StalkError>]
    ) -> [Result<Void, StalkError>] {
        var rest = results.makeIterator()
        return refusals.map { refusal in
            if let refusal { return .failure(refusal) }
            return rest.next() ?? .success(())
        }
    }

    /// Asks LMDB about messages that memory does not know: acknowledging one that is gone is harmless.
    private func resolve(
        _ outcomes: [FinishOutcome],
        of completions: [Completion],
        _ reply: @escaping @Sendable (Result<[Result<Void, StalkError>], any Error>) -> Void
    ) {
        guard outcomes.contains(where: \.isUnknown) else {
            return reply(.success(outcomes.map { $0.result { _ in false } }))
        }
        runOnOwnThread("stalk-look") { () throws(StalkError) in
            var results: [Result<Void, StalkError>] = []
            for (outcome, completion) in zip(outcomes, completions) {
                results.append(
                    try outcome.result { sequence throws(StalkError) in
                        try self.inspector.isGone(sequence) && completion.disposition == .acknowledge
                    }
                )
            }
            return results
        } reply: {
            reply($0)
        }
    }

    func extend(
        _ receipts: [Receipt],
        of queue: QueueName,
        lease: Duration
    ) async throws -> [Result<Void, StalkError>] {
        try self.extendNow(receipts, of: queue, lease: lease)
    }

    func extendNow(
        _ receipts: [Receipt],
        of queue: QueueName,
        lease: Duration
    ) throws(StalkError) -> [Result<Void, StalkError>] {
        let outcomes = try self.core.step { engine, now in
            engine.extend(receipts, of: queue, lease: lease, now: now)
        }.get()
        return outcomes.map { $0.result { _ in false } }
    }

    func drained(_ queue: QueueName) async throws {
        let id = self.core.look { $0.makeID() }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                self.core.step { engine, _ in
                    engine.waitUntilDrained(queue, id: id) { outcome in continuation.resume(with: outcome) }
                }
                if Task.isCancelled { self.cancelDrainWait(id, of: queue) }
            }
        } onCancel: {
            self.cancelDrainWait(id, of: queue)
        }
    }

    func cancelDrainWait(_ id: UInt64, of queue: QueueName) {
        self.core.step { engine, _ in engine.cancelDrainWait(id, of: queue) }
    }

    // MARK: The end

    /// Ends all waiting calls and writes a checkpoint.
    ///
    /// - Throws: ``StalkError`` when the last checkpoint failed; nothing is lost then either, since the log has it all.
    func finishWork() async throws {
        let failed: StalkError? = await {
            do {
                self.core.step { engine, _ in engine.endWaits(with: .storeClosed) }
                _ = try await self.carryOut(.sync, progress: nil)
                _ = try await self.carryOut(.checkpoint, progress: nil)
                return nil
            } catch {
                return error as? StalkError
            }
        }()
        self.core.step { engine, _ in engine.fail(.storeClosed) }
        // On a full disk the last checkpoint waits for the next opening: the log has it all.
        if let failed, failed.code != .closed, failed.code != .storageFull { throw failed }
    }

    /// Ends the threads, closes LMDB and gives the lock back.
    ///
    /// - Parameter last: Run when nothing of this owner touches the store any more, and before another can own it.
    func giveUp(last: @escaping @Sendable () -> Void = {}) async {
        _ = try? await onOwnThread("stalk-close") { () throws(StalkError) in self.giveUpNow(last: last) }
    }

    /// The same; blocks.
    func giveUpNow(last: () -> Void = {}) {
        self.threads.stop()
        self.core.tables.bodies.finishTraining()
        self.core.tables.index.close()
        last()
        self.lock.withLock { $0 = nil }
    }
}

extension FinishOutcome {
    fileprivate var isUnknown: Bool {
        if case .notInMemory = self { true } else { false }
    }

    /// What the caller is told.
    ///
    /// - Parameter isHarmless: Whether a message that memory does not know makes no difference.
    fileprivate func result<Failure: Error>(
        _ isHarmless: (UInt64) throws(Failure) -> Bool
    ) throws(Failure) -> Result<Void, StalkError> {
        switch self {
        case .done: .success(())
        case .refused(let error): .failure(error)
        case .notInMemory(let sequence):
            try isHarmless(sequence) ? .success(()) : .failure(.staleReceipt(MessageID(sequence: sequence)))
        }
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
    /// A local store's limits; leases, delays and retries survive whatever the store survives.
    static func local(maxBodyBytes: Int) -> CollectorCapabilities {
        CollectorCapabilities(
            maxBodyBytes: maxBodyBytes,
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
}

extension StalkError {
    static var storeClosed: StalkError {
        StalkError(.closed, "The store was closed: open it again.")
    }
}
