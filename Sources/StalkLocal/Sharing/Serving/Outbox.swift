// The answers to one client, from whichever thread they come.

internal import StalkCore

/// What is to be sent to a client, and what is still under way for it.
final class Outbox: Sendable {
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

        mutating func append(_ answer: WireAnswer, to call: UInt64) {
            guard !self.hasEnded else { return }
            self.answers.append((call, answer))
            self.bytes += answer.weight
        }
    }

    private let server: StoreServer
    private let state = Locked<State>(State())

    init(_ server: StoreServer) {
        self.server = server
    }

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

    /// Answers a call.
    func answer(_ call: UInt64, _ answer: WireAnswer, bytes: Int = 0) {
        let wasOrder = self.state.withLock { state in
            state.requests -= 1
            state.bytes -= bytes
            state.cancels[call] = nil
            state.append(answer, to: call)
            return state.orders.remove(call) != nil
        }
        if wasOrder { self.server.noteOrders(-1) }
        self.server.signal()
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

    /// The answers to send.
    func take() -> [(call: UInt64, answer: WireAnswer)] {
        self.state.withLock { state in
            defer { state.answers = [] }
            for (_, answer) in state.answers { state.bytes -= answer.weight }
            return state.answers
        }
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
