// What the consumer decides: a value that is told what comes and what time it is, and says what to send.

internal import DequeModule
internal import StalkCore

/// What a consumer's owner has to do.
enum ConsumerAction {
    case send(ConnectionID, NSQCommand)
    /// The taker is answered; it is forgotten here.
    case answer(UInt64, [Delivery])
    /// Publish this to the error topic, then call ``ConsumerStateMachine/deadLettered(_:succeeded:now:)``.
    case deadLetter(UInt64, Delivery, reason: String)
}

/// One channel's deliveries over any number of connections.
///
/// Leases are kept here: nsqd knows one time-out per connection, so a lease is kept alive with TOUCH while it lasts and
/// ended with REQ when it is over. What nsqd sent and nobody took yet is given back when half its time-out is over.
/// RDY is what takers asked for, so that a single `take` raises the attempts of no other message.
struct ConsumerStateMachine {
    struct Held {
        enum State {
            case buffered
            case leased(until: Duration)
            /// On its way to the error topic; kept alive until that is decided.
            case leaving
        }

        var delivery: Delivery
        var key: MessageKey
        var connection: ConnectionID
        var arrivedAt: Duration
        var touchedAt: Duration
        var state: State
    }

    struct Connection {
        var features: ServerFeatures
        var sentReady = 0
        var unfinished = 0
    }

    struct Taker {
        var id: UInt64
        var request: TakeRequest
        /// When it is answered with nothing; `nil` where the owner says so.
        var deadline: Duration?
    }

    /// How many acknowledged deliveries are remembered, so that a second acknowledge is harmless.
    static let rememberedAcknowledges = 1 << 16
    /// How long after the last taker left messages are still fetched for the next one.
    static let patience = Duration.seconds(5)

    let queue: QueueName
    let identity: UInt64
    let configuration: NSQConfiguration
    let capabilities: CollectorCapabilities

    var isAsleep = true
    var isClosing = false
    var maxInFlight: Int?
    var backoff: Backoff
    var shares = ReadyShares()
    var connections: [ConnectionID: Connection] = [:]
    /// The connections in the order in which they came.
    var order: [ConnectionID] = []
    var held: [UInt64: Held] = [:]
    var buffer: Deque<UInt64> = []
    var leasedCount = 0
    var takers: Deque<Taker> = []
    var nextSerial: UInt64 = 1
    var acknowledged: [UInt64]
    /// Whether a taker was here lately, so that fetching ahead makes sense.
    var hasTaken = false
    /// Until when a taker that may come back is waited for; `nil` while there is one, or nothing to wait with.
    var patienceEnds: Duration?
    /// Nothing in `held` needs attention before.
    var nextCheck: Duration?

    init(queue: QueueName, identity: UInt64, configuration: NSQConfiguration) {
        self.queue = queue
        self.identity = identity
        self.configuration = configuration
        self.capabilities = configuration.capabilities
        self.maxInFlight = configuration.maxInFlight
        self.backoff = Backoff(configuration.backoff)
        self.acknowledged = Array(repeating: 0, count: Self.rememberedAcknowledges)
    }

    // MARK: Connections

    mutating func connected(_ id: ConnectionID, _ features: ServerFeatures, now: Duration) -> [ConsumerAction] {
        self.connections[id] = Connection(features: features)
        self.order.append(id)
        var actions: [ConsumerAction] = []
        self.settle(&actions, now: now)
        return actions
    }

    /// A connection is gone: its deliveries come again when nsqd's time-out is over, and their receipts are stale.
    mutating func disconnected(_ id: ConnectionID, now: Duration) -> [ConsumerAction] {
        guard self.connections.removeValue(forKey: id) != nil else { return [] }
        self.order.removeAll { $0 == id }
        for (serial, held) in self.held where held.connection == id { self.forget(serial) }
        self.dropUnheld()
        var actions: [ConsumerAction] = []
        self.settle(&actions, now: now)
        return actions
    }

    // MARK: Messages

    /// Takes the messages of one read; takers are served when all are in.
    mutating func received(_ messages: [NSQMessage], from id: ConnectionID, now: Duration) -> [ConsumerAction] {
        guard let connection = self.connections[id] else { return [] }
        var actions: [ConsumerAction] = []
        for message in messages {
            let serial = self.nextSerial
            self.nextSerial += 1
            self.connections[id]?.unfinished += 1
            let delivery = self.delivery(of: message, serial)
            self.held[serial] = Held(
                delivery: delivery,
                key: message.key,
                connection: id,
                arrivedAt: now,
                touchedAt: now,
                state: .buffered
            )
            if let limit = self.configuration.maxAttempts, delivery.attempt > limit {
                self.held[serial]?.state = .leaving
                let reason = "attempt \(delivery.attempt) of at most \(limit)"
                actions.append(.deadLetter(serial, delivery, reason: reason))
            } else if self.isAsleep || self.isClosing {
                // It was on its way when RDY 0 was sent.
                self.giveBack(serial, &actions)
            } else {
                self.buffer.append(serial)
            }
        }
        self.check(at: now + connection.features.messageTimeout / 2)
        self.settle(&actions, now: now)
        return actions
    }

    private func delivery(of message: NSQMessage, _ serial: UInt64) -> Delivery {
        let envelope = self.configuration.envelope ? Envelope(decoding: message.body) : nil
        return Delivery(
            id: MessageID(envelope?.id ?? message.key.description),
            queue: self.queue,
            body: envelope?.body ?? message.body,
            headers: envelope?.headers ?? [:],
            // The counter has 16 bits; after 65,535 it begins again with 0.
            attempt: message.attempts == 0 ? 65_536 : Int(message.attempts),
            publishedAt: Timestamp(millisecondsSince1970: message.timestamp / 1_000_000),
            receipt: Receipt(token: .local(store: self.identity, sequence: serial, lease: serial))
        )
    }

    // MARK: Taking

    mutating func take(_ id: UInt64, _ request: TakeRequest, deadline: Duration?, now: Duration) -> [ConsumerAction] {
        self.takers.append(Taker(id: id, request: request, deadline: deadline))
        self.hasTaken = true
        var actions: [ConsumerAction] = []
        self.settle(&actions, now: now)
        return actions
    }

    /// A taker waits no longer; returns what is to be done then, or `nil` where it was answered before.
    mutating func cancel(_ id: UInt64, now: Duration) -> [ConsumerAction]? {
        guard let position = self.takers.firstIndex(where: { $0.id == id }) else { return nil }
        self.takers.remove(at: position)
        var actions: [ConsumerAction] = []
        self.settle(&actions, now: now)
        return actions
    }

    /// Hands out what may be handed out, and sends each connection the RDY count that is right now.
    mutating func settle(_ actions: inout [ConsumerAction], now: Duration) {
        self.serveTakers(&actions, now: now)
        let waits = self.takers.isEmpty && (self.hasTaken || !self.buffer.isEmpty)
        self.patienceEnds = waits ? self.patienceEnds ?? now + Self.patience : nil
        self.balance(&actions)
    }

    private mutating func serveTakers(_ actions: inout [ConsumerAction], now: Duration) {
        guard !self.isAsleep, !self.isClosing else { return }
        while let taker = self.takers.first, !self.buffer.isEmpty {
            let limit = self.maxInFlight.map { max($0 - self.leasedCount, 0) } ?? .max
            let room = min(limit, self.backoff.room(leased: self.leasedCount))
            let count = min(taker.request.max, self.capabilities.maxBatch, self.buffer.count, room)
            guard count > 0 else { return }
            var deliveries: [Delivery] = []
            deliveries.reserveCapacity(count)
            for serial in self.buffer.prefix(count) {
                guard let delivery = self.held[serial]?.delivery else { continue }
                self.held[serial]?.state = .leased(until: now + taker.request.lease)
                self.backoff.handedOut(serial)
                deliveries.append(delivery)
            }
            self.buffer.removeFirst(count)
            self.leasedCount += deliveries.count
            self.check(at: now + taker.request.lease)
            self.takers.removeFirst()
            actions.append(.answer(taker.id, deliveries))
        }
    }

    /// How many messages may be out in all.
    var budget: Int {
        guard !self.isAsleep, !self.isClosing else { return 0 }
        let asked = self.takers.reduce(0) { $0 + min($1.request.max, self.capabilities.maxBatch) }
        let wanted = self.leasedCount + asked + (self.hasTaken ? self.configuration.prefetch : 0)
        return [wanted, self.maxInFlight ?? .max, self.backoff.budget ?? .max].min() ?? 0
    }

    private mutating func balance(_ actions: inout [ConsumerAction]) {
        let counts = self.shares.counts(budget: self.budget, connections: self.loads)
        for (id, count) in zip(self.order, counts) {
            guard let sent = self.connections[id]?.sentReady, sent != count else { continue }
            self.connections[id]?.sentReady = count
            if self.isClosing { continue }
            // Less goes out before the FIN or REQ that makes room: nsqd would fill it at once.
            actions.insert(.send(id, .ready(count)), at: count < sent ? 0 : actions.endIndex)
        }
    }

    /// Whether ``rotate(now:)`` is to be called from time to time, so that each connection gets its turn.
    var rotates: Bool {
        self.order.count > 1 && ReadyShares.rotates(budget: self.budget, connections: self.loads)
    }

    mutating func rotate(now: Duration) -> [ConsumerAction] {
        self.shares.rotate()
        var actions: [ConsumerAction] = []
        self.settle(&actions, now: now)
        return actions
    }

    private var loads: [ReadyShares.Connection] {
        self.order.compactMap { self.connections[$0] }.map {
            ReadyShares.Connection(
                maxReady: $0.features.maxReadyCount,
                unfinished: $0.unfinished,
                sentReady: $0.sentReady
            )
        }
    }

    /// Notes that something in `held` needs attention at a moment.
    mutating func check(at moment: Duration) {
        self.nextCheck = min(self.nextCheck ?? moment, moment)
    }

    // MARK: Control

    mutating func control(
        _ command: CollectorCommand,
        now: Duration
    ) throws(StalkError) -> (status: CollectorStatus, actions: [ConsumerAction]) {
        var actions: [ConsumerAction] = []
        switch command {
        case .report: break
        case .sleep: self.isAsleep = true
        case .wake: self.isAsleep = false
        case .scale(let limit):
            guard limit >= 0 else {
                throw StalkError(.invalidArgument, "Can't scale to \(limit): give 0 to drain, or more.")
            }
            self.maxInFlight = limit
        }
        // What can't be handed out now is of more use to others.
        let keep = self.isAsleep ? 0 : self.maxInFlight.map { max($0 - self.leasedCount, 0) } ?? .max
        while self.buffer.count > keep, let serial = self.buffer.popLast() { self.giveBack(serial, &actions) }
        self.settle(&actions, now: now)
        return (self.status, actions)
    }

    var status: CollectorStatus {
        CollectorStatus(isAsleep: self.isAsleep, maxInFlight: self.maxInFlight, inFlight: self.leasedCount)
    }

    /// Begins the end: no more messages, and what nobody took goes back at once.
    mutating func startClosing() -> [ConsumerAction] {
        self.isClosing = true
        var actions = self.order.map { ConsumerAction.send($0, .startClose) }
        for serial in self.buffer { self.giveBack(serial, &actions) }
        self.buffer.removeAll()
        actions += self.takers.map { .answer($0.id, []) }
        self.takers.removeAll()
        return actions
    }

    /// Ends it: what is still leased goes back as well.
    mutating func close() -> [ConsumerAction] {
        var actions: [ConsumerAction] = []
        for serial in Array(self.held.keys) { self.giveBack(serial, &actions) }
        return actions
    }

    // MARK: Letting go

    /// Forgets what is in the buffer but no longer held.
    mutating func dropUnheld() {
        self.buffer = Deque(self.buffer.filter { self.held[$0] != nil })
    }

    mutating func giveBack(_ serial: UInt64, _ actions: inout [ConsumerAction]) {
        guard let held = self.held[serial] else { return }
        self.forget(serial)
        actions.append(.send(held.connection, .requeue(held.key, milliseconds: 0)))
    }

    mutating func forget(_ serial: UInt64) {
        guard let held = self.held.removeValue(forKey: serial) else { return }
        self.connections[held.connection]?.unfinished -= 1
        if case .leased = held.state { self.leasedCount -= 1 }
        self.backoff.ended(serial)
    }
}
