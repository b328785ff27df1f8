// Time and what LMDB must be asked for: releases what is due, loads windows, feeds the wheel. Idle, it sleeps.

internal import StalkCore

/// Follows the clock.
struct SchedulerWorker: StoreWorker {
    private enum Read: Sendable {
        case window(WindowLoad, Result<ReadyRun, StalkError>)
        case feed(ScheduleFeed, Result<ScheduleRun, StalkError>)
    }

    let core: StoreCore
    private var windows: ArraySlice<WindowLoad> = []
    private var feed: ScheduleFeed?
    /// What LMDB said, for the engine to hear in the next step.
    private var read: Read?

    init(core: StoreCore) {
        self.core = core
    }

    mutating func step() -> WorkerWish {
        if let read = self.read.take() {
            self.install(read)
        } else if let load = self.windows.popFirst() {
            self.read = .window(load, self.run(of: load))
        } else if let feed = self.feed.take() {
            self.read = .feed(feed, self.run(of: feed))
        } else if self.core.isStopping {
            return .end
        } else {
            let plan = self.core.step { engine, now in engine.advanceSchedule(now: now) }
            self.windows = plan.windows[...]
            self.feed = plan.feed
            if self.windows.isEmpty, self.feed == nil { return .sleep(until: plan.deadline) }
        }
        return .goOn
    }

    private func run(of load: WindowLoad) -> Result<ReadyRun, StalkError> {
        let limits = self.core.limits
        do throws(StalkError) {
            return .success(
                try self.core.tables.readyRun(load, maxMessages: limits.windowMessages, maxBytes: limits.windowBytes)
            )
        } catch {
            return .failure(error)
        }
    }

    private func run(of feed: ScheduleFeed) -> Result<ScheduleRun, StalkError> {
        do throws(StalkError) {
            return .success(try self.core.tables.scheduleRun(feed))
        } catch {
            return .failure(error)
        }
    }

    private func install(_ read: Read) {
        self.core.step { engine, now in
            switch read {
            case .window(let load, .success(let run)):
                engine.setAside.formUnion(run.rotten)
                return engine.install(load, run.messages, end: run.end, now: now)
            case .window(let load, .failure(let error)):
                return engine.failLoad(load, error)
            case .feed(let feed, .success(let run)):
                return engine.install(feed, run.keys, next: run.next, now: now)
            case .feed(_, .failure):
                engine.failFeed()
                return Actions()
            }
        }
    }
}
