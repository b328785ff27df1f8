// Amazon SQS behind the collector protocol.

public import StalkCore
internal import Synchronization

/// A queue of Amazon SQS, or of a server that speaks its protocol.
///
/// - Messages are received by long polls, up to ``SQSConfiguration/prefetch`` ahead of being taken. What is held is kept
///   from others by extending its visibility; what was received ahead returns at once on sleep and on ``close()``.
/// - Sends, deletes and changes of visibility of concurrent callers share requests of ten.
/// - A retry changes the message's visibility, so it keeps its id and count. What fails for good is published to the
///   error queue, and deleted only when that succeeded.
/// - Attempts are SQS's own receive count.
public final class SQSCollector: Collector {
    /// What has passed through a collector.
    public struct Counters: Hashable, Sendable {
        /// Requests by operation, such as `ReceiveMessage`; retries included.
        public var requests: [String: Int]
        /// Messages that SQS accepted.
        public var sent: Int
        /// Messages that were received.
        public var received: Int
        /// Messages that were deleted.
        public var deleted: Int

        /// Requests for each message's way through: for sending, receiving and deleting one.
        public var requestsPerMessage: Double {
            let messages = max(self.sent, self.received, self.deleted)
            return messages == 0 ? 0 : Double(self.requests.values.reduce(0, +)) / Double(messages)
        }
    }

    struct State {
        var machine: IntakeStateMachine
        var takes: [Int: CheckedContinuation<[Delivery], any Error>] = [:]
        var polls: [Int: Task<Void, Never>] = [:]
        /// Changes of visibility that are under way.
        var changes: [Int: Task<Void, Never>] = [:]
        var nextTake = 0
        var nextChange = 0
        var alarm: (moment: Duration, task: Task<Void, Never>)?
        var sent = 0
        var received = 0
        var deleted = 0
        var isClosed = false
    }

    /// The queue's name.
    public let queue: QueueName
    /// What SQS can do.
    public let capabilities: CollectorCapabilities
    /// Whether there is a queue for what fails for good.
    public var hasErrorQueue: Bool { self.errorSender != nil }

    let calls: QueueCalls
    let clock: ElapsedClock
    let state: Locked<State>
    let sender: Batcher<EncodedMessage, Result<MessageID, StalkError>>
    let deleter: Batcher<String, Result<Void, StalkError>>
    let changer: Batcher<IntakeStateMachine.VisibilityChange, Result<Void, StalkError>>
    let errorSender: Batcher<EncodedMessage, Result<MessageID, StalkError>>?
    let errorCalls: QueueCalls?
    /// What makes this queue's receipts known from others'.
    private let receiptTag: String

    init(
        queue: QueueName,
        calls: QueueCalls,
        errorCalls: QueueCalls?,
        configuration: SQSConfiguration,
        clock: ElapsedClock
    ) {
        self.queue = queue
        self.calls = calls
        self.errorCalls = errorCalls
        self.clock = clock
        self.receiptTag = "sqs:\(fingerprint(calls.url)):"
        self.capabilities = CollectorCapabilities(
            maxBodyBytes: calls.limits.maxBodyBytes,
            maxDelay: calls.limits.isFIFO ? .zero : QueueLimits.maxDelay,
            maxRetryDelay: QueueLimits.maxVisibility,
            maxLease: QueueLimits.maxVisibility,
            maxBatch: 1000,
            ordering: .bestEffort,
            leaseExtension: true,
            atomicPublish: false,
            uncountedRelease: false,
            durableDelay: true
        )
        self.state = Locked(State(machine: IntakeStateMachine(prefetch: configuration.prefetch)))
        let linger = configuration.linger
        self.sender = Self.sender(calls, linger)
        self.errorSender = errorCalls.map { Self.sender($0, linger) }
        self.deleter = Batcher(linger: linger) { await calls.delete($0) }
        self.changer = Batcher(linger: linger) { await calls.change($0) }
    }

    private static func sender(
        _ calls: QueueCalls,
        _ linger: Duration
    ) -> Batcher<EncodedMessage, Result<MessageID, StalkError>> {
        // One batch at a time keeps the order of a FIFO queue, and so does what stays here behind one that failed.
        let isFIFO = calls.limits.isFIFO
        return Batcher(
            maxInFlight: isFIFO ? 1 : 32,
            linger: linger,
            size: { $0.byteCount },
            consequence: { isFIFO ? Self.consequence(of: $0) : nil },
            send: { await calls.send($0) }
        )
    }

    /// What becomes of messages behind one that failed, in the order of a FIFO queue.
    private static func consequence(of result: Result<MessageID, StalkError>) -> Result<MessageID, StalkError>? {
        guard case .failure(let error) = result else { return nil }
        switch error.code {
        case .bodyTooLarge, .delayOutOfRange, .invalidArgument, .unsupported:
            // Refused for what it is: no later try puts it in its place.
            return nil
        default:
            return .failure(
                StalkError(
                    .unavailable,
                    "Not sent, since an earlier message of the call failed and a FIFO queue keeps the order: "
                        + "publish again from there.",
                    cause: error
                )
            )
        }
    }

    /// How many takes wait.
    var waitingTakes: Int { self.state.withLock { $0.machine.waiters.count } }

    /// What has passed through so far.
    public var counters: Counters {
        let requests = self.calls.client.requests.map { ($0.key.rawValue, $0.value) }
        return self.state.withLock { state in
            Counters(
                requests: Dictionary(uniqueKeysWithValues: requests),
                sent: state.sent,
                received: state.received,
                deleted: state.deleted
            )
        }
    }

    // MARK: Publishing

    /// Publishes messages; see ``StalkCore/Collector/publish(_:durability:)``.
    public func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>] {
        try self.checkBatch(messages.count, "messages")
        let encoded = messages.map { message in
            Result { () throws(StalkError) in
                try MessageCoding.encode(
                    message,
                    limits: self.calls.limits,
                    defaultGroup: self.calls.defaultGroup
                )
            }
        }
        var answers = await self.sender.add(encoded.compactMap { try? $0.get() })[...]
        let results = encoded.map { encoded -> Result<MessageID, StalkError> in
            switch encoded {
            case .success: answers.popFirst() ?? .failure(StalkError(.unavailable, "SQS gave no outcome."))
            case .failure(let error): .failure(error)
            }
        }
        let sent = results.count { (try? $0.get()) != nil }
        self.state.withLock { $0.sent += sent }
        return results
    }

    // MARK: Taking

    /// Takes messages; see ``StalkCore/Collector/take(_:)``.
    public func take(_ request: TakeRequest) async throws -> [Delivery] {
        try request.validate(for: self.capabilities)
        try Task.checkCancellation()
        let id = self.state.withLock { state in
            state.nextTake += 1
            return state.nextTake
        }
        defer { self.state.withLock { $0.machine.forgetTake(id) } }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                self.step { state, now in
                    state.takes[id] = continuation
                    return state.machine.take(id, request, now: now)
                }
            }
        } onCancel: {
            self.step { state, _ in state.machine.cancelTake(id) }
        }
    }

    // MARK: Draining

    /// Returns once SQS reports nothing ready, delayed or held, twice in a row: its counts are approximate.
    ///
    /// - Throws: ``StalkCore/StalkError`` when SQS can't be asked, or `CancellationError`.
    public func drained() async throws {
        var quiet = 0
        while quiet < 2 {
            try await self.clock.sleep(self.clock.elapsed() + .seconds(1))
            let isEmpty = try await self.calls.isEmpty()
            quiet = isEmpty && self.state.withLock({ $0.machine.inFlight }) == 0 ? quiet + 1 : 0
        }
    }

    // MARK: Control

    /// Changes how it delivers; see ``StalkCore/Collector/control(_:)``.
    @discardableResult
    public func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        switch command {
        case .report:
            self.step { state, now in state.machine.settle(now: now) }
        case .sleep:
            await self.giveBack { machine, now in machine.sleep(now: now) }
        case .wake:
            self.step { state, now in state.machine.wake(now: now) }
        case .scale(let maxInFlight):
            guard maxInFlight >= 0 else {
                throw StalkError(.invalidArgument, "Can't scale to \(maxInFlight): give 0 to drain, or more.")
            }
            self.step { state, now in state.machine.scale(to: maxInFlight, now: now) }
        }
        return self.state.withLock { state in
            CollectorStatus(
                isAsleep: state.machine.isAsleep,
                maxInFlight: state.machine.maxInFlight,
                inFlight: state.machine.inFlight
            )
        }
    }

    /// Gives back what was received ahead, ends takes that wait, and closes all connections.
    ///
    /// Deliveries that are not finished come again when their leases are over. A collector is closed once.
    public func close() async {
        let polls = self.state.withLock { state -> [Task<Void, Never>]? in
            if state.isClosed { return nil }
            state.isClosed = true
            return Array(state.polls.values)
        }
        guard let polls else { return }
        await self.giveBack { machine, now in machine.close(now: now) }
        await Self.end(polls)
        for change in self.state.withLock({ Array($0.changes.values) }) { await change.value }
        self.state.withLock { $0.alarm?.task.cancel() }
        await self.calls.client.close()
    }

    /// Ends polls; what is on its way here already is waited for and goes back, instead of hiding until its lease is over.
    private static func end(_ polls: [Task<Void, Never>]) async {
        let hangUp = Task {
            // The network's time passes whatever clock the collector has.
            try? await ContinuousClock().sleep(for: .milliseconds(250))
            for poll in polls { poll.cancel() }
        }
        for poll in polls { await poll.value }
        hangUp.cancel()
    }

    func giveBack(
        _ event: (inout IntakeStateMachine, Duration) -> (
            giveBack: [IntakeStateMachine.VisibilityChange], actions: [IntakeStateMachine.Action]
        )
    ) async {
        var changes: [IntakeStateMachine.VisibilityChange] = []
        self.step { state, now in
            let (giveBack, actions) = event(&state.machine, now)
            changes = giveBack
            return actions
        }
        // What can't be given back now comes again when its visibility is over.
        _ = await self.changer.add(changes)
    }

    // MARK: Receipts

    func delivery(_ message: ReceivedMessage) -> Delivery {
        Delivery(
            id: message.id,
            queue: self.queue,
            body: message.body,
            headers: message.headers,
            attempt: message.attempt,
            publishedAt: message.publishedAt,
            receipt: Receipt(token: .opaque(self.receiptTag + message.handle))
        )
    }

    func handle(of receipt: Receipt) throws(StalkError) -> String {
        let text = receipt.description
        guard text.hasPrefix(self.receiptTag) else {
            throw StalkError(
                .foreignReceipt,
                "The receipt \(quoted(text)) was not issued by \(self.queue): finish it where it was taken."
            )
        }
        return String(text.dropFirst(self.receiptTag.count))
    }

    func stale() -> StalkError {
        StalkError(
            .staleReceipt,
            "The lease of this message of \(self.queue) is over: it may have gone to somebody "
                + "else."
        )
    }

    /// SQS counts from when a message was received.
    func checkTotal(_ delay: Duration, since receivedAt: Duration) throws(StalkError) {
        let most = QueueLimits.maxVisibility - (self.clock.elapsed() - receivedAt)
        guard delay > most else { return }
        throw StalkError(
            .delayOutOfRange,
            "SQS keeps a message back for 12 hours after it was received, so \(delay.stalkText) is too long now."
        )
    }

    func checkBatch(_ count: Int, _ what: String) throws(StalkError) {
        guard count <= self.capabilities.maxBatch else {
            throw StalkError(
                .invalidArgument,
                "A batch of \(count) \(what) is over the limit of \(self.capabilities.maxBatch): split it."
            )
        }
    }
}
