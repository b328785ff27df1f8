// What moving messages to a destination decides: what is taken, sent, recorded, held and given back, and when.

internal import StalkCore

/// The forwarding from one source to one destination: a value that is told what happened and answers what to do.
///
/// Invariants: each message held is in exactly one of `pending`, `inFlight` and `records`, or in `unrecorded`; `pending`
/// is in the order of taking; of an ordering group at most one batch is in flight.
///
/// The ledger of ambiguous sends is the source itself: it counts an attempt before it hands a message out, and a message
/// that surely did not arrive is released, which takes the attempt back. So what comes with a second attempt may have
/// been sent by a process that did not live to record it.
struct ForwardingStateMachine: Sendable {
    /// A reading of both clocks.
    struct Moment: Sendable {
        var now: Duration
        var wall: Timestamp
    }

    struct Entry: Sendable {
        var index: UInt64
        var receipt: Receipt
        var message: Message
        var publishedAt: Timestamp
        /// When the consumer is to have it, where the remote can keep the rest of the delay.
        var dueAt: Timestamp?
        var group: String
        /// The process that counted it among those that wait.
        var countedBy: String?
        /// The most messages of a batch with it, since a larger one was refused.
        var batchLimit = Int.max
        var tries: Int
        /// When it was sent first without an answer; 0 where that is not known.
        var doubt: Timestamp?
    }

    struct Record: Sendable {
        var entry: Entry
        var disposition: Disposition
    }

    enum Event: Sendable {
        case taken(Result<[Delivery], any Error>)
        case sent(UInt64, Result<[Result<MessageID, StalkError>], any Error>)
        case recorded(UInt64, Result<[Result<Void, StalkError>], any Error>)
        case extended([Receipt], Result<[Result<Void, StalkError>], any Error>)
        case alarm(Duration)
        case nudged
    }

    enum Action: Sendable {
        case take(TakeRequest)
        case send(UInt64, [Message])
        case record(UInt64, [Completion])
        case extend([Receipt], lease: Duration)
        case alarm(Duration)
        case note(ForwardingNote)
    }

    let options: ForwardingOptions
    let source: CollectorCapabilities
    /// Whether the source's attempts count sends and nothing else.
    let attemptsAreSends: Bool
    let maxBatch: Int
    let sendsDeduplicationID: Bool
    /// The longest delay that the destination keeps for sure.
    let reach: Duration
    var random: Jitter

    var breaker: CircuitBreaker
    var rate: SendRate
    var counters = ForwardingCounters()
    /// Why it ended by itself.
    var failure: StalkError?

    var pending: [Entry] = []
    var inFlight: [UInt64: [Entry]] = [:]
    var records: [UInt64: [Record]] = [:]
    var unrecorded: [Record] = []
    var busyGroups: Set<String> = []
    var nextIndex: UInt64 = 1
    var nextCall: UInt64 = 1

    var isTaking = false
    var hasFoundNothing = false
    var isIdle = false
    var isStopping = false
    var averageBytes = 16 << 10
    var sourcePause: Duration = .zero
    var takeAt: Duration = .zero
    var recordAt: Duration = .zero
    var extendAt: Duration?
    var alarmAt: Duration?
    /// Messages refused in a row.
    var refusals = 0
    /// The forwarding that was interrupted, until everything that waited has gone.
    var away: (since: Duration, forwardedBefore: Int)?
    var wasRefused = false

    init(
        options: ForwardingOptions,
        source: CollectorCapabilities,
        destination: CollectorCapabilities,
        sendsDeduplicationID: Bool,
        attemptsAreSends: Bool,
        seed: UInt64
    ) {
        self.options = options
        self.source = source
        self.attemptsAreSends = attemptsAreSends
        self.maxBatch = max(min(options.maxBatch, destination.maxBatch), 1)
        self.sendsDeduplicationID = sendsDeduplicationID
        self.reach = destination.reach
        self.random = Jitter(seed: seed)
        self.breaker = CircuitBreaker(options: options)
        self.rate = SendRate(
            messagesPerSecond: options.messagesPerSecond,
            bytesPerSecond: options.bytesPerSecond
        )
    }

    /// How many messages are in its hands.
    var held: Int {
        self.pending.count + self.inFlight.values.reduce(0) { $0 + $1.count }
            + self.records.values.reduce(0) { $0 + $1.count } + self.unrecorded.count
    }

    /// Whether nothing is left to do after a stop.
    var hasEnded: Bool { self.isStopping && !self.isTaking && self.held == 0 }

    /// Whether messages are on their way back to their places: until they are there, others would be taken before them.
    var isGivingBack: Bool {
        self.records.values.contains { records in records.contains { $0.disposition == .release } }
    }

    var lease: Duration { min(self.options.lease, self.source.maxLease) }
    var window: Int { self.options.order == .queue ? self.maxBatch : self.maxBatch * self.options.maxInFlight }

    /// A message as it is sent now: of its delay, what is left.
    func outgoing(_ entry: Entry, _ moment: Moment) -> Message {
        guard let dueAt = entry.dueAt else { return entry.message }
        var message = entry.message
        let left = Duration.milliseconds(dueAt.millisecondsSince1970 - moment.wall.millisecondsSince1970)
        message.delay = min(max(left, .zero), self.reach)
        return message
    }

    // MARK: Events

    /// Takes no more and sends no more; what is on its way ends first.
    mutating func stop() {
        self.isStopping = true
    }

    mutating func handle(_ event: Event, _ moment: Moment) -> [Action] {
        var actions: [Action] = []
        switch event {
        case .taken(let result): self.taken(result, moment)
        case .sent(let batch, let result): self.sent(batch, result, moment, &actions)
        case .recorded(let call, let result): self.recorded(call, result, moment, &actions)
        case .extended(let receipts, let result): self.extended(receipts, result)
        case .alarm(let at): if self.alarmAt == at { self.alarmAt = nil }
        case .nudged: break
        }
        actions += self.plan(moment)
        return actions
    }

    // MARK: Direct sends

    /// Whether messages may go to the destination at once, past the source; they count as sent then.
    mutating func admitDirect(messages: Int, bytes: Int, _ moment: Moment) -> Bool {
        guard !self.isStopping, messages <= self.rate.largestBatch, self.rate.startAt(now: moment.now) <= moment.now
        else { return false }
        switch self.breaker.permission(now: moment.now) {
        case .all: break
        case .trial where self.inFlight.isEmpty: self.breaker.beginTrial()
        case .trial, .nothing: return false
        }
        self.rate.left(messages: messages, bytes: bytes, now: moment.now)
        return true
    }

    /// What became of messages of these sizes that were sent directly.
    mutating func directEnded(
        _ results: [Result<MessageID, StalkError>],
        sizes: [Int],
        _ moment: Moment
    ) -> [Action] {
        var verdict = BatchVerdict()
        for (result, size) in zip(results, sizes) {
            switch result {
            case .success: verdict.addAccepted(bytes: size)
            case .failure(let error): verdict.add(error)
            }
        }
        self.counters.ambiguous += verdict.ambiguous
        var actions: [Action] = []
        self.judge(verdict, moment, &actions)
        return actions
    }

    // MARK: Taking

    mutating func taken(_ result: Result<[Delivery], any Error>, _ moment: Moment) {
        self.isTaking = false
        switch result {
        case .success(let deliveries):
            self.sourcePause = .zero
            self.hasFoundNothing = deliveries.isEmpty
            guard !deliveries.isEmpty else { return }
            self.isIdle = false
            self.averageBytes = (self.averageBytes + deliveries.reduce(0) { $0 + $1.body.count } / deliveries.count) / 2
            for delivery in deliveries { self.pending.append(self.entry(delivery)) }
            self.extendAt = self.extendAt ?? moment.now + self.lease / 3
        case .failure(let error as StalkError) where !error.isWorthWaiting:
            self.failure = self.failure ?? error
            self.isStopping = true
        case .failure(is CancellationError):
            break
        case .failure:
            self.sourcePause = min(max(self.sourcePause * 2, .seconds(1)), .seconds(60))
            self.takeAt = moment.now + self.sourcePause
        }
    }

    mutating func entry(_ delivery: Delivery) -> Entry {
        var headers = delivery.headers
        let countedBy = headers[FailoverHeader.spool]
        headers[FailoverHeader.spool] = nil
        var doubt = headers[FailoverHeader.doubt].flatMap { Int64($0) }.map(Timestamp.init(millisecondsSince1970:))
        headers[FailoverHeader.doubt] = nil
        let dueAt = headers[FailoverHeader.due].flatMap { Int64($0) }.map(Timestamp.init(millisecondsSince1970:))
        headers[FailoverHeader.due] = nil
        if self.attemptsAreSends, delivery.attempt > 1 {
            doubt = doubt ?? Timestamp(millisecondsSince1970: 0)
            self.counters.ambiguous += 1
        }
        let id = headers[FailoverHeader.id] ?? "\(delivery.queue)/\(delivery.id)"
        headers[FailoverHeader.id] = self.options.sendsID ? id : nil
        if self.sendsDeduplicationID, headers[FailoverHeader.deduplicationID] == nil {
            headers[FailoverHeader.deduplicationID] = id
        }
        defer { self.nextIndex += 1 }
        return Entry(
            index: self.nextIndex,
            receipt: delivery.receipt,
            message: Message(delivery.body, headers: headers),
            publishedAt: delivery.publishedAt,
            dueAt: dueAt,
            group: self.options.order == .queue ? "" : headers[FailoverHeader.group] ?? "",
            countedBy: countedBy,
            tries: delivery.attempt,
            doubt: doubt
        )
    }

    mutating func nextTake(_ moment: Moment) -> [Action] {
        guard !self.isTaking, !self.isStopping, self.unrecorded.isEmpty else { return [] }
        guard self.takeAt <= moment.now, !self.isGivingBack else { return [] }
        var room = self.window - self.held
        switch self.breaker.permission(now: moment.now) {
        case .all: break
        case .trial: room = min(room, self.trialLimit - self.held)
        case .nothing: return []
        }
        guard room > 0 else { return [] }
        let bytes = self.options.maxBatchBytes * (self.options.order == .queue ? 1 : self.options.maxInFlight)
        let most = min(room, max(bytes / max(self.averageBytes, 1), 1), 256, max(self.source.maxBatch, 1))
        self.isTaking = true
        let wait: Duration = self.hasFoundNothing ? .seconds(20) : .zero
        let request = TakeRequest(max: most, wait: wait, lease: self.lease)
        return (wait == .zero ? [.note(.looking)] : []) + [.take(request)]
    }
}

extension CollectorCapabilities {
    /// The longest delay that survives a restart of the backend.
    var reach: Duration { self.durableDelay ? self.maxDelay : .zero }
}
