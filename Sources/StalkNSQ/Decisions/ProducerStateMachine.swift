// What the producer decides: which messages go together, and what each publisher is told, whatever happens.

internal import DequeModule
internal import StalkCore

/// The publishes of one collector over one connection at a time.
///
/// nsqd answers in order and names nothing, so the commands that were sent wait in a line for their answers. Each message
/// ends in one of three ways: nsqd has it; it is refused or was never sent; or nobody knows, because it was sent and the
/// connection ended, or the deadline came, before the answer.
struct ProducerStateMachine {
    struct Item {
        var call: UInt64
        /// The place in its call.
        var index: Int
        var topic: String
        var body: [UInt8]
        var delayMillis: Int64
        var queuedAt: Duration

        /// What the message takes in an MPUB.
        var bytes: Int { self.body.count + 4 }
    }

    /// A call all of whose messages have an answer.
    struct Finished {
        var call: UInt64
        var results: [Result<Void, StalkError>]
    }

    private struct Call {
        var results: [Result<Void, StalkError>?]
        var open: Int
        var deadline: Duration
    }

    private struct Sent {
        var items: [Item]
        var bytes: Int
    }

    /// The most that may be on its way without an answer.
    static let windowBytes = 16 << 20
    static let windowCommands = 4096

    private let maxBatch: Int
    private let maxBatchBytes: Int
    private let linger: Duration
    private var calls: [UInt64: Call] = [:]
    private var waiting: Deque<Item> = []
    private var sent: Deque<Sent> = []
    private var sentBytes = 0
    private var isConnected = false
    private var nextDeadline: Duration?

    init(maxBatch: Int, maxBatchBytes: Int, linger: Duration) {
        self.maxBatch = maxBatch
        self.maxBatchBytes = maxBatchBytes
        self.linger = linger
    }

    /// Whether somebody waits for an answer.
    var isBusy: Bool { !self.calls.isEmpty }
    /// Whether something is to be sent.
    var hasWaiting: Bool { !self.waiting.isEmpty }
    var hasSent: Bool { !self.sent.isEmpty }

    // MARK: In

    mutating func publish(_ call: UInt64, _ items: [Item], deadline: Duration) {
        self.calls[call] = Call(
            results: Array(repeating: nil, count: items.count),
            open: items.count,
            deadline: deadline
        )
        self.waiting.append(contentsOf: items)
        self.nextDeadline = min(self.nextDeadline ?? deadline, deadline)
    }

    mutating func connected() { self.isConnected = true }

    /// The next command to send, or `nil` until something changes or ``lingerEnd`` comes.
    mutating func next(now: Duration) -> NSQCommand? {
        guard self.isConnected, self.sent.count < Self.windowCommands else { return nil }
        // Whoever gave up is not to find the message published later.
        while let first = self.waiting.first, self.calls[first.call] == nil { self.waiting.removeFirst() }
        guard let first = self.waiting.first else { return nil }
        guard self.sentBytes == 0 || self.sentBytes + first.bytes <= Self.windowBytes else { return nil }
        let count = self.batchCount()
        guard !self.waits(count, first, now: now) else { return nil }
        let items = Array(self.waiting.prefix(count))
        self.waiting.removeFirst(count)
        let bytes = items.reduce(0) { $0 + $1.bytes }
        self.sent.append(Sent(items: items, bytes: bytes))
        self.sentBytes += bytes
        if first.delayMillis > 0 {
            return .deferredPublish(topic: first.topic, milliseconds: first.delayMillis, first.body)
        }
        return count == 1
            ? .publish(topic: first.topic, first.body) : .multiPublish(topic: first.topic, items.map(\.body))
    }

    /// How many messages at the front go into one command.
    private func batchCount() -> Int {
        guard let first = self.waiting.first, first.delayMillis == 0 else { return 1 }
        var bytes = 4
        var count = 0
        for item in self.waiting {
            guard count < self.maxBatch, item.topic == first.topic, item.delayMillis == 0,
                self.calls[item.call] != nil, bytes + item.bytes <= self.maxBatchBytes
            else { break }
            bytes += item.bytes
            count += 1
        }
        return max(count, 1)
    }

    /// Whether a message waits for company: only while an answer is outstanding, as in Nagle's algorithm (RFC 896), so
    /// that a lone publisher never waits.
    private func waits(_ count: Int, _ first: Item, now: Duration) -> Bool {
        self.maxBatch > 1 && count == self.waiting.count && count < self.maxBatch && first.delayMillis == 0
            && !self.sent.isEmpty && now < first.queuedAt + self.linger
    }

    /// When a message has waited long enough for company.
    var lingerEnd: Duration? {
        guard self.isConnected, !self.sent.isEmpty else { return nil }
        return self.waiting.first.map { $0.queuedAt + self.linger }
    }

    // MARK: Answers

    /// nsqd has the messages of the oldest command.
    mutating func accepted() -> [Finished] {
        guard let command = self.popSent() else { return [] }
        return self.end(command.items, .success(()))
    }

    /// nsqd refused the oldest command and closes the connection: what was sent behind it was not carried out.
    mutating func refused(_ error: StalkError) -> [Finished] {
        guard let command = self.popSent() else { return [] }
        for later in self.sent.reversed() { self.waiting.insert(contentsOf: later.items, at: 0) }
        self.sent.removeAll()
        self.sentBytes = 0
        self.isConnected = false
        return self.end(command.items, .failure(error))
    }

    /// The connection is gone: nobody knows what became of what was sent.
    mutating func disconnected(_ reason: StalkError) -> [Finished] {
        self.isConnected = false
        let lost = self.sent
        self.sent.removeAll()
        self.sentBytes = 0
        return lost.flatMap { self.end($0.items, .failure(Self.unknown(reason))) }
    }

    /// No nsqd can be reached: what was not sent is refused.
    mutating func unreachable(_ reason: StalkError) -> [Finished] {
        let items = Array(self.waiting)
        self.waiting.removeAll()
        return self.end(items, .failure(reason))
    }

    /// Answers the calls whose deadline has come.
    mutating func advance(to now: Duration) -> [Finished] {
        guard let deadline = self.nextDeadline, deadline <= now else { return [] }
        self.nextDeadline = self.calls.values.map(\.deadline).filter { $0 > now }.min()
        let late = self.calls.filter { $0.value.deadline <= now }
        guard !late.isEmpty else { return [] }
        let unsent = self.waiting.filter { late[$0.call] != nil }
        self.waiting.removeAll { late[$0.call] != nil }
        let reason = StalkError(.unavailable, "No nsqd took the message before the deadline: it was not sent.")
        var finished = self.end(unsent, .failure(reason))
        let unanswered = self.sent.flatMap(\.items).filter { late[$0.call] != nil }
        let silence = StalkError(.unavailable, "nsqd did not answer before the deadline.")
        finished += self.end(unanswered, .failure(Self.unknown(silence)))
        return finished
    }

    /// When ``advance(to:)`` or ``next(now:)`` is to be called next.
    var nextMoment: Duration? { [self.nextDeadline, self.lingerEnd].compactMap(\.self).min() }

    private mutating func popSent() -> Sent? {
        guard let command = self.sent.popFirst() else { return nil }
        self.sentBytes -= command.bytes
        return command
    }

    private mutating func end(_ items: some Sequence<Item>, _ result: Result<Void, StalkError>) -> [Finished] {
        var finished: [Finished] = []
        for item in items {
            // Once a call is answered, its messages' late answers are for nobody.
            guard self.calls[item.call]?.results[item.index] == nil, self.calls[item.call] != nil else { continue }
            self.calls[item.call]?.results[item.index] = .some(result)
            self.calls[item.call]?.open -= 1
            if self.calls[item.call]?.open == 0, let call = self.calls.removeValue(forKey: item.call) {
                finished.append(Finished(call: item.call, results: call.results.compactMap(\.self)))
            }
        }
        return finished
    }

    private static func unknown(_ reason: StalkError) -> StalkError {
        StalkError(
            .interrupted,
            "The message was sent, but nsqd did not say that it has it: it may be published or not. "
                + "Publish it again where a duplicate is harmless.",
            cause: reason
        )
    }
}
