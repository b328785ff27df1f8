// The lock around the engine, and what a step leaves to do.

internal import StalkCore
internal import StalkFiles
internal import StalkPlatform
internal import Synchronization

/// What the threads and the callers of a store share.
///
/// It starts no thread and waits for nothing, so that a simulation can take the threads' place.
final class StoreCore: Sendable {
    let directory: any StorageDirectory
    let tables: SettledTables
    let options: LocalStoreOptions
    let limits: EngineLimits
    let clock: any StoreClock
    /// The store's clock less the time since boot, in nanoseconds.
    let clockOffset: Int64

    let wake: @Sendable (StoreRole) -> Void
    private let engine: Locked<Engine>
    private let stopping = Atomic<Bool>(false)

    init(
        engine: consuming Engine,
        directory: any StorageDirectory,
        tables: SettledTables,
        options: LocalStoreOptions,
        clockOffset: Int64,
        wake: @escaping @Sendable (StoreRole) -> Void
    ) {
        self.directory = directory
        self.tables = tables
        self.options = options
        self.limits = engine.limits
        self.clock = options.clock
        self.clockOffset = clockOffset
        self.wake = wake
        self.engine = Locked(engine)
    }

    /// The store's clock.
    var now: Moment { Moment(nanoseconds: self.clock.bootTime().nanoseconds + self.clockOffset) }

    /// The wall clock, in milliseconds since 1970.
    var wall: Int64 { self.clock.wallTime().millisecondsSince1970 }

    /// The time since boot at a reading of the store's clock.
    func bootTime(at milliseconds: Int64) -> BootTime {
        let (nanos, overflow) = milliseconds.multipliedReportingOverflow(by: 1_000_000)
        return BootTime(nanoseconds: overflow ? .max : nanos - self.clockOffset)
    }

    /// Changes the engine under its lock, and does what that leaves to do after the lock is released.
    @discardableResult
    func step<Result: Sendable>(_ change: (inout Engine, Moment) -> (Result, Actions)) -> Result {
        let now = self.now
        let (result, actions) = self.engine.withLock { engine in
            var (result, actions) = change(&engine, now)
            actions.saveSignals(&engine)
            return (result, actions)
        }
        self.perform(actions)
        return result
    }

    /// Changes the engine under its lock, and does what that leaves to do after the lock is released.
    func step(_ change: (inout Engine, Moment) -> Actions) {
        self.step { engine, now in ((), change(&engine, now)) }
    }

    /// Looks at the engine under its lock.
    func look<Result: Sendable>(_ body: (inout Engine) -> Result) -> Result {
        self.engine.withLock { body(&$0) }
    }

    private func perform(_ actions: Actions) {
        if actions.wakesLog { self.wake(.log) }
        if actions.wakesScheduler { self.wake(.scheduler) }
        if actions.wakesKeeper { self.wake(.keeper) }
        for reply in actions.replies { reply() }
    }

    // MARK: Stopping

    /// Whether the threads are to end once they have nothing left to do.
    var isStopping: Bool { self.stopping.load(ordering: .acquiring) }

    /// Lets the threads end.
    func stop() {
        self.stopping.store(true, ordering: .releasing)
        for role in StoreRole.allCases { self.wake(role) }
    }
}
