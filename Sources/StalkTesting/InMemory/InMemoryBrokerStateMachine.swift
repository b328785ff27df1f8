// What the in-memory queues decide: a value that is told the time and does nothing by itself.

internal import StalkCore

/// The queues of one ``InMemoryBroker``.
///
/// Invariants: each entry is in its queue's `waiting` or `leased`, never in both; `waiting` is sorted.
/// Nothing expires by itself: every call first ends the leases that are over at its `now`.
struct InMemoryBrokerStateMachine: Sendable {
    /// Where a message stands in line: by the moment it is due, then by the order of publishing.
    struct Place: Comparable {
        var dueAt: Duration
        var sequence: UInt64

        static func < (left: Place, right: Place) -> Bool {
            (left.dueAt, left.sequence) < (right.dueAt, right.sequence)
        }
    }

    struct Lease {
        var number: UInt64
        var expiresAt: Duration
    }

    struct Entry {
        var message: Message
        var publishedAt: Timestamp
        var place: Place
        var attempts = 0
        var history: [String] = []
        var lease: Lease?
    }

    struct Queue {
        var isAsleep = true
        var maxInFlight: Int?
        var waiting: [Place] = []
        var leased: Set<UInt64> = []
        var entries: [UInt64: Entry] = [:]
        /// The lease that each acknowledged message was acknowledged under, so that a second one is harmless.
        var acknowledged: [UInt64: UInt64] = [:]
        var dead: [InMemoryCollector.DeadMessage] = []
    }

    enum TakeResult {
        case delivered([Delivery])
        /// Nothing to deliver now; `nextDue` is when that can change without a call.
        case nothing(nextDue: Duration?)
    }

    let capabilities: CollectorCapabilities
    /// What tells this broker's receipts from another's.
    let identity: UInt64
    private(set) var queues: [QueueName: Queue] = [:]
    private var nextSequence: UInt64 = 1
    private var nextLease: UInt64 = 1

    init(capabilities: CollectorCapabilities, identity: UInt64) {
        self.capabilities = capabilities
        self.identity = identity
    }

    // MARK: Publishing

    mutating func publish(
        _ messages: [Message],
        to name: QueueName,
        now: Duration,
        wallTime: Timestamp
    ) throws(StalkError) -> [Result<MessageID, StalkError>] {
        try self.checkBatch(messages.count, "messages")
        return messages.map { message in
            Result { () throws(StalkError) in
                try message.validate(for: self.capabilities)
                return self.insert(message, into: name, now: now, wallTime: wallTime)
            }
        }
    }

    private mutating func insert(
        _ message: Message,
        into name: QueueName,
        now: Duration,
        wallTime: Timestamp
    ) -> MessageID {
        let sequence = self.nextSequence
        self.nextSequence += 1
        let place = Place(dueAt: now + message.delay, sequence: sequence)
        self.queues[name, default: Queue()].add(Entry(message: message, publishedAt: wallTime, place: place))
        return Self.id(sequence)
    }

    // MARK: Taking

    mutating func take(_ request: TakeRequest, from name: QueueName, now: Duration) -> TakeResult {
        // Taken out and put back, so that it is changed in place instead of being copied.
        var queue = self.queues.removeValue(forKey: name) ?? Queue()
        defer { self.queues[name] = queue }
        queue.expireLeases(now: now)
        let room = queue.maxInFlight.map { max($0 - queue.leased.count, 0) } ?? .max
        let ready = queue.waiting.prefix { $0.dueAt <= now }.count
        let count = queue.isAsleep ? 0 : min(request.max, self.capabilities.maxBatch, room, ready)
        guard count > 0 else { return .nothing(nextDue: queue.nextChange(after: now)) }

        let places = Array(queue.waiting.prefix(count))
        queue.waiting.removeFirst(count)
        return .delivered(
            places.compactMap { place in
                let lease = Lease(number: self.nextLease, expiresAt: now + request.lease)
                self.nextLease += 1
                return queue.lend(place.sequence, lease).map { self.delivery(of: $0, lease, from: name) }
            }
        )
    }

    private func delivery(of entry: Entry, _ lease: Lease, from name: QueueName) -> Delivery {
        let sequence = entry.place.sequence
        return Delivery(
            id: Self.id(sequence),
            queue: name,
            body: entry.message.body,
            headers: entry.message.headers,
            attempt: entry.attempts,
            publishedAt: entry.publishedAt,
            receipt: Receipt(token: .local(store: self.identity, sequence: sequence, lease: lease.number))
        )
    }

    // MARK: Finishing

    mutating func finish(
        _ completions: [Completion],
        in name: QueueName,
        now: Duration,
        wallTime: Timestamp
    ) throws(StalkError) -> [Result<Void, StalkError>] {
        try self.checkBatch(completions.count, "completions")
        self.queues[name]?.expireLeases(now: now)
        return completions.map { completion in
            Result { () throws(StalkError) in
                try self.finish(completion, in: name, now: now, wallTime: wallTime)
            }
        }
    }

    private mutating func finish(
        _ completion: Completion,
        in name: QueueName,
        now: Duration,
        wallTime: Timestamp
    ) throws(StalkError) {
        try self.checkDisposition(completion.disposition)
        let (sequence, lease) = try self.resolve(completion.receipt, in: name)
        var queue = self.queues.removeValue(forKey: name) ?? Queue()
        let hasEnded = queue.end(sequence, lease, completion.disposition, now: now, self.capabilities)
        self.queues[name] = queue
        guard hasEnded else { throw Self.staleReceipt(completion.receipt) }
        if case .acknowledgeAndPublish(let outgoing) = completion.disposition {
            for item in outgoing {
                _ = self.insert(item.message, into: item.queue, now: now, wallTime: wallTime)
            }
        }
    }

    /// Refuses what can't be kept before anything changes, so that a disposition works as a whole or not at all.
    private func checkDisposition(_ disposition: Disposition) throws(StalkError) {
        switch disposition {
        case .acknowledge, .deadLetter, .release:
            break
        case .retry(let delay, _):
            try Message.validate(delay: delay, largest: self.capabilities.maxRetryDelay)
        case .acknowledgeAndPublish(let outgoing):
            guard self.capabilities.atomicPublish else {
                throw StalkError(
                    .unsupported,
                    "This collector can't acknowledge and publish in one step: publish first."
                )
            }
            for item in outgoing { try item.message.validate(for: self.capabilities) }
        }
    }

    // MARK: Extending

    mutating func extend(
        _ receipts: [Receipt],
        lease duration: Duration,
        in name: QueueName,
        now: Duration
    ) throws(StalkError) -> [Result<Void, StalkError>] {
        guard self.capabilities.leaseExtension else {
            throw StalkError(.unsupported, "This collector can't extend leases: take with a longer one.")
        }
        try self.checkBatch(receipts.count, "receipts")
        try TakeRequest.validate(lease: duration, for: self.capabilities)
        self.queues[name]?.expireLeases(now: now)
        return receipts.map { receipt in
            Result { () throws(StalkError) in
                let (sequence, lease) = try self.resolve(receipt, in: name)
                guard self.queues[name]?.entries[sequence]?.lease?.number == lease else {
                    throw Self.staleReceipt(receipt)
                }
                self.queues[name]?.entries[sequence]?.lease?.expiresAt = now + duration
            }
        }
    }

    // MARK: Control

    mutating func control(
        _ command: CollectorCommand,
        of name: QueueName,
        now: Duration
    ) throws(StalkError) -> CollectorStatus {
        var queue = self.queues.removeValue(forKey: name) ?? Queue()
        defer { self.queues[name] = queue }
        queue.expireLeases(now: now)
        switch command {
        case .report: break
        case .sleep: queue.isAsleep = true
        case .wake: queue.isAsleep = false
        case .scale(let maxInFlight):
            guard maxInFlight >= 0 else {
                throw StalkError(.invalidArgument, "Can't scale to \(maxInFlight): give 0 to drain, or more.")
            }
            queue.maxInFlight = maxInFlight
        }
        return CollectorStatus(
            isAsleep: queue.isAsleep,
            maxInFlight: queue.maxInFlight,
            inFlight: queue.leased.count
        )
    }

    // MARK: Receipts and ids

    fileprivate static func id(_ sequence: UInt64) -> MessageID { MessageID("memory-\(sequence)") }

    private static func staleReceipt(_ receipt: Receipt) -> StalkError {
        StalkError(.staleReceipt, "The lease of \(receipt) is over: the message may have gone to somebody else.")
    }

    private func resolve(_ receipt: Receipt, in name: QueueName) throws(StalkError) -> (sequence: UInt64, lease: UInt64)
    {
        guard case .local(self.identity, let sequence, let lease) = receipt.token,
            !self.queues.contains(where: { $0.key != name && $0.value.knows(sequence) })
        else {
            throw StalkError(
                .foreignReceipt,
                "The receipt \(receipt) was not issued by \(name): finish it where it was taken."
            )
        }
        return (sequence, lease)
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

extension InMemoryBrokerStateMachine.Queue {
    typealias Entry = InMemoryBrokerStateMachine.Entry
    typealias Lease = InMemoryBrokerStateMachine.Lease

    /// Puts a message in line at its place.
    mutating func add(_ entry: Entry) {
        let position = self.waiting.partitioningIndex { $0 >= entry.place }
        self.waiting.insert(entry.place, at: position)
        self.entries[entry.place.sequence] = entry
    }

    /// Hands a message out; its place is already off the line.
    mutating func lend(_ sequence: UInt64, _ lease: Lease) -> Entry? {
        guard var entry = self.entries[sequence] else { return nil }
        entry.attempts += 1
        entry.lease = lease
        self.entries[sequence] = entry
        self.leased.insert(sequence)
        return entry
    }

    /// Ends a delivery, unless its lease is over.
    mutating func end(
        _ sequence: UInt64,
        _ lease: UInt64,
        _ disposition: Disposition,
        now: Duration,
        _ capabilities: CollectorCapabilities
    ) -> Bool {
        if disposition == .acknowledge, self.acknowledged[sequence] == lease { return true }
        guard var entry = self.entries[sequence], entry.lease?.number == lease else { return false }
        self.leased.remove(sequence)
        self.entries[sequence] = nil
        entry.lease = nil
        switch disposition {
        case .acknowledge, .acknowledgeAndPublish:
            self.acknowledged[sequence] = lease
        case .retry(let delay, let reason):
            entry.history.append(reason)
            entry.place.dueAt = now + delay
            self.add(entry)
        case .deadLetter(let reason):
            entry.history.append(reason)
            let id = InMemoryBrokerStateMachine.id(sequence)
            self.dead.append(InMemoryCollector.DeadMessage(entry, id: id, reason: reason))
        case .release:
            if capabilities.uncountedRelease { entry.attempts -= 1 }
            self.add(entry)
        }
        return true
    }

    /// Puts back whose lease is over: it became ready when the lease ended.
    mutating func expireLeases(now: Duration) {
        for sequence in self.leased {
            guard var entry = self.entries[sequence], let lease = entry.lease, lease.expiresAt <= now else { continue }
            self.leased.remove(sequence)
            entry.lease = nil
            entry.place.dueAt = lease.expiresAt
            self.add(entry)
        }
    }

    /// When a message becomes ready without a call.
    func nextChange(after now: Duration) -> Duration? {
        let due = self.waiting.first { $0.dueAt > now }?.dueAt
        let expiry = self.leased.compactMap { self.entries[$0]?.lease?.expiresAt }.min()
        return [due, expiry].compactMap(\.self).min()
    }

    /// Whether the message is or was of this queue.
    func knows(_ sequence: UInt64) -> Bool {
        self.entries[sequence] != nil || self.acknowledged[sequence] != nil
    }
}

extension Array {
    /// The first index whose element fulfils a condition that holds for all elements after it as well.
    fileprivate func partitioningIndex(where isAfter: (Element) -> Bool) -> Int {
        var (low, high) = (0, self.count)
        while low < high {
            let middle = low + (high - low) / 2
            if isAfter(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
