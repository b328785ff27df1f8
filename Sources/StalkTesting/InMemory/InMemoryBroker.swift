// Queues that live in memory: for tests of what is built on collectors, and as the reference that shows what the
// protocol means.

public import StalkCore
internal import StalkPlatform
internal import Synchronization

/// A set of in-memory queues that can publish to each other in one atomic step.
///
/// ``collector(for:)`` gives its queues; a queue exists as soon as it is asked for. All collectors of one queue share
/// its state, sleep and scale included.
public final class InMemoryBroker: Sendable {
    /// What ``InMemoryCollector`` can do unless it is told otherwise: everything but surviving the process.
    public static var capabilities: CollectorCapabilities {
        CollectorCapabilities(
            maxBodyBytes: 1 << 20,
            maxDelay: Message.maxDelay,
            maxLease: .seconds(12 * 3600),
            maxBatch: 1000,
            ordering: .firstInFirstOut,
            leaseExtension: true,
            atomicPublish: true,
            uncountedRelease: true,
            durableDelay: false
        )
    }

    private struct State {
        var machine: InMemoryBrokerStateMachine
        /// Counts the calls that may have made something ready, so that a waiter misses none.
        var changes: UInt64 = 0
        var nextWatch: UInt64 = 0
        var watches: [UInt64: CheckedContinuation<Void, Never>] = [:]
        var cancelledWatches: Set<UInt64> = []
    }

    /// What the queues can do and refuse.
    public let capabilities: CollectorCapabilities
    private let clock: ElapsedClock
    private let wallTime: @Sendable () -> Timestamp
    private let state: Locked<State>

    /// Makes a broker without messages that lives by a clock.
    ///
    /// - Parameters:
    ///   - capabilities: What the queues are to be able to do; what is left out they refuse, like a backend that can't.
    ///   - clock: What delays, leases and waits are counted by.
    public convenience init(
        capabilities: CollectorCapabilities = InMemoryBroker.capabilities,
        clock: some Clock<Duration> = ContinuousClock()
    ) {
        self.init(capabilities: capabilities, clock: clock, wallTime: { SystemStoreClock().wallTime() })
    }

    /// Makes a broker without messages that lives by a manual clock, wall time included.
    ///
    /// - Parameters:
    ///   - capabilities: What the queues are to be able to do; what is left out they refuse, like a backend that can't.
    ///   - clock: What delays, leases and waits are counted by, and what stamps messages.
    public convenience init(
        capabilities: CollectorCapabilities = InMemoryBroker.capabilities,
        clock: ManualClock
    ) {
        self.init(capabilities: capabilities, clock: clock, wallTime: { clock.wallTime() })
    }

    private init(
        capabilities: CollectorCapabilities,
        clock: some Clock<Duration>,
        wallTime: @escaping @Sendable () -> Timestamp
    ) {
        self.capabilities = capabilities
        self.clock = ElapsedClock(clock)
        self.wallTime = wallTime
        let machine = InMemoryBrokerStateMachine(capabilities: capabilities, identity: .random(in: .min ... .max))
        self.state = Locked(State(machine: machine))
    }

    /// A collector on one of the queues.
    ///
    /// - Parameter queue: The queue's name.
    public func collector(for queue: QueueName) -> InMemoryCollector {
        InMemoryCollector(queue: queue, broker: self)
    }

    // MARK: What collectors call

    func publish(_ messages: [Message], to queue: QueueName) throws(StalkError) -> [Result<MessageID, StalkError>] {
        let (now, wallTime) = (self.clock.elapsed(), self.wallTime())
        return try self.change { machine throws(StalkError) in
            try machine.publish(messages, to: queue, now: now, wallTime: wallTime)
        }
    }

    func finish(_ completions: [Completion], in queue: QueueName) throws(StalkError) -> [Result<Void, StalkError>] {
        let (now, wallTime) = (self.clock.elapsed(), self.wallTime())
        return try self.change { machine throws(StalkError) in
            try machine.finish(completions, in: queue, now: now, wallTime: wallTime)
        }
    }

    func extend(
        _ receipts: [Receipt],
        lease: Duration,
        in queue: QueueName
    ) throws(StalkError) -> [Result<Void, StalkError>] {
        let now = self.clock.elapsed()
        return try self.change { machine throws(StalkError) in
            try machine.extend(receipts, lease: lease, in: queue, now: now)
        }
    }

    func control(_ command: CollectorCommand, of queue: QueueName) throws(StalkError) -> CollectorStatus {
        let now = self.clock.elapsed()
        return try self.change { machine throws(StalkError) in
            try machine.control(command, of: queue, now: now)
        }
    }

    func take(_ request: TakeRequest, from queue: QueueName) async throws -> [Delivery] {
        try request.validate(for: self.capabilities)
        let deadline = self.clock.elapsed() + request.wait
        while true {
            try Task.checkCancellation()
            let now = self.clock.elapsed()
            let (result, changes) = self.state.withLock { state in
                let result = state.machine.take(request, from: queue, now: now)
                // A lease that begins is a new moment for other waiters to look at.
                if case .delivered = result { state.changes += 1 }
                return (result, state.changes)
            }
            switch result {
            case .delivered(let deliveries):
                self.wakeWaiters()
                return deliveries
            case .nothing(let nextDue):
                guard now < deadline else { return [] }
                try await self.change(since: changes, orAt: min(deadline, nextDue ?? deadline))
            }
        }
    }

    /// How many calls wait for something to change.
    var waitingCalls: Int { self.state.withLock { $0.watches.count } }

    func drained(_ queue: QueueName) async throws {
        while true {
            try Task.checkCancellation()
            let (isEmpty, changes) = self.state.withLock { state in
                (state.machine.queues[queue]?.entries.isEmpty ?? true, state.changes)
            }
            if isEmpty { return }
            try await self.change(since: changes, orAt: nil)
        }
    }

    func queueState(_ queue: QueueName) -> (queue: InMemoryBrokerStateMachine.Queue, now: Duration) {
        let now = self.clock.elapsed()
        return self.state.withLock { state in
            var queue = state.machine.queues[queue] ?? InMemoryBrokerStateMachine.Queue()
            queue.expireLeases(now: now)
            return (queue, now)
        }
    }

    // MARK: Waiting

    /// Runs a call that may make something ready, and then lets everybody who waits look again.
    private func change<Value: Sendable>(
        _ body: (inout InMemoryBrokerStateMachine) throws(StalkError) -> sending Value
    ) throws(StalkError) -> Value {
        defer { self.wakeWaiters() }
        return try self.state.withLock { state throws(StalkError) in
            state.changes += 1
            return try body(&state.machine)
        }
    }

    private func wakeWaiters() {
        let watches = self.state.withLock { state in
            defer { state.watches.removeAll() }
            return Array(state.watches.values)
        }
        for watch in watches { watch.resume() }
    }

    /// Returns after the first change that `changes` does not count yet, or at a moment.
    private func change(since changes: UInt64, orAt moment: Duration?) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await self.nextChange(since: changes) }
            if let moment {
                group.addTask { try await self.clock.sleep(moment) }
            }
            try await group.next()
            group.cancelAll()
        }
    }

    /// Returns after the first change that `changes` does not count yet, or when the task is cancelled.
    private func nextChange(since changes: UInt64) async {
        let id = self.state.withLock { state in
            state.nextWatch += 1
            return state.nextWatch
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isOver = self.state.withLock { state in
                    if state.cancelledWatches.remove(id) != nil || state.changes != changes { return true }
                    state.watches[id] = continuation
                    return false
                }
                if isOver { continuation.resume() }
            }
        } onCancel: {
            let watch = self.state.withLock { state in
                let watch = state.watches.removeValue(forKey: id)
                if watch == nil { state.cancelledWatches.insert(id) }
                return watch
            }
            watch?.resume()
        }
        // The cancellation may have come after the change.
        self.state.withLock { _ = $0.cancelledWatches.remove(id) }
    }
}
