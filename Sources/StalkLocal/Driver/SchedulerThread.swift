// Time and what LMDB must be asked for: releases what is due, loads windows, feeds the wheel. Idle, it sleeps.

internal import StalkCore
internal import StalkPlatform

/// What the scheduler's thread runs.
struct SchedulerThread {
    let core: StoreCore

    /// Follows the clock until the store stops.
    func run() {
        while !self.core.isStopping {
            let plan = self.core.step { engine, now in engine.advanceSchedule(now: now) }
            for load in plan.windows { self.load(load) }
            if let feed = plan.feed { self.feed(feed) }
            guard plan.windows.isEmpty, plan.feed == nil else { continue }
            self.core.clock.wait(
                for: self.core.schedulerWaker,
                until: plan.deadline.map { self.core.bootTime(at: $0) }
            )
        }
    }

    private func load(_ load: WindowLoad) {
        do throws(StalkError) {
            let limits = self.core.limits
            let run = try self.core.tables.readyRun(
                load,
                maxMessages: limits.windowMessages,
                maxBytes: limits.windowBytes
            )
            self.core.step { engine, now in
                engine.setAside.formUnion(run.rotten)
                return engine.install(load, run.messages, end: run.end, now: now)
            }
        } catch {
            self.core.step { engine, _ in engine.failLoad(load, error) }
        }
    }

    private func feed(_ feed: ScheduleFeed) {
        do throws(StalkError) {
            let (keys, next) = try self.core.tables.scheduleRun(feed)
            self.core.step { engine, now in engine.install(feed, keys, next: next, now: now) }
        } catch {
            self.core.step { engine, _ in
                engine.failFeed()
                return Actions()
            }
        }
    }
}
