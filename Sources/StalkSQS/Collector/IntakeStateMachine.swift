// Decides what is received, who gets it, and how long SQS is to keep it from others. It does nothing itself: its methods
// return what is to be done.

internal import StalkCore

/// The messages that a collector holds, the takes that wait, and the polls that are under way.
struct IntakeStateMachine: Sendable {
    /// What the driver is to do.
    enum Action: Hashable, Sendable {
        /// Ask SQS for messages, and tell ``polled(_:_:now:)`` or ``pollFailed(_:_:now:)``.
        case poll(Poll)
        /// End a take with messages, after their leases were cut to size.
        case deliver(take: Int, [ReceivedMessage], shorten: [VisibilityChange])
        /// End a take with an error.
        case fail(take: Int, code: StalkError.Code, message: String)
        /// End a take whose task was cancelled.
        case cancel(take: Int)
        /// Change how long SQS keeps messages from others, and tell ``changed(_:_:sentAt:now:)``.
        case change([VisibilityChange])
    }

    struct Poll: Hashable, Sendable {
        var id: Int
        var max: Int
        /// In whole seconds, as SQS takes it.
        var waitSeconds: Int
        var visibilitySeconds: Int
    }

    struct VisibilityChange: Hashable, Sendable {
        var handle: String
        var seconds: Int
    }

    struct Held: Sendable {
        var message: ReceivedMessage
        var receivedAt: Duration
        /// When SQS lets the message come again.
        var visibleAt: Duration
        /// When the taker's lease ends; `nil` while the message was not taken.
        var leasedUntil: Duration?
        /// Whether its visibility is being changed, or its end is on its way: nothing else is begun then.
        var isBusy = false
        var restsUntil = Duration.zero
    }

    /// What is known of a receipt.
    enum Standing: Sendable {
        case held(ReceivedMessage, receivedAt: Duration)
        case acknowledged
        case stale
        case unknown
    }

    struct Waiter: Sendable {
        var id: Int
        var max: Int
        var deadline: Duration
        var lease: Duration
        /// A take that waits for nothing ends with the poll that was made for it.
        var isImmediate: Bool
        var poll: Int?
    }

    private enum Past { case acknowledged, stale }

    static let maxPollers = 16
    private static let rememberedReceipts = 20_000

    let prefetch: Int
    private(set) var isAsleep = true
    private(set) var maxInFlight: Int?
    private(set) var inFlight = 0

    private(set) var held: [String: Held] = [:]
    private var byMessage: [MessageID: String] = [:]
    private(set) var ready: [String] = []
    private var past: [String: Past] = [:]
    private var pastOrder: [String] = []
    private(set) var waiters: [Waiter] = []
    private var cancelledTakes: Set<Int> = []
    private(set) var polls: [Int: Poll] = [:]
    private var nextPoll = 0
    /// How many long polls may be under way: more while they come back full.
    private var pollers = 1
    private var isFlowing = false
    private var isClosed = false
    private var lastTake = Duration.zero
    private var leaseSeconds = 30
    private var groups: [String: Int] = [:]
    /// Nothing that is held needs a look before this.
    private var nextLook = Duration.seconds(Int64.max / 4)

    init(prefetch: Int) {
        self.prefetch = max(0, prefetch)
    }

    // MARK: Taking

    mutating func take(_ id: Int, _ request: TakeRequest, now: Duration) -> [Action] {
        if self.cancelledTakes.remove(id) != nil { return [.cancel(take: id)] }
        if self.isClosed {
            return [
                .fail(
                    take: id,
                    code: .closed,
                    message: "This collector was closed: open it "
                        + "again."
                )
            ]
        }
        self.lastTake = now
        self.leaseSeconds = Self.wholeSeconds(request.lease)
        self.waiters.append(
            Waiter(
                id: id,
                max: request.max,
                deadline: now + request.wait,
                lease: request.lease,
                isImmediate: request.wait == .zero
            )
        )
        return self.settle(now: now)
    }

    mutating func cancelTake(_ id: Int) -> [Action] {
        guard let index = self.waiters.firstIndex(where: { $0.id == id }) else {
            self.cancelledTakes.insert(id)
            return []
        }
        self.waiters.remove(at: index)
        return [.cancel(take: id)]
    }

    /// A take has ended; its cancellation means nothing any more.
    mutating func forgetTake(_ id: Int) { self.cancelledTakes.remove(id) }

    // MARK: Polling

    mutating func polled(_ id: Int, _ messages: [ReceivedMessage], now: Duration) -> [Action] {
        guard let poll = self.polls.removeValue(forKey: id) else { return [] }
        self.isFlowing = !messages.isEmpty
        if messages.count >= QueueLimits.maxBatchEntries {
            self.pollers = min(self.pollers * 2, Self.maxPollers)
        } else if messages.isEmpty {
            self.pollers = 1
        }
        var unwanted: [VisibilityChange] = []
        for message in messages {
            if self.isAsleep || self.isClosed {
                unwanted.append(VisibilityChange(handle: message.handle, seconds: 0))
            } else {
                self.hold(message, visibleAt: now + .seconds(poll.visibilitySeconds), now: now)
            }
        }
        var actions = self.settle(now: now)
        for waiter in self.waiters where waiter.poll == id { actions += self.end(waiter.id) }
        return unwanted.isEmpty ? actions : [.change(unwanted)] + actions
    }

    mutating func pollFailed(_ id: Int, _ error: StalkError, now: Duration) -> [Action] {
        self.polls[id] = nil
        self.isFlowing = false
        self.pollers = 1
        let concerned = self.waiters.filter { $0.poll == id || !$0.isImmediate }.map(\.id)
        self.waiters.removeAll { concerned.contains($0.id) }
        return concerned.map { .fail(take: $0, code: error.code, message: error.message) }
    }

    private mutating func hold(_ message: ReceivedMessage, visibleAt: Duration, now: Duration) {
        if let older = self.byMessage[message.id] { self.drop(older, as: .stale) }
        self.byMessage[message.id] = message.handle
        self.held[message.handle] = Held(message: message, receivedAt: now, visibleAt: visibleAt)
        self.ready.append(message.handle)
        self.nextLook = min(self.nextLook, visibleAt - self.margin)
    }

    // MARK: What is held

    func standing(of handle: String) -> Standing {
        if let held = self.held[handle], held.leasedUntil != nil {
            return .held(held.message, receivedAt: held.receivedAt)
        }
        return switch self.past[handle] {
        case .acknowledged: .acknowledged
        case .stale: .stale
        case nil: .unknown
        }
    }

    /// The end of deliveries is on its way: their leases are left alone.
    mutating func endBegins(_ handles: [String]) {
        for handle in handles { self.held[handle]?.isBusy = true }
    }

    /// The end of a delivery did not get through: its lease is kept as before.
    mutating func endFailed(_ handle: String, now: Duration) -> [Action] {
        self.held[handle]?.isBusy = false
        self.nextLook = now
        return self.settle(now: now)
    }

    /// A delivery has ended.
    mutating func ended(_ handle: String, acknowledged: Bool, now: Duration) -> [Action] {
        let group = self.held[handle]?.message.group
        self.drop(handle, as: acknowledged ? .acknowledged : .stale)
        // What comes after it in its group must not overtake it.
        let later = acknowledged || group == nil ? [] : self.ready.filter { self.held[$0]?.message.group == group }
        let giveBack = self.giveBack(later)
        return (giveBack.isEmpty ? [] : [.change(giveBack)]) + self.settle(now: now)
    }

    /// A lease was extended at the taker's wish.
    mutating func extended(_ handle: String, to leasedUntil: Duration, seconds: Int, sentAt: Duration) {
        self.held[handle]?.leasedUntil = leasedUntil
        self.held[handle]?.visibleAt = sentAt + .seconds(seconds)
        self.nextLook = sentAt
    }

    /// SQS has taken a change of visibility, or refused it.
    mutating func changed(
        _ change: VisibilityChange,
        _ result: Result<Void, StalkError>,
        sentAt: Duration,
        now: Duration
    ) -> [Action] {
        guard self.held[change.handle] != nil else { return [] }
        self.held[change.handle]?.isBusy = false
        switch result {
        case .success:
            self.held[change.handle]?.visibleAt = sentAt + .seconds(change.seconds)
        case .failure(let error) where error.code == .staleReceipt:
            self.drop(change.handle, as: .stale)
        case .failure:
            self.held[change.handle]?.restsUntil = now + .seconds(1)
        }
        self.nextLook = now
        return self.settle(now: now)
    }

    private mutating func drop(_ handle: String, as past: Past) {
        if let held = self.held.removeValue(forKey: handle) {
            if self.byMessage[held.message.id] == handle { self.byMessage[held.message.id] = nil }
            if held.leasedUntil != nil {
                self.inFlight -= 1
                if let group = held.message.group { self.groups[group, default: 1] -= 1 }
            } else {
                self.ready.removeAll { $0 == handle }
            }
        }
        if self.past.updateValue(past, forKey: handle) == nil { self.pastOrder.append(handle) }
        if self.pastOrder.count > Self.rememberedReceipts {
            for handle in self.pastOrder.prefix(Self.rememberedReceipts / 2) { self.past[handle] = nil }
            self.pastOrder.removeFirst(Self.rememberedReceipts / 2)
        }
    }

    private mutating func giveBack(_ handles: [String]) -> [VisibilityChange] {
        for handle in handles { self.drop(handle, as: .stale) }
        return handles.map { VisibilityChange(handle: $0, seconds: 0) }
    }

    // MARK: Control

    /// Puts to sleep, and says what to give back at once.
    mutating func sleep(now: Duration) -> (giveBack: [VisibilityChange], actions: [Action]) {
        self.isAsleep = true
        self.isFlowing = false
        return (self.giveBack(self.ready), self.settle(now: now))
    }

    mutating func wake(now: Duration) -> [Action] {
        self.isAsleep = false
        return self.settle(now: now)
    }

    mutating func scale(to maxInFlight: Int, now: Duration) -> [Action] {
        self.maxInFlight = maxInFlight
        return self.settle(now: now)
    }

    /// Ends everything, and says what to give back at once.
    mutating func close(now: Duration) -> (giveBack: [VisibilityChange], actions: [Action]) {
        self.isClosed = true
        let (giveBack, actions) = self.sleep(now: now)
        let failures = self.waiters.map { waiter in
            Action.fail(take: waiter.id, code: .closed, message: "The collector was closed while a take waited.")
        }
        self.waiters = []
        return (giveBack, actions + failures)
    }

    // MARK: Settling

    /// The moment of the next thing that happens by itself.
    func nextAlarm(now: Duration) -> Duration? {
        let deadline = self.waiters.map(\.deadline).min()
        let look = self.held.isEmpty ? nil : self.nextLook
        return [deadline, look].compactMap(\.self).min()
    }

    /// Does everything that is due.
    mutating func settle(now: Duration) -> [Action] {
        // What is handed out now needs no extension for the wait that is over.
        var actions = self.hand(now: now)
        if now >= self.nextLook { actions += self.look(now: now) }
        actions += self.startPolls(now: now)
        for waiter in self.waiters where waiter.deadline <= now && (!waiter.isImmediate || waiter.poll == nil) {
            actions += self.end(waiter.id)
        }
        return actions
    }

    private mutating func end(_ take: Int) -> [Action] {
        self.waiters.removeAll { $0.id == take }
        return [.deliver(take: take, [], shorten: [])]
    }

    private var room: Int { max(0, (self.maxInFlight ?? .max) - self.inFlight) }

    /// Hands what is ready to those who wait, first come, first served.
    private mutating func hand(now: Duration) -> [Action] {
        guard !self.isAsleep else { return [] }
        var actions: [Action] = []
        var index = 0
        while index < self.waiters.count, self.room > 0 {
            let waiter = self.waiters[index]
            var messages: [ReceivedMessage] = []
            var shorten: [VisibilityChange] = []
            while messages.count < waiter.max, self.room > 0, let handle = self.nextReady(now: now) {
                guard var held = self.held[handle] else { continue }
                let leasedUntil = now + waiter.lease
                held.leasedUntil = leasedUntil
                if held.visibleAt > leasedUntil + .milliseconds(500) {
                    held.visibleAt = leasedUntil
                    shorten.append(VisibilityChange(handle: handle, seconds: Self.wholeSeconds(waiter.lease)))
                }
                self.held[handle] = held
                self.nextLook = min(self.nextLook, min(held.visibleAt, leasedUntil) - self.margin)
                self.inFlight += 1
                if let group = held.message.group { self.groups[group, default: 0] += 1 }
                messages.append(held.message)
            }
            if messages.isEmpty {
                index += 1
            } else {
                self.waiters.remove(at: index)
                actions.append(.deliver(take: waiter.id, messages, shorten: shorten))
            }
        }
        return actions
    }

    /// Takes the first message off the line that may go out: in a FIFO queue, none of whose group is being worked on.
    private mutating func nextReady(now: Duration) -> String? {
        let index = self.ready.firstIndex { handle in
            guard let held = self.held[handle], !held.isBusy, held.visibleAt > now else { return false }
            return held.message.group.map { self.groups[$0, default: 0] == 0 } ?? true
        }
        return index.map { self.ready.remove(at: $0) }
    }

    private mutating func startPolls(now: Duration) -> [Action] {
        guard !self.isAsleep, !self.isClosed, self.room > 0 else { return [] }
        var actions: [Action] = []
        for index in self.waiters.indices where self.waiters[index].isImmediate && self.waiters[index].poll == nil {
            let waiter = self.waiters[index]
            let seconds = Self.wholeSeconds(waiter.lease)
            self.waiters[index].poll = self.nextPoll
            actions.append(self.poll(max: min(waiter.max, self.room) + self.spare, wait: .zero, visibility: seconds))
        }
        let waiting = self.waiters.filter { !$0.isImmediate && $0.deadline > now }
        if let longest = waiting.map(\.deadline).max() {
            let needed = min(self.room, waiting.reduce(0) { $0 + min($1.max, 1 << 20) })
            let wanted = min(self.pollers, (needed + 9) / 10)
            while self.longPolls < wanted, needed + self.spare > 10 * self.longPolls {
                let most = needed + self.spare - 10 * self.longPolls
                actions.append(self.poll(max: most, wait: longest - now, visibility: self.leaseSeconds))
            }
        } else if self.isFlowing, self.prefetch > 0, self.isWanted(now: now), self.longPolls < self.pollers,
            self.spare >= min(self.prefetch, 10)
        {
            actions.append(self.poll(max: self.spare, wait: QueueLimits.maxWait, visibility: self.leaseSeconds))
        }
        return actions
    }

    private var longPolls: Int { self.polls.values.count { $0.waitSeconds > 0 } }

    /// How many messages may still be received ahead.
    private var spare: Int {
        let asked = self.polls.values.reduce(0) { $0 + $1.max }
        return max(0, self.prefetch - self.ready.count - (self.waiters.isEmpty ? asked : 0))
    }

    /// Whether anybody takes messages.
    private func isWanted(now: Duration) -> Bool {
        !self.waiters.isEmpty || now - self.lastTake < .seconds(self.leaseSeconds)
    }

    private mutating func poll(max most: Int, wait: Duration, visibility: Int) -> Action {
        let poll = Poll(
            id: self.nextPoll,
            max: min(Swift.max(most, 1), QueueLimits.maxBatchEntries),
            waitSeconds: min(Self.wholeSeconds(wait), 20),
            visibilitySeconds: visibility
        )
        self.nextPoll += 1
        self.polls[poll.id] = poll
        return .poll(poll)
    }

    // MARK: Leases

    /// How long before its end a lease is extended.
    private var margin: Duration {
        let lease = Duration.seconds(self.leaseSeconds)
        return min(Swift.max(lease / 3, .seconds(1)), lease / 2)
    }

    /// Looks after every lease that is held.
    private mutating func look(now: Duration) -> [Action] {
        self.nextLook = .seconds(Int64.max / 4)
        var changes: [VisibilityChange] = []
        var lost: [String] = []
        for (handle, held) in self.held where !held.isBusy {
            if held.visibleAt <= now, (held.leasedUntil ?? now) <= now {
                lost.append(handle)
                continue
            }
            // A taken message needs more only where its lease outlasts what SQS knows of.
            let needsMore = held.leasedUntil.map { $0 > held.visibleAt + .seconds(1) } ?? true
            let dueAt = needsMore ? Swift.max(held.visibleAt - self.margin, held.restsUntil) : held.visibleAt
            guard needsMore, dueAt <= now else {
                self.nextLook = min(self.nextLook, Swift.max(dueAt, now + .milliseconds(1)))
                continue
            }
            let wanted = held.leasedUntil.map { $0 - now } ?? .seconds(self.leaseSeconds)
            let most = held.receivedAt + QueueLimits.maxVisibility - now
            guard most >= wanted, held.leasedUntil != nil || self.isWanted(now: now) else {
                if held.leasedUntil == nil { changes += self.giveBack([handle]) }
                self.nextLook = min(self.nextLook, Swift.max(held.visibleAt, now + .milliseconds(1)))
                continue
            }
            self.held[handle]?.isBusy = true
            changes.append(VisibilityChange(handle: handle, seconds: Self.wholeSeconds(wanted)))
        }
        for handle in lost { self.drop(handle, as: .stale) }
        return changes.isEmpty ? [] : [.change(changes)]
    }

    /// A duration in the whole seconds of SQS, rounded up: never early.
    static func wholeSeconds(_ duration: Duration) -> Int { Int((duration.wholeMillisecondsRoundedUp + 999) / 1000) }
}
