// Time: delays, leases and waits, released by the wheel, which the schedule in LMDB feeds.

internal import StalkCore
internal import StalkWheel

/// What the scheduler's thread is to do after a step.
struct SchedulePlan: Sendable {
    var windows: [WindowLoad] = []
    var feed: ScheduleFeed?
    /// When to look again, by the store's clock in milliseconds; `nil` waits to be woken.
    var deadline: Int64?
}

/// A run of the schedule to be read from LMDB into the wheel.
struct ScheduleFeed: Sendable {
    var after: ScheduleKey
    /// Nothing later than this is wanted.
    var through: Int64
    var limit: Int
    /// The engine's ``Engine/epoch`` when it was asked for.
    var epoch: UInt64
}

extension Engine {
    /// Sets a timer and wakes the scheduler when it would sleep too long.
    @discardableResult
    mutating func addTimer(
        _ kind: TimerKind,
        queue: UInt32,
        key: UInt64,
        deadline: Int64,
        _ actions: inout Actions
    ) -> TimingWheel.Handle {
        if deadline < self.schedulerDeadline ?? .max {
            self.schedulerDeadline = deadline
            actions.wakesScheduler = true
        }
        return self.wheel.insert(tag: kind.rawValue | queue, key: key, deadline: deadline)
    }

    /// Lets a delayed message of memory wait for its time.
    mutating func startDelay(of entry: Entry, _ actions: inout Actions) {
        let (queue, key) = (entry.queue, entry.key)
        entry.timer = self.addTimer(.due, queue: queue, key: key.sequence, deadline: key.dueAt, &actions)
    }

    /// Fires what is due, at the bounded rate, and says what to read from LMDB and when to look again.
    mutating func advanceSchedule(now: Moment) -> (SchedulePlan, Actions) {
        var actions = Actions()
        guard self.failure == nil else {
            self.isSchedulerAsleep = true
            return (SchedulePlan(), actions)
        }
        let tick = now.milliseconds
        var due: [TimingWheel.Timer] = []
        let budget = self.releaseBudget.available(now: tick)
        let isDue = self.wheel.nextDeadline ?? .max <= tick
        let isCaughtUp = isDue && budget == 0 ? false : self.wheel.advance(to: tick, limit: max(budget, 1), into: &due)
        self.releaseBudget.spend(due.count)
        for timer in due { self.fire(timer, &actions) }
        if isCaughtUp {
            self.noteReleased(through: tick, &actions)
        } else {
            // What LMDB calls released is not that far: those must be taken out of the schedule there one by one.
            for timer in due where timer.tag & TimerKind.mask == TimerKind.due.rawValue {
                guard let entry = self.entries[timer.key] else { continue }
                if entry.isSettling || entry.settled?.isScheduled ?? false { self.markDirty(entry) }
            }
        }
        self.serveFreedQueues(now: now, &actions)
        var plan = SchedulePlan(windows: self.takeWindowLoads())
        plan.feed = self.feedIfWanted(tick: tick, limit: budget)
        plan.deadline = self.nextLook(tick: tick, isCaughtUp: isCaughtUp, isFeeding: plan.feed != nil)
        self.schedulerDeadline = plan.deadline
        self.isSchedulerAsleep = plan.windows.isEmpty && plan.feed == nil
        if !self.staging.isEmpty { actions.wakesLog = true }
        return (plan, actions)
    }

    private mutating func fire(_ timer: TimingWheel.Timer, _ actions: inout Actions) {
        let queue = timer.tag & ~TimerKind.mask
        switch TimerKind(rawValue: timer.tag & TimerKind.mask) {
        case .lease:
            if let entry = self.entries[timer.key] { self.expireLease(of: entry) }
        case .due:
            if let entry = self.entries[timer.key] { self.release(entry) }
        case .settledDue:
            self.releaseSettled(timer, queue: queue)
        case .taker:
            self.endWait(of: timer.key, queue: queue, &actions)
        case nil:
            break
        }
    }

    mutating func expireLease(of entry: Entry) {
        guard entry.status == .leased else { return }
        self.endLease(of: entry)
        self.enqueueReady(entry)
    }

    /// The time of a delayed message of memory has come.
    private mutating func release(_ entry: Entry) {
        guard entry.status == .delayed else { return }
        entry.timer = nil
        entry.standing.isScheduled = false
        self.setStatus(.ready, of: entry)
        self.enqueueReady(entry)
        self.freedQueues.insert(entry.queue)
        // The schedule in LMDB holds it, or soon will, and was not read that far: unless it is taken out there, it would be
        // released a second time.
        let isInSchedule = entry.isSettling || entry.settled?.isScheduled ?? false
        if isInSchedule, entry.key.scheduleKey > self.fedThrough { self.markDirty(entry) }
    }

    /// The time of a delayed message that only LMDB knows has come: it becomes part of the middle.
    private mutating func releaseSettled(_ timer: TimingWheel.Timer, queue: UInt32) {
        self.settledTimers[timer.key] = nil
        guard self.entries[timer.key] == nil else { return }
        self.queues[queue].delayed -= 1
        self.queues[queue].ready += 1
        self.queues[queue].isDirty = true
        // The rate is bounded, so a checkpoint may come between this one and the rest of those that are due.
        self.queues[queue].releasedAhead += 1
        self.queuesReleasedAhead.insert(queue)
        let key = OrderKey(priority: 0, dueAt: timer.deadline, sequence: 0)
        self.queues[queue].lowerScan(to: key)
        self.freedQueues.insert(queue)
    }

    /// Everything of the schedule that was due by now, and was in the wheel, is released.
    private mutating func noteReleased(through tick: Int64, _ actions: inout Actions) {
        for number in self.queuesReleasedAhead {
            self.queues[number].releasedAhead = 0
            self.queues[number].isDirty = true
        }
        self.queuesReleasedAhead = []
        let released = min(ScheduleKey(dueAt: tick, sequence: .max), self.fedThrough)
        guard released > self.meta.releasedThrough else { return }
        self.meta.releasedThrough = released
        for number in self.heldQueues {
            self.queues[number].isHeldBySchedule = false
            self.freedQueues.insert(number)
        }
        self.heldQueues = []
    }

    private mutating func feedIfWanted(tick: Int64, limit: Int) -> ScheduleFeed? {
        guard !self.isFeeding, let next = self.nextUnfed, limit > 0, next <= tick + self.limits.horizon else {
            return nil
        }
        self.isFeeding = true
        return ScheduleFeed(
            after: self.fedThrough,
            through: tick + self.limits.horizon,
            limit: min(limit, 8192),
            epoch: self.epoch
        )
    }

    private func nextLook(tick: Int64, isCaughtUp: Bool, isFeeding: Bool) -> Int64? {
        if !isCaughtUp { return tick + 4 }
        var deadline = self.wheel.nextDeadline
        if !isFeeding, let next = self.nextUnfed {
            deadline = min(deadline ?? .max, max(next - self.limits.horizon, tick + 4))
        }
        return deadline
    }

    /// Puts a run of the schedule into the wheel.
    ///
    /// - Parameters:
    ///   - feed: What was asked for.
    ///   - keys: The run, in order.
    ///   - next: The due time of what comes behind it; `nil` when nothing does.
    mutating func install(
        _ feed: ScheduleFeed,
        _ keys: [(key: ScheduleKey, queue: UInt32)],
        next: Int64?,
        now: Moment
    ) -> Actions {
        var actions = Actions()
        self.isFeeding = false
        actions.wakesScheduler = true
        // After memory forgot something the run may miss it: it is read again.
        guard feed.epoch == self.epoch else { return actions }
        for (key, queue) in keys {
            self.fedThrough = key
            guard self.entries[key.sequence] == nil, self.queues.contains(queue) else { continue }
            self.settledTimers[key.sequence] = self.addTimer(
                .settledDue,
                queue: queue,
                key: key.sequence,
                deadline: key.dueAt,
                &actions
            )
        }
        self.nextUnfed = next
        if next.map({ $0 > feed.through }) ?? true {
            self.fedThrough = max(self.fedThrough, ScheduleKey(dueAt: feed.through, sequence: .max))
        }
        return actions
    }

    /// The schedule could not be read: it is tried again in a second.
    mutating func failFeed() {
        self.isFeeding = false
        self.nextUnfed = self.wheel.now + self.limits.horizon + 1000
    }
}
