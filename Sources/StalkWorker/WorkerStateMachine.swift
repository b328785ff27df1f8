// What a worker decides: a value that is told what happened and when, and answers with what to do.

internal import StalkCore

/// The worker's decisions, without I/O, tasks or clocks.
///
/// A delivery occupies a slot from the take that brings it until its outcome is stored and its handler has ended; a
/// take asks for no more than there are free slots. Every event ends in ``settle(_:now:)``, which sends what has
/// gathered, asks for more, or ends.
struct WorkerStateMachine: Sendable {
    enum Phase: Sendable {
        /// Not running.
        case idle
        /// The collector is being woken.
        case waking
        case working
        /// No new deliveries; what runs may finish.
        case stopping
        /// No new deliveries; what runs was told to stop.
        case cancelling
    }

    enum TakeState: Sendable {
        case idle
        case asked
        case backingOff
    }

    enum CancelCause: Sendable {
        case timedOut
        case leaseLost
        case stopped
    }

    enum HandlerState: Equatable, Sendable {
        case running
        case cancelled(CancelCause, graceEndsAt: Duration)
        /// Cancelled, and the worker goes on without it: it only occupies its slot.
        case abandoned
        case ended
    }

    enum OutcomeState: Equatable, Sendable {
        case undecided
        /// Waiting to be sent, or sent and not answered.
        case decided(Disposition)
        /// Stored, or nothing can be stored any more.
        case settled
    }

    struct Slot: Sendable {
        let delivery: DeliveryFacts
        var leaseEndsAt: Duration
        let startedAt: Duration
        let timeoutAt: Duration?
        var handler: HandlerState
        var outcome = OutcomeState.undecided
        /// Whether the outcome is already what replaces one that the collector refused.
        var isReplacement = false
    }

    /// A kind of call whose failures are followed apart, since a full disk refuses one and not the other.
    enum Call: Hashable, Sendable {
        case wake, take, finish, extend
    }

    let options: WorkerOptions
    let capabilities: CollectorCapabilities
    let rules: OutcomeRules
    var generator: SplitMix64
    var phase = Phase.idle
    var limit: Int
    var slots: [SlotID: Slot] = [:]
    var tally = WorkerCounters()
    /// When the backend last answered, by the worker's clock.
    var lastSuccessAt: Duration?
    private(set) var failure: (any Error)?

    var takeState = TakeState.idle
    var takeFailures = 0
    /// Decided and not sent, oldest first.
    var unsent: [SlotID] = []
    /// Sent and not answered; one call at a time, so that what is ready meanwhile goes together in the next.
    var sent: [SlotID] = []
    var finishFailures = 0
    var isFinishBackingOff = false
    var isExtending = false
    var callsFailing: Set<Call> = []
    private var nextSlot: UInt64 = 1
    private var alarms: Set<WorkerAlarm> = []

    init(options: WorkerOptions, capabilities: CollectorCapabilities, seed: UInt64) {
        self.options = options
        self.capabilities = capabilities
        self.rules = OutcomeRules(maxDelay: capabilities.maxRetryDelay)
        self.generator = SplitMix64(seed: seed)
        self.limit = options.concurrency
    }

    var counters: WorkerCounters {
        var counters = self.tally
        counters.inFlight = self.slots.count
        return counters
    }

    func status(now: Duration) -> WorkerStatus {
        WorkerStatus(
            isRunning: self.phase != .idle,
            isStopping: self.phase == .stopping || self.phase == .cancelling,
            concurrency: self.limit,
            isBackendReachable: self.callsFailing.isEmpty,
            sinceLastSuccess: self.lastSuccessAt.map { now - $0 }
        )
    }

    /// How many more deliveries there is room for.
    ///
    /// A handler that ignores its cancellation blocks nobody: another one may run in its place, up to a bound.
    private var room: Int {
        self.limit - self.slots.count + min(self.tally.stuck, self.options.maxReplacedHandlers)
    }

    // MARK: Beginning and ending

    /// Begins, unless it runs already: then there is nothing to do but to refuse.
    mutating func start(now: Duration) -> [WorkerAction]? {
        guard self.phase == .idle else { return nil }
        var actions: [WorkerAction] = []
        self.failure = nil
        self.warnOfShortenedDelays(by: self.options.retryPolicy, &actions)
        if self.options.wakesCollector {
            self.phase = .waking
            actions.append(.wake)
        } else {
            self.phase = .working
        }
        self.settle(&actions, now: now)
        return actions
    }

    mutating func woke(now: Duration) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        self.succeeded(.wake, &actions, now: now)
        if self.phase == .waking {
            self.takeFailures = 0
            self.phase = .working
        }
        self.settle(&actions, now: now)
        return actions
    }

    mutating func wakeFailed(_ error: StalkError, now: Duration) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        if self.phase == .waking { self.backOffTaking(.wake, error, &actions, now: now) }
        self.settle(&actions, now: now)
        return actions
    }

    /// Takes no more and lets what runs finish.
    mutating func stop(now: Duration) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        self.stop(&actions, now: now)
        self.settle(&actions, now: now)
        return actions
    }

    /// Takes no more and lets what runs finish; the run ends with this error.
    mutating func fail(_ error: any Error, now: Duration) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        self.fail(error, &actions, now: now)
        self.settle(&actions, now: now)
        return actions
    }

    /// Takes no more and tells what runs to stop.
    mutating func cancel(now: Duration) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        guard self.phase != .idle else { return actions }
        self.stop(&actions, now: now)
        self.cancelWhatRuns(&actions, now: now)
        self.settle(&actions, now: now)
        return actions
    }

    private mutating func cancelWhatRuns(_ actions: inout [WorkerAction], now: Duration) {
        self.phase = .cancelling
        for id in self.slots.keys.sorted() { self.cancelHandler(id, .stopped, &actions, now: now) }
        // Whether the backend is back or not: this is the last try.
        self.isFinishBackingOff = false
    }

    mutating func scale(to limit: Int, now: Duration) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        self.limit = limit
        self.settle(&actions, now: now)
        return actions
    }

    private mutating func stop(_ actions: inout [WorkerAction], now: Duration) {
        guard self.phase == .waking || self.phase == .working else { return }
        self.phase = .stopping
        if let grace = self.options.stopGrace { self.setAlarm(.stop, at: now + grace, &actions) }
        switch self.takeState {
        case .asked: actions.append(.cancelTake)
        case .backingOff: self.takeState = .idle
        case .idle: break
        }
    }

    mutating func fail(_ error: any Error, _ actions: inout [WorkerAction], now: Duration) {
        guard self.phase != .idle else { return }
        if self.failure == nil { self.failure = error }
        self.stop(&actions, now: now)
    }

    // MARK: Taking

    mutating func took(_ deliveries: [Delivery], now: Duration) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        self.takeState = .idle
        self.takeFailures = 0
        self.succeeded(.take, &actions, now: now)
        for delivery in deliveries { self.accept(delivery, &actions, now: now) }
        self.settle(&actions, now: now)
        return actions
    }

    mutating func takeCancelled(now: Duration) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        self.takeState = .idle
        self.settle(&actions, now: now)
        return actions
    }

    mutating func takeFailed(_ error: StalkError, now: Duration) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        self.takeState = .idle
        if self.phase == .working { self.backOffTaking(.take, error, &actions, now: now) }
        self.settle(&actions, now: now)
        return actions
    }

    private mutating func backOffTaking(
        _ call: Call,
        _ error: StalkError,
        _ actions: inout [WorkerAction],
        now: Duration
    ) {
        guard error.isWorthWaiting else {
            self.fail(error, &actions, now: now)
            return
        }
        self.failed(call, error, &actions)
        self.takeFailures += 1
        self.takeState = .backingOff
        let delay = self.options.backoff.delay(afterFailure: self.takeFailures, using: &self.generator)
        self.setAlarm(.take, at: now + delay, &actions)
    }

    private mutating func accept(_ delivery: Delivery, _ actions: inout [WorkerAction], now: Duration) {
        let id = SlotID(number: self.nextSlot)
        self.nextSlot += 1
        self.tally.received += 1
        let facts = DeliveryFacts(
            id: delivery.id,
            receipt: delivery.receipt,
            attempt: delivery.attempt,
            policy: self.policy(of: delivery, &actions)
        )
        // The limit may have been lowered while the take was under way, or the worker been told to stop.
        let isWanted = self.phase == .working && self.room > 0
        self.slots[id] = Slot(
            delivery: facts,
            leaseEndsAt: now + self.options.lease,
            startedAt: now,
            timeoutAt: self.options.timeout.map { now + $0 },
            handler: .ended
        )
        if !isWanted {
            self.decide(id, .release)
        } else if let reason = self.rules.reasonAgainstRunning(facts) {
            actions.append(.log(.attemptsUsedUp(facts)))
            self.decide(id, .deadLetter(reason: reason))
        } else {
            self.slots[id]?.handler = .running
            actions.append(.handle(id, delivery))
            if let timeout = self.options.timeout { self.setAlarm(.timeout, at: now + timeout, &actions) }
        }
        if self.capabilities.leaseExtension { self.setAlarm(.heartbeat, at: now + self.options.lease / 3, &actions) }
    }

    private func policy(of delivery: Delivery, _ actions: inout [WorkerAction]) -> RetryPolicy {
        guard let text = delivery.headers[RetryPolicy.headerName] else { return self.options.retryPolicy }
        do {
            let policy = try RetryPolicy(text: text)
            self.warnOfShortenedDelays(by: policy, &actions)
            return policy
        } catch {
            actions.append(.log(.unreadablePolicy(of: delivery.id, error)))
            return self.options.retryPolicy
        }
    }

    /// Says so when a policy's waits will be cut to what the collector keeps.
    private func warnOfShortenedDelays(by policy: RetryPolicy, _ actions: inout [WorkerAction]) {
        guard policy.cap > self.capabilities.maxRetryDelay else { return }
        actions.append(.log(.shortenedDelays(policy, self.capabilities.maxRetryDelay)))
    }

    // MARK: What every event ends in

    /// Sends what has gathered, asks for as many as there is room for, and ends when there is nothing left.
    mutating func settle(_ actions: inout [WorkerAction], now: Duration) {
        self.sendOutcomes(&actions)
        let room = self.room
        if self.phase == .working, self.takeState == .idle, room > 0 {
            self.takeState = .asked
            let request = TakeRequest(
                max: min(room, self.capabilities.maxBatch, self.options.takeLimit ?? .max),
                wait: self.options.pollWait,
                lease: self.options.lease
            )
            actions.append(.take(request))
        }
        let isStopping = self.phase == .stopping || self.phase == .cancelling
        let isHolding = self.slots.values.contains { $0.outcome != .settled || !$0.isWithoutHandler }
        if isStopping, self.takeState != .asked, !isHolding {
            self.phase = .idle
            self.takeState = .idle
            self.alarms = []
            self.callsFailing = []
            self.isExtending = false
            actions.append(.end)
        }
    }

    /// Sets an alarm, unless one of its kind is set: then that one looks what is due next when it goes off.
    ///
    /// This is enough because alarms of one kind are set in the order in which they fall due.
    mutating func setAlarm(_ alarm: WorkerAlarm, at moment: Duration, _ actions: inout [WorkerAction]) {
        guard self.alarms.insert(alarm).inserted else { return }
        actions.append(.setAlarm(alarm, at: moment))
    }

    mutating func alarmWentOff(_ alarm: WorkerAlarm, now: Duration) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        guard self.alarms.remove(alarm) != nil else { return actions }
        switch alarm {
        case .heartbeat: self.beat(&actions, now: now)
        case .timeout: self.cancelOverdueHandlers(&actions, now: now)
        case .grace: self.abandonStuckHandlers(&actions, now: now)
        case .take where self.takeState == .backingOff:
            self.takeState = .idle
            if self.phase == .waking { actions.append(.wake) }
        case .take: break
        case .finish: self.isFinishBackingOff = false
        case .stop where self.phase == .stopping:
            actions.append(.log(.stopGraceIsOver(self.slots.count)))
            self.cancelWhatRuns(&actions, now: now)
        case .stop: break
        }
        self.settle(&actions, now: now)
        return actions
    }

    // MARK: The backend's absence

    mutating func failed(_ call: Call, _ error: StalkError, _ actions: inout [WorkerAction]) {
        if self.callsFailing.isEmpty { actions.append(.log(.backendWentAway(error))) }
        self.callsFailing.insert(call)
    }

    mutating func succeeded(_ call: Call, _ actions: inout [WorkerAction], now: Duration) {
        self.lastSuccessAt = now
        guard self.callsFailing.remove(call) != nil, self.callsFailing.isEmpty else { return }
        actions.append(.log(.backendReturned))
    }
}

extension WorkerStateMachine.Slot {
    /// Whether the worker need not wait for a handler here.
    var isWithoutHandler: Bool { self.handler == .ended || self.handler == .abandoned }
}

extension StalkError {
    /// Whether trying again later can help.
    var isWorthWaiting: Bool {
        switch self.code {
        case .unavailable, .throttled, .storageFull, .storeBusy, .corruptValue, .interrupted: true
        default: false
        }
    }
}
