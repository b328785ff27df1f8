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

    private struct State {
        var machine: IntakeStateMachine
        var takes: [Int: CheckedContinuation<[Delivery], any Error>] = [:]
        var polls: [Int: Task<Void, Never>] = [:]
        var nextTake = 0
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
    private let state: Locked<State>
    private let sender: Batcher<EncodedMessage, Result<MessageID, StalkError>>
    private let deleter: Batcher<String, Result<Void, StalkError>>
    private let changer: Batcher<IntakeStateMachine.VisibilityChange, Result<Void, StalkError>>
    private let errorSender: Batcher<EncodedMessage, Result<MessageID, StalkError>>?
    private let errorCalls: QueueCalls?
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
        // One batch at a time keeps the order of a FIFO queue.
        Batcher(
            maxInFlight: calls.limits.isFIFO ? 1 : 32,
            linger: linger,
            size: { $0.byteCount },
            send: { await calls.send($0) }
        )
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

    // MARK: Finishing

    /// Ends deliveries; see ``StalkCore/Collector/finish(_:durability:)``.
    public func finish(
        _ completions: [Completion],
        durability: Durability
    ) async throws -> [Result<Void, StalkError>] {
        try self.checkBatch(completions.count, "completions")
        let ends = completions.map { completion in
            Result { () throws(StalkError) in try self.end(completion) }
        }
        let handles = ends.compactMap { try? $0.get().handle }
        self.step { state, _ in
            state.machine.endBegins(handles)
            return []
        }
        return await withTaskGroup(of: [(Int, Result<Void, StalkError>)].self) { group in
            var results: [Result<Void, StalkError>] = ends.map { $0.map { _ in } }
            var (deletes, changes) = ([(Int, String)](), [(Int, IntakeStateMachine.VisibilityChange)]())
            for (index, end) in ends.enumerated() {
                switch try? end.get() {
                case .delete(let handle): deletes.append((index, handle))
                case .change(let handle, let seconds):
                    changes.append((index, IntakeStateMachine.VisibilityChange(handle: handle, seconds: seconds)))
                case .deadLetter(let message, let reason):
                    group.addTask { [(index, await self.deadLetter(message, reason))] }
                case .nothing, nil: break
                }
            }
            group.addTask { [deletes] in
                Array(zip(deletes.map(\.0), await self.delete(deletes.map(\.1))))
            }
            group.addTask { [changes] in
                let answers = await self.changer.add(changes.map(\.1))
                for (change, answer) in zip(changes, answers) {
                    self.ended(change.1.handle, answer, acknowledged: false)
                }
                return Array(zip(changes.map(\.0), answers))
            }
            for await answers in group { for (index, answer) in answers { results[index] = answer } }
            return results
        }
    }

    private enum End {
        case delete(String)
        case change(String, seconds: Int)
        case deadLetter(ReceivedMessage, String)
        /// It is done already.
        case nothing

        var handle: String? {
            switch self {
            case .delete(let handle), .change(let handle, _): handle
            case .deadLetter(let message, _): message.handle
            case .nothing: nil
            }
        }
    }

    /// What a completion asks of SQS, refused before anything is sent where it can't be done.
    private func end(_ completion: Completion) throws(StalkError) -> End {
        let handle = try self.handle(of: completion.receipt)
        if case .acknowledgeAndPublish = completion.disposition {
            throw StalkError(.unsupported, "SQS can't acknowledge and publish in one step: publish first.")
        }
        if case .retry(let delay, _) = completion.disposition {
            try Message.validate(delay: delay, largest: QueueLimits.maxVisibility)
        }
        let standing = self.state.withLock { $0.machine.standing(of: handle) }
        if case .acknowledged = standing, completion.disposition == .acknowledge { return .nothing }
        switch standing {
        case .acknowledged, .stale: throw self.stale()
        case .held, .unknown: break
        }
        switch completion.disposition {
        case .acknowledge, .acknowledgeAndPublish: return .delete(handle)
        case .release: return .change(handle, seconds: 0)
        case .retry(let delay, _):
            if case .held(_, let receivedAt) = standing { try self.checkTotal(delay, since: receivedAt) }
            return .change(handle, seconds: IntakeStateMachine.wholeSeconds(delay))
        case .deadLetter(let reason):
            guard self.errorSender != nil else {
                throw StalkError(
                    .unsupported,
                    "There is no queue for what fails for good: name an error queue, or give \(self.queue) a redrive "
                        + "policy."
                )
            }
            // What is not held any more can't be published: its body is gone.
            guard case .held(let message, _) = standing else { throw self.stale() }
            return .deadLetter(message, reason)
        }
    }

    private func delete(_ handles: [String]) async -> [Result<Void, StalkError>] {
        let answers = await self.deleter.add(handles)
        for (handle, answer) in zip(handles, answers) { self.ended(handle, answer, acknowledged: true) }
        let deleted = answers.count { (try? $0.get()) != nil }
        self.state.withLock { $0.deleted += deleted }
        return answers
    }

    /// Publishes to the error queue, and deletes only when that succeeded.
    private func deadLetter(_ received: ReceivedMessage, _ reason: String) async -> Result<Void, StalkError> {
        guard let errorSender = self.errorSender, let errorCalls = self.errorCalls else {
            return .failure(self.stale())
        }
        var message = Message(received.body, headers: received.headers)
        message.headers[MessageCoding.reasonName] = String(reason.prefix(1000))
        if errorCalls.limits.isFIFO { message.headers[MessageCoding.deduplicationName] = received.id.rawValue }
        let sent: Result<MessageID, StalkError>
        do {
            var limits = errorCalls.limits
            // The reason may need more room than the queue has to give; SQS itself has the last word.
            limits.maxMessageBytes += 2000
            let encoded = try MessageCoding.encode(message, limits: limits, defaultGroup: errorCalls.defaultGroup)
            sent = await errorSender.add([encoded])[0]
        } catch {
            sent = .failure(error)
        }
        guard case .failure(let error) = sent else { return await self.delete([received.handle])[0] }
        self.ended(received.handle, .failure(error), acknowledged: false)
        return .failure(error)
    }

    private func ended(_ handle: String, _ answer: Result<Void, StalkError>, acknowledged: Bool) {
        self.step { state, now in
            switch answer {
            case .success: state.machine.ended(handle, acknowledged: acknowledged, now: now)
            case .failure(let error) where error.code == .staleReceipt:
                state.machine.ended(handle, acknowledged: false, now: now)
            case .failure: state.machine.endFailed(handle, now: now)
            }
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

    // MARK: Extending

    /// Extends leases; see ``StalkCore/Collector/extend(_:lease:)``.
    public func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        try self.checkBatch(receipts.count, "receipts")
        try TakeRequest.validate(lease: lease, for: self.capabilities)
        let seconds = IntakeStateMachine.wholeSeconds(lease)
        let handles = receipts.map { receipt in
            Result { () throws(StalkError) in
                let handle = try self.handle(of: receipt)
                switch self.state.withLock({ $0.machine.standing(of: handle) }) {
                case .acknowledged, .stale: throw self.stale()
                case .held(_, let receivedAt):
                    guard self.clock.elapsed() + lease <= receivedAt + QueueLimits.maxVisibility else {
                        throw StalkError(
                            .staleReceipt,
                            "SQS lets nobody keep a message for more than 12 hours: finish it, or it comes again."
                        )
                    }
                case .unknown: break
                }
                return handle
            }
        }
        let sentAt = self.clock.elapsed()
        let changes = handles.compactMap { try? $0.get() }.map {
            IntakeStateMachine.VisibilityChange(handle: $0, seconds: seconds)
        }
        let answers = await self.changer.add(changes)
        self.step { state, _ in
            for (change, answer) in zip(changes, answers) where (try? answer.get()) != nil {
                state.machine.extended(change.handle, to: sentAt + lease, seconds: seconds, sentAt: sentAt)
            }
            return []
        }
        var rest = answers[...]
        return handles.map { handle in
            switch handle {
            case .success: rest.popFirst() ?? .failure(self.stale())
            case .failure(let error): .failure(error)
            }
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
        for poll in polls { poll.cancel() }
        for poll in polls { await poll.value }
        self.state.withLock { $0.alarm?.task.cancel() }
        await self.calls.client.close()
    }

    private func giveBack(
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

    // MARK: Doing what the state machine decides

    private func step(_ event: (inout State, Duration) -> [IntakeStateMachine.Action]) {
        let now = self.clock.elapsed()
        let actions = self.state.withLock { state in
            let actions = event(&state, now)
            self.setAlarm(&state, now: now)
            return actions
        }
        for action in actions { self.perform(action) }
    }

    private func setAlarm(_ state: inout State, now: Duration) {
        guard !state.isClosed, let moment = state.machine.nextAlarm(now: now) else { return }
        if let alarm = state.alarm, alarm.moment <= moment { return }
        state.alarm?.task.cancel()
        let task = Task { [weak self, clock = self.clock] in
            guard (try? await clock.sleep(moment)) != nil else { return }
            self?.step { state, now in
                if state.alarm?.moment == moment { state.alarm = nil }
                return state.machine.settle(now: now)
            }
        }
        state.alarm = (moment, task)
    }

    private func perform(_ action: IntakeStateMachine.Action) {
        switch action {
        case .poll(let poll):
            let task = Task { await self.poll(poll) }
            self.state.withLock { state in
                if state.machine.polls[poll.id] != nil { state.polls[poll.id] = task }
                if state.isClosed { task.cancel() }
            }
        case .deliver(let take, let messages, let shorten):
            if shorten.isEmpty {
                self.resume(take, .success(messages.map(self.delivery)))
            } else {
                Task {
                    _ = await self.changer.add(shorten)
                    self.resume(take, .success(messages.map(self.delivery)))
                }
            }
        case .fail(let take, let code, let message):
            self.resume(take, .failure(StalkError(code, message)))
        case .cancel(let take):
            self.resume(take, .failure(CancellationError()))
        case .change(let changes):
            Task { await self.change(changes) }
        }
    }

    private func resume(_ take: Int, _ result: Result<[Delivery], any Error>) {
        let continuation = self.state.withLock { $0.takes.removeValue(forKey: take) }
        continuation?.resume(with: result)
    }

    private func poll(_ poll: IntakeStateMachine.Poll) async {
        do {
            let messages = try await self.calls.receive(poll)
            self.step { state, now in
                state.polls[poll.id] = nil
                state.received += messages.count
                return state.machine.polled(poll.id, messages, now: now)
            }
        } catch {
            let failure =
                error as? StalkError
                ?? StalkError(
                    .unavailable,
                    "Receiving from \(self.queue) was cut "
                        + "short."
                )
            self.step { state, now in
                state.polls[poll.id] = nil
                return state.machine.pollFailed(poll.id, failure, now: now)
            }
        }
    }

    private func change(_ changes: [IntakeStateMachine.VisibilityChange]) async {
        let sentAt = self.clock.elapsed()
        let answers = await self.changer.add(changes)
        self.step { state, now in
            zip(changes, answers).flatMap { change, answer in
                state.machine.changed(change, answer, sentAt: sentAt, now: now)
            }
        }
    }

    // MARK: Receipts

    private func delivery(_ message: ReceivedMessage) -> Delivery {
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

    private func handle(of receipt: Receipt) throws(StalkError) -> String {
        let text = receipt.description
        guard text.hasPrefix(self.receiptTag) else {
            throw StalkError(
                .foreignReceipt,
                "The receipt \(quoted(text)) was not issued by \(self.queue): finish it where it was taken."
            )
        }
        return String(text.dropFirst(self.receiptTag.count))
    }

    private func stale() -> StalkError {
        StalkError(
            .staleReceipt,
            "The lease of this message of \(self.queue) is over: it may have gone to somebody "
                + "else."
        )
    }

    /// SQS counts from when a message was received.
    private func checkTotal(_ delay: Duration, since receivedAt: Duration) throws(StalkError) {
        let most = QueueLimits.maxVisibility - (self.clock.elapsed() - receivedAt)
        guard delay > most else { return }
        throw StalkError(
            .delayOutOfRange,
            "SQS keeps a message back for 12 hours after it was received, so \(delay.stalkText) is too long now."
        )
    }

    private func checkBatch(_ count: Int, _ what: String) throws(StalkError) {
        guard count <= self.capabilities.maxBatch else {
            throw StalkError(
                .invalidArgument,
                "A batch of \(count) \(what) is over the limit of \(self.capabilities.maxBatch): split it."
            )
        }
    }
}
