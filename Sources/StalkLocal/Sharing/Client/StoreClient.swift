// A store that another process owns, reached through its socket.

internal import Glibc
internal import StalkCore
internal import StalkFiles
internal import StalkPlatform

/// A connection to the owner of a store.
///
/// Calls are sent as they come and answered in any order. When the owner goes, all calls under way throw ``OwnerGone``.
final class StoreClient: StoreService {
    /// How long the owner may be silent while it owes an answer, before it is taken for stopped, in nanoseconds.
    static let patience: Int64 = 5_000_000_000

    let welcome: WireWelcome
    /// The process that owns the store.
    let owner: Int32
    private let socket: LocalSocket
    private let book: ClientBook
    private let waker: Waker
    /// Says that this process is served by this owner.
    private let membership: Locked<DirectoryLock?>
    private let state: Locked<State>

    private struct Call {
        var reply: @Sendable (Result<WireAnswer, any Error>) -> Void
        var partial: (@Sendable (WireAnswer) -> Void)?
        /// Whether it may take for ever.
        var isWait: Bool
    }

    private struct State {
        var calls: [UInt64: Call] = [:]
        /// What is to be sent, and whether somebody sends.
        var outbox = ByteWriter()
        var isSending = false
        /// When the owner was heard of last, or had nothing to say.
        var heardAt: Int64
        var isPinged = false
        var isOver = false
    }

    init(
        _ socket: LocalSocket,
        _ welcome: WireWelcome,
        _ book: ClientBook,
        _ membership: DirectoryLock?
    ) throws(StalkError) {
        self.socket = socket
        self.owner = socket.peer
        self.welcome = welcome
        self.book = book
        self.membership = Locked(membership)
        self.waker = try Waker()
        self.state = Locked(State(heardAt: Self.now))
    }

    var isRemote: Bool { true }

    private static var now: Int64 { SystemStoreClock().bootTime().nanoseconds }

    /// Starts to hear answers.
    ///
    /// - Parameter onEnd: Called once, when the owner has gone.
    func start(onEnd: @escaping @Sendable () -> Void) throws(StalkError) {
        let thread = try DedicatedThread(name: "stalk-client") {
            self.hear()
            self.fail()
            onEnd()
        }
        thread.detach()
    }

    /// Ends the connection.
    func end() { self.socket.end() }

    /// Says that this process is with another owner now.
    func leave() { self.membership.withLock { $0 = nil } }

    /// Ends what waits for messages, or for the end of them.
    func endWaits() {
        let waits = self.state.withLock { state in
            let waits = state.calls.filter(\.value.isWait)
            for number in waits.keys { state.calls[number] = nil }
            return Array(waits.values)
        }
        for wait in waits { wait.reply(.failure(StalkError.storeClosed)) }
    }

    // MARK: Hearing

    private func hear() {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 16)
        defer { buffer.deallocate() }
        var assembler = WireAssembler(maxFrameBytes: Wire.maxFrameBytes(bodies: self.welcome.maxBodyBytes))
        while true {
            let (hasUnsent, isWaiting) = self.state.withLock {
                (!$0.isSending && $0.outbox.count > 0, !$0.calls.isEmpty)
            }
            var waits = [
                SocketWait(self.socket.number, reads: true, writes: hasUnsent),
                SocketWait(self.waker.descriptor, reads: true),
            ]
            SocketWait.wait(for: &waits, milliseconds: isWaiting ? 1000 : -1)
            if waits[1].canRead { self.waker.clear() }
            if waits[0].canWrite { self.send() }
            guard waits[0].canRead else {
                self.askForSignOfLife()
                continue
            }
            switch self.socket.receive(into: buffer) {
            case .later: continue
            case .ended: return
            case .bytes(let count):
                assembler.append(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                guard self.takeAnswers(from: &assembler) else { return }
            }
        }
    }

    /// - Returns: Whether the connection can go on.
    private func takeAnswers(from assembler: inout WireAssembler) -> Bool {
        do throws(Wire.Malformed) {
            while let frame = try assembler.next() {
                let answer = try WireAnswer(frame)
                let call = self.state.withLock { state in
                    state.heardAt = Self.now
                    state.isPinged = false
                    return answer.isPartial ? state.calls[frame.call] : state.calls.removeValue(forKey: frame.call)
                }
                if let call {
                    if answer.isPartial { call.partial?(answer) } else { call.reply(.success(answer)) }
                } else {
                    self.takeStray(answer)
                }
            }
            return true
        } catch {
            return false
        }
    }

    /// Takes an answer that nobody waits for any more, or one that is for all.
    private func takeStray(_ answer: WireAnswer) {
        switch answer {
        // Its caller was told that the owner is silent: others may have the messages at once.
        case .deliveries(let deliveries):
            guard let queue = deliveries.first?.delivery.queue else { return }
            let completions = deliveries.map { Completion($0.delivery.receipt, .release) }
            self.post(.finish(completions, queue, errorQueue: nil, .written), call: self.book.nextCall())
        // The owner serves this process no more, and says why.
        case .failure(let error):
            let calls = self.state.withLock { state in
                defer { state.calls = [:] }
                return Array(state.calls.values)
            }
            for call in calls { call.reply(.failure(error)) }
        default: break
        }
    }

    /// An owner that owes an answer and says nothing is asked for a sign of life, and reported when it gives none.
    private func askForSignOfLife() {
        enum Finding { case nothing, asks, silent([Call]) }
        let finding = self.state.withLock { state -> Finding in
            let now = Self.now
            if state.calls.isEmpty { state.heardAt = now }
            guard now - state.heardAt > 1_000_000_000 else { return .nothing }
            if !state.isPinged {
                state.isPinged = true
                return .asks
            }
            guard now - state.heardAt > Self.patience else { return .nothing }
            defer { state.calls = [:] }
            state.isPinged = false
            state.heardAt = now
            return .silent(Array(state.calls.values))
        }
        switch finding {
        case .nothing: break
        case .asks: self.post(.ping, call: self.book.nextCall())
        case .silent(let calls):
            let error = StalkError.silentOwner(self.owner)
            for call in calls { call.reply(.failure(error)) }
        }
    }

    /// The owner has gone: whoever waits for it asks the next one.
    func fail() {
        let calls = self.state.withLock { state in
            state.isOver = true
            defer { state.calls = [:] }
            return Array(state.calls.values)
        }
        for call in calls { call.reply(.failure(OwnerGone())) }
    }

    // MARK: Speaking

    /// Sends what gathered, unless somebody does already.
    private func send() {
        while true {
            let bytes = self.state.withLock { state -> [UInt8]? in
                guard !state.isSending, state.outbox.count > 0, !state.isOver else { return nil }
                state.isSending = true
                return state.outbox.take()
            }
            guard let bytes else { return }
            var sent = 0
            var isBlocked = false
            sending: while sent < bytes.count {
                switch bytes.withUnsafeBytes({ self.socket.send(UnsafeRawBufferPointer(rebasing: $0[sent...])) }) {
                case .bytes(let count): sent += count
                case .later, .ended:
                    isBlocked = true
                    break sending
                }
            }
            let rest = Array(bytes[sent...])
            self.state.withLock { state in
                state.isSending = false
                guard !rest.isEmpty else { return }
                let later = state.outbox.take()
                state.outbox.write(rest)
                state.outbox.write(later)
            }
            if isBlocked { return self.waker.signal() }
        }
    }

    /// Sends a request that nobody waits for.
    private func post(_ request: WireRequest, call: UInt64) {
        self.state.withLock { request.write(call: call, to: &$0.outbox) }
        self.send()
    }

    /// Sends a request and waits for its answer.
    ///
    /// - Parameters:
    ///   - number: The number of the call; one of its own unless the call may be repeated.
    ///   - partial: Gets what is told before the answer.
    ///   - note: Gets the answer before anything else can happen, so that what it says is not forgotten when the owner goes
    ///     at this moment.
    private func call(
        _ request: WireRequest,
        number: UInt64? = nil,
        partial: (@Sendable (WireAnswer) -> Void)? = nil,
        note: (@Sendable (WireAnswer) -> Void)? = nil
    ) async throws -> WireAnswer {
        let number = number ?? self.book.nextCall()
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let reply: @Sendable (Result<WireAnswer, any Error>) -> Void = { result in
                    if let note, case .success(let answer) = result { note(answer) }
                    continuation.resume(with: result)
                }
                let call = Call(reply: reply, partial: partial, isWait: request.isWait)
                let (isOver, isTooLarge, wakesReader) = self.state.withLock { state in
                    guard !state.isOver else { return (true, false, false) }
                    let start = state.outbox.count
                    request.write(call: number, to: &state.outbox)
                    let limit = Wire.maxFrameBytes(bodies: self.welcome.maxBodyBytes)
                    guard state.outbox.count - start <= limit else {
                        state.outbox.truncate(to: start)
                        return (false, true, false)
                    }
                    let isFirst = state.calls.isEmpty
                    if isFirst { state.heardAt = Self.now }
                    state.calls[number] = call
                    return (false, false, isFirst)
                }
                if isOver { return continuation.resume(throwing: OwnerGone()) }
                if isTooLarge { return continuation.resume(throwing: StalkError.callTooLarge) }
                self.send()
                // It must look at the clock from now on.
                if wakesReader { self.waker.signal() }
                if Task.isCancelled { self.cancel(number, request) }
            }
        } onCancel: {
            self.cancel(number, request)
        }
    }

    /// Ends a wait at the owner; what is on its way to the disk is waited for.
    private func cancel(_ number: UInt64, _ request: WireRequest) {
        switch request {
        case .take, .drained, .order: self.post(.cancel(number), call: number)
        default: break
        }
    }

    // MARK: Calls

    func addCollector(_ number: UInt64, _ record: CollectorRecord) { self.post(.addCollector(number, record), call: 0) }

    func removeCollector(_ number: UInt64) { self.post(.removeCollector(number), call: 0) }

    func publish(_ call: PublishCall) async throws -> [Result<MessageID, StalkError>] {
        let request = WireRequest.publish(
            call.queue,
            call.messages,
            call.durability,
            answeredBelow: call.origin?.answeredBelow ?? 0
        )
        switch try await self.call(request, number: call.origin?.call) {
        case .published(let results) where results.count == call.messages.count: return results
        case let answer: throw answer.error
        }
    }

    func take(
        _ request: TakeRequest,
        by collector: UInt64,
        from queue: QueueName,
        _ durability: Durability
    ) async throws -> [Delivery] {
        let book = self.book
        let answer = try await self.call(
            .take(request, collector: collector, durability),
            note: { answer in
                if case .deliveries(let deliveries) = answer { book.note(deliveries, collector: collector) }
            }
        )
        guard case .deliveries(let deliveries) = answer else { throw answer.error }
        return deliveries.map(\.delivery)
    }

    func finish(_ call: FinishCall) async throws -> [Result<Void, StalkError>] {
        let request = WireRequest.finish(
            call.completions,
            call.queue,
            errorQueue: call.errorQueue,
            call.durability
        )
        let book = self.book
        let answer = try await self.call(
            request,
            note: { answer in
                if case .outcomes(let outcomes) = answer { book.noteEnded(zip(call.completions, outcomes)) }
            }
        )
        guard case .outcomes(let outcomes) = answer, outcomes.count == call.completions.count else {
            throw answer.error
        }
        return outcomes
    }

    func extend(
        _ receipts: [Receipt],
        of queue: QueueName,
        lease: Duration
    ) async throws -> [Result<Void, StalkError>] {
        let book = self.book
        let answer = try await self.call(
            .extend(receipts, queue, lease: lease),
            note: { answer in
                guard case .extended(let outcomes, let deadline) = answer else { return }
                book.noteExtended(zip(receipts, outcomes), until: deadline)
            }
        )
        guard case .extended(let outcomes, _) = answer, outcomes.count == receipts.count else { throw answer.error }
        return outcomes
    }

    func control(_ command: CollectorCommand, of collector: UInt64) async throws -> CollectorStatus {
        switch try await self.call(.control(command, collector: collector)) {
        case .status(let status): return status
        case let answer: throw answer.error
        }
    }

    func drained(_ queue: QueueName) async throws {
        switch try await self.call(.drained(queue)) {
        case .reply: return
        case let answer: throw answer.error
        }
    }

    func carryOut(_ order: StoreOrder, progress: StoreProgress?) async throws -> StoreReply {
        let parts = Locked<[StoredMessage]>([])
        let tell: @Sendable (WireAnswer) -> Void = { answer in
            switch answer {
            case .progress(let count): progress?(count)
            case .part(.messages(let messages)): parts.withLock { $0 += messages }
            default: break
            }
        }
        let answer = try await self.call(.order(order), partial: tell)
        switch answer {
        case .reply(.messages(let rest)): return .messages(parts.withLock { $0 } + rest)
        case .reply(let reply): return reply
        case let answer: throw answer.error
        }
    }

    /// Gives up what this process holds, for good.
    func sayGoodbye() async {
        _ = try? await self.call(.goodbye)
        self.end()
    }
}

extension WireRequest {
    fileprivate var isWait: Bool {
        switch self {
        case .take, .drained: true
        default: false
        }
    }
}

extension WireAnswer {
    /// What a call throws that is not answered as it asked.
    fileprivate var error: any Error {
        switch self {
        case .failure(let error): error
        case .cancelled: CancellationError()
        default:
            StalkError(
                .unsupported,
                "The owner of the store answers in a way that this version can't read: use the same version of Stalk in "
                    + "both."
            )
        }
    }
}

extension StalkError {
    fileprivate static var callTooLarge: StalkError {
        StalkError(
            .invalidArgument,
            "The call is larger than what fits into one frame to the owner of the store: split it. Nothing was done."
        )
    }

    /// The owner is there and says nothing.
    static func silentOwner(_ owner: Int32) -> StalkError {
        let state = processState(owner)
        let what =
            switch state {
            case "T"?, "t"?: "is stopped: continue it (kill -CONT \(owner)), or end it"
            case "D"?: "waits for its disk: look at the kernel's log (dmesg), or wait"
            default: "does not answer: look what it does, or end it"
            }
        return StalkError(
            .storeBusy,
            "Process \(owner), which owns the store, \(what). Whether what was under way is stored is not known."
        )
    }

    /// The state letter of a process, as ps prints it.
    private static func processState(_ process: Int32) -> Character? {
        guard let file = fopen("/proc/\(process)/stat", "r") else { return nil }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 512)
        let count = fread(&bytes, 1, bytes.count, file)
        // The name stands in parentheses and may hold any byte, also these.
        let text = String(decoding: bytes[..<count], as: UTF8.self)
        return text.split(separator: ")").last?.first { $0 != " " }
    }
}
