// The answers to one client, from whichever thread they come.

internal import StalkCore
internal import StalkFiles
internal import Synchronization

/// What is to be sent to a client, and what is still under way for it.
///
/// Any thread may send; what the client does not take at once waits for the thread that serves.
final class Outbox: Sendable {
    /// Bytes on their way, and how many of them are sent.
    private struct Sending {
        var bytes: [UInt8]
        var sentBytes: Int
    }

    private struct State {
        var answers: [(call: UInt64, answer: WireAnswer)] = []
        /// How to end what waits, by call.
        var cancels: [UInt64: @Sendable () -> Void] = [:]
        /// The orders that are carried out.
        var orders: Set<UInt64> = []
        var requests = 0
        /// What requests keep in memory until they are answered, and answers until they are taken.
        var bytes = 0
        var hasEnded = false
        /// What the client has not taken yet; it goes before the answers.
        var rest: Sending?
        var isSending = false
        var isBroken = false
        /// Whether the server knows that there is something to send.
        var isNoted = false

        mutating func append(_ answer: WireAnswer, to call: UInt64) {
            guard !self.hasEnded else { return }
            self.answers.append((call, answer))
            self.bytes += answer.weight
        }
    }

    private let server: StoreServer
    private let socket: LocalSocket
    private let state = Locked<State>(State())

    init(_ server: StoreServer, _ socket: LocalSocket) {
        self.server = server
        self.socket = socket
    }

    /// Whether the connection turned out to be over.
    var isBroken: Bool { self.state.withLock { $0.isBroken } }

    /// Whether the client has not taken yet what it was sent.
    var hasUnsent: Bool { self.state.withLock { $0.rest != nil } }

    /// Whether what is answered takes no time to be written down.
    var isLight: Bool { self.state.withLock { $0.answers.reduce(0) { $0 + $1.answer.weight } < 1 << 16 } }

    /// Whether the client leaves more untaken than is kept for it.
    var isFull: Bool { self.state.withLock { $0.rest?.bytes.count ?? 0 >= ServedConnection.maxPendingBytes } }

    /// Whether another request may be carried out.
    var hasRoom: Bool {
        guard self.server.hasRoomForOrders else { return false }
        return self.state.withLock {
            $0.requests < ServedConnection.maxRequests && $0.orders.count < ServedConnection.maxOrders
                && $0.bytes < ServedConnection.maxPendingBytes
        }
    }

    /// A request is carried out from now on.
    ///
    /// - Parameter bytes: What it keeps in memory until it is answered.
    func begin(bytes: Int) {
        self.state.withLock { state in
            state.requests += 1
            state.bytes += bytes
        }
    }

    /// An order is carried out from now on.
    func beginOrder(_ call: UInt64) {
        self.begin(bytes: 0)
        self.state.withLock { _ = $0.orders.insert(call) }
        self.server.noteOrders(1)
    }

    /// Says how to end what waits for a call.
    func note(_ call: UInt64, cancel: @escaping @Sendable () -> Void) {
        self.state.withLock { $0.cancels[call] = cancel }
    }

    /// Ends what waits for a call; it is answered as what came of that.
    func cancel(_ call: UInt64) {
        let cancel = self.state.withLock { $0.cancels.removeValue(forKey: call) }
        cancel?()
    }

    /// Answers a call; it is sent by ``StoreServer/sendAnswers()``.
    func answer(_ call: UInt64, _ answer: WireAnswer, bytes: Int = 0) {
        let (wasOrder, isNews) = self.state.withLock { state in
            state.requests -= 1
            state.bytes -= bytes
            state.cancels[call] = nil
            state.append(answer, to: call)
            defer { state.isNoted = true }
            return (state.orders.remove(call) != nil, !state.isNoted)
        }
        if wasOrder { self.server.noteOrders(-1) }
        if isNews { self.server.noteAnswers(in: self) }
    }

    /// Answers a call with what came of it.
    func answer(_ call: UInt64, _ outcome: Result<WireAnswer, any Error>, bytes: Int = 0) {
        switch outcome {
        case .success(let answer): self.answer(call, answer, bytes: bytes)
        // The next owner carries it out.
        case .failure where !self.server.isOpenForRequests: break
        case .failure(let error as StalkError): self.answer(call, .failure(error), bytes: bytes)
        case .failure: self.answer(call, .cancelled, bytes: bytes)
        }
    }

    /// Tells something about a call that goes on.
    func tell(_ call: UInt64, _ answer: WireAnswer) {
        self.state.withLock { $0.append(answer, to: call) }
        self.server.signal()
    }

    /// Sends what is answered, as much as the client takes now, unless another thread does.
    ///
    /// - Returns: Whether something is left, which waits until the client takes more.
    @discardableResult
    func send() -> Bool {
        guard var sending = self.takeUp() else { return false }
        while true {
            while sending.sentBytes < sending.bytes.count {
                let sent = sending.bytes.withUnsafeBytes { bytes in
                    self.socket.send(UnsafeRawBufferPointer(rebasing: bytes[sending.sentBytes...]))
                }
                guard case .bytes(let count) = sent else {
                    self.putDown(sending, isBroken: sent == .ended)
                    return sent == .later
                }
                sending.sentBytes += count
            }
            guard let next = self.takeUp(after: sending) else { return false }
            sending = next
        }
    }

    /// What to send now; `nil` when there is nothing, or when another thread sends.
    private func takeUp(after last: Sending? = nil) -> Sending? {
        let (rest, answers) = self.state.withLock { state -> (Sending?, [(call: UInt64, answer: WireAnswer)]) in
            guard last != nil || !state.isSending else { return (nil, []) }
            state.isNoted = false
            if let rest = state.rest.take() {
                state.isSending = true
                return (rest, [])
            }
            var answers: [(call: UInt64, answer: WireAnswer)] = []
            swap(&answers, &state.answers)
            for (_, answer) in answers { state.bytes -= answer.weight }
            state.isSending = !answers.isEmpty
            return (nil, answers)
        }
        if rest != nil || answers.isEmpty { return rest }
        var memory = last?.bytes ?? []
        memory.removeAll(keepingCapacity: memory.capacity <= 1 << 20)
        var writer = ByteWriter(reusing: memory)
        for (call, answer) in answers { answer.write(call: call, to: &writer) }
        return Sending(bytes: writer.take(), sentBytes: 0)
    }

    private func putDown(_ sending: Sending, isBroken: Bool) {
        self.state.withLock { state in
            state.rest = isBroken ? nil : sending
            state.isBroken = isBroken
            state.isSending = false
        }
    }

    /// Tells the messages of a reply in parts, since together they may not fit into a frame.
    ///
    /// - Returns: What is left for the answer.
    func tellParts(of reply: StoreReply, _ call: UInt64) -> StoreReply {
        guard case .messages(let messages) = reply else { return reply }
        var part: [StoredMessage] = []
        var bytes = 0
        for message in messages {
            let size = message.body.count + message.headers.byteCount
            if bytes > 0, bytes + size > Wire.answerBytes {
                self.tell(call, .part(.messages(part)))
                (part, bytes) = ([], 0)
            }
            part.append(message)
            bytes += size
        }
        return .messages(part)
    }

    /// The client has gone: what waits for it ends, and what comes for it is dropped.
    func end() {
        let cancels = self.state.withLock { state in
            state.hasEnded = true
            state.answers = []
            defer { state.cancels = [:] }
            return Array(state.cancels.values)
        }
        for cancel in cancels { cancel() }
    }
}

extension WireAnswer {
    /// What it keeps in memory, about, in bytes.
    fileprivate var weight: Int {
        switch self {
        case .deliveries(let deliveries): deliveries.reduce(0) { $0 + $1.delivery.body.count }
        case .part(.messages(let messages)), .reply(.messages(let messages)):
            messages.reduce(0) { $0 + $1.body.count }
        default: 0
        }
    }
}
