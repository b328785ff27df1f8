// A clock that only tests move: for everything that waits, without sleeping.

public import StalkCore
public import StalkPlatform

/// A clock that stands still until it is told to go on.
///
/// It stands in for the engine's ``StoreClock`` and for Swift's `Clock` alike, so that one test moves both together.
public final class ManualClock: StoreClock, Clock {
    /// A moment of a ``ManualClock``: the time since it was made.
    public struct Instant: InstantProtocol {
        /// The time since the clock was made.
        public var offset: Duration

        /// The moment that comes this much later.
        public func advanced(by duration: Duration) -> Instant { Instant(offset: self.offset + duration) }

        /// How much later another moment is.
        public func duration(to other: Instant) -> Duration { other.offset - self.offset }

        /// Orders moments by time.
        public static func < (left: Instant, right: Instant) -> Bool { left.offset < right.offset }
    }

    private struct Sleeper {
        var id: UInt64
        var deadline: Instant
        var continuation: CheckedContinuation<Void, any Error>
    }

    private struct SleeperWatch {
        var id: UInt64
        var count: Int
        var continuation: CheckedContinuation<Void, Never>
    }

    private struct State {
        var offset: Duration = .zero
        var wallOffset: Duration
        var nextID: UInt64 = 0
        var sleepers: [Sleeper] = []
        var cancelled: Set<UInt64> = []
        var wakers: [ObjectIdentifier: Waker] = [:]
        var sleeperWatches: [SleeperWatch] = []
        var cancelledWatches: Set<UInt64> = []

        mutating func takeWatches() -> [CheckedContinuation<Void, Never>] {
            let count = self.sleepers.count
            let ready = self.sleeperWatches.filter { $0.count <= count }.map(\.continuation)
            self.sleeperWatches.removeAll { $0.count <= count }
            return ready
        }
    }

    /// Which boot the clock pretends to be in.
    public let bootID: String
    private let state: Locked<State>

    /// Makes a clock that stands at zero.
    ///
    /// - Parameters:
    ///   - wall: What its wall clock shows at the beginning.
    ///   - bootID: Which boot of the machine it pretends to be in.
    public init(
        wall: Timestamp = Timestamp(millisecondsSince1970: 1_700_000_000_000),
        bootID: String = "manual-boot"
    ) {
        self.bootID = bootID
        self.state = Locked(State(wallOffset: .milliseconds(wall.millisecondsSince1970)))
    }

    /// The time since the clock was made.
    public var now: Instant { self.state.withLock { Instant(offset: $0.offset) } }

    /// The smallest step.
    public var minimumResolution: Duration { .nanoseconds(1) }

    /// The time since the pretended boot.
    public func bootTime() -> BootTime { BootTime(nanoseconds: self.now.offset.nanoseconds) }

    /// The wall clock.
    public func wallTime() -> Timestamp {
        self.state.withLock { state in
            Timestamp(millisecondsSince1970: (state.offset + state.wallOffset).nanoseconds / 1_000_000)
        }
    }

    /// Lets the wall clock jump without time passing.
    ///
    /// - Parameter jump: How far; negative is back.
    public func jumpWall(by jump: Duration) {
        self.state.withLock { $0.wallOffset += jump }
    }

    /// Lets time pass and wakes everything that waited for it.
    ///
    /// - Parameter duration: How much, zero or more.
    public func advance(by duration: Duration) {
        precondition(duration >= .zero, "time does not go back; use jumpWall(by:) for the wall clock")
        let (sleepers, wakers) = self.state.withLock { state in
            state.offset += duration
            let now = Instant(offset: state.offset)
            let due = state.sleepers.filter { $0.deadline <= now }.sorted { $0.deadline < $1.deadline }
            state.sleepers.removeAll { $0.deadline <= now }
            return (due, Array(state.wakers.values))
        }
        for sleeper in sleepers { sleeper.continuation.resume() }
        for waker in wakers { waker.signal() }
    }

    /// Returns once at least this many tasks sleep on the clock: the rendezvous that tests use instead of sleeping.
    ///
    /// Returns early when the task is cancelled.
    ///
    /// - Parameter count: How many.
    public func sleeperCount(reaches count: Int) async {
        let id = self.state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
                let ready = self.state.withLock { state in
                    if state.cancelledWatches.contains(id) { return [continuation] }
                    state.sleeperWatches.append(SleeperWatch(id: id, count: count, continuation: continuation))
                    return state.takeWatches()
                }
                for watch in ready { watch.resume() }
            }
        } onCancel: {
            let watch = self.state.withLock { state in
                state.cancelledWatches.insert(id)
                let watch = state.sleeperWatches.first { $0.id == id }
                state.sleeperWatches.removeAll { $0.id == id }
                return watch
            }
            watch?.continuation.resume()
        }
        // The cancellation may have come at any time: forget it either way.
        self.state.withLock { _ = $0.cancelledWatches.remove(id) }
    }

    /// Blocks the calling thread until the waker is signalled; ``advance(by:)`` signals it.
    public func wait(for waker: Waker, until deadline: BootTime?) {
        let isDue = self.state.withLock { state in
            state.wakers[ObjectIdentifier(waker)] = waker
            return deadline.map { $0.nanoseconds <= state.offset.nanoseconds } ?? false
        }
        if isDue { waker.signal() }
        SystemStoreClock().wait(for: waker, until: nil)
    }

    /// Suspends the task until the clock has been advanced to the deadline.
    ///
    /// - Throws: `CancellationError` when the task is cancelled first.
    public func sleep(until deadline: Instant, tolerance: Duration? = nil) async throws {
        let id = self.state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        // A cancellation may come after the clock did its work: forget it either way.
        defer { self.state.withLock { _ = $0.cancelled.remove(id) } }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                self.enqueue(Sleeper(id: id, deadline: deadline, continuation: continuation))
            }
        } onCancel: {
            self.cancel(id)
        }
    }

    private func enqueue(_ sleeper: Sleeper) {
        enum Action {
            case resume
            case cancel
            case wait([CheckedContinuation<Void, Never>])
        }
        let action: Action = self.state.withLock { state in
            if state.cancelled.remove(sleeper.id) != nil { return .cancel }
            if sleeper.deadline.offset <= state.offset { return .resume }
            state.sleepers.append(sleeper)
            return .wait(state.takeWatches())
        }
        switch action {
        case .resume: sleeper.continuation.resume()
        case .cancel: sleeper.continuation.resume(throwing: CancellationError())
        case .wait(let watches): for watch in watches { watch.resume() }
        }
    }

    private func cancel(_ id: UInt64) {
        let sleeper = self.state.withLock { state -> Sleeper? in
            guard let position = state.sleepers.firstIndex(where: { $0.id == id }) else {
                state.cancelled.insert(id)
                return nil
            }
            return state.sleepers.remove(at: position)
        }
        sleeper?.continuation.resume(throwing: CancellationError())
    }
}

extension Duration {
    fileprivate var nanoseconds: Int64 {
        self.components.seconds * 1_000_000_000 + self.components.attoseconds / 1_000_000_000
    }
}
