// Messages going out.

internal import DequeModule
internal import StalkCore
internal import StalkLog
internal import StalkWheel

extension Engine {
    /// The most deliveries of one call: their record must find room in a frame that others fill as well.
    static var deliveriesMax: Int { 1024 }

    /// Hands out what is ready, or lets the caller wait for it.
    ///
    /// - Parameters:
    ///   - taker: Who asks; its reply runs once the attempts are safe.
    ///   - queue: The queue.
    ///   - wait: How long it waits for the first message.
    mutating func take(_ taker: Taker, from queue: QueueName, wait: Duration, now: Moment) -> Actions {
        var actions = Actions()
        if let failure = self.failure {
            actions.replies.append { taker.reply(.failure(failure)) }
            return actions
        }
        guard let number = self.number(of: queue, isCreatedFor: wait, now: now) else {
            actions.replies.append { taker.reply(.success([])) }
            return actions
        }
        self.queues[number].takers.append(taker)
        self.serveTakers(of: number, now: now, &actions)
        guard let position = self.queues[number].takers.firstIndex(where: { $0.id == taker.id }) else { return actions }
        if wait > .zero {
            let deadline = now.later(by: wait)
            let timer = self.addTimer(.taker, queue: number, key: taker.id, deadline: deadline, &actions)
            self.queues[number].takers[position].timer = timer
        } else if !self.mayStillCome(taker, number) {
            self.removeTaker(at: position, of: number)
            actions.replies.append { taker.reply(.success([])) }
        }
        return actions
    }

    /// The number of a queue; a queue that somebody waits for is made when there is none.
    private mutating func number(of queue: QueueName, isCreatedFor wait: Duration, now: Moment) -> UInt32? {
        if let number = self.queueNumbers[queue] { return number }
        guard wait > .zero, self.room.admits(frameBytes: self.staging.bytes.count + 512) else { return nil }
        return self.stageQueue(queue, now: now)
    }

    /// Ends a wait; deliveries that are on their way still arrive.
    mutating func cancelTaker(_ id: UInt64, of queue: QueueName, with error: any Error) -> Actions {
        var actions = Actions()
        guard let number = self.queueNumbers[queue],
            let position = self.queues[number].takers.firstIndex(where: { $0.id == id })
        else { return actions }
        let taker = self.removeTaker(at: position, of: number)
        actions.replies.append { taker.reply(.failure(error)) }
        return actions
    }

    @discardableResult
    private mutating func removeTaker(at position: Int, of number: UInt32) -> Taker {
        let taker = self.queues[number].takers.remove(at: position)
        if let timer = taker.timer { self.wheel.cancel(timer) }
        return taker
    }

    /// Sends everybody away who waits for messages or for an empty queue.
    mutating func endWaits(with error: StalkError) -> Actions {
        var actions = Actions()
        for number in self.queues.numbers {
            while !self.queues[number].takers.isEmpty {
                let taker = self.removeTaker(at: 0, of: number)
                actions.replies.append { taker.reply(.failure(error)) }
            }
            for reply in self.queues[number].drainWaiters.values { actions.replies.append { reply(.failure(error)) } }
            self.queues[number].drainWaiters = [:]
        }
        return actions
    }

    /// The wait of a taker is over.
    mutating func endWait(of id: UInt64, queue number: UInt32, _ actions: inout Actions) {
        guard let position = self.queues[number].takers.firstIndex(where: { $0.id == id }) else { return }
        let taker = self.removeTaker(at: position, of: number)
        actions.replies.append { taker.reply(.success([])) }
    }

    /// Serves the takers of a queue, first come first served, for as long as messages are ready.
    mutating func serveTakers(of number: UInt32, now: Moment, _ actions: inout Actions) {
        guard !self.queues[number].isPaused else { return }
        var position = 0
        while position < self.queues[number].takers.count {
            let taker = self.queues[number].takers[position]
            let room = min(taker.max, Self.deliveriesMax, self.collectors[taker.collector]?.room ?? 0)
            guard room > 0 else {
                position += 1
                continue
            }
            guard self.room.admits(frameBytes: self.staging.bytes.count + 16 + 8 * room) else {
                self.queuesWithoutRoom.insert(number)
                actions.wakesLog = true
                actions.wakesKeeper = true
                return
            }
            let taken = self.takeReady(number, upTo: room, bytes: taker.maxBytes)
            if taken.isEmpty { break }
            self.removeTaker(at: position, of: number)
            self.deliver(taken, to: taker, now: now, &actions)
        }
        self.loadWindowIfWanted(number, &actions)
    }

    /// Takes the messages that are first in line out of line, leased, their leases still to be dated.
    private mutating func takeReady(_ number: UInt32, upTo limit: Int, bytes maxBytes: Int) -> [Entry] {
        var taken: [Entry] = []
        var bytes = 0
        while taken.count < limit, let entry = self.firstInLine(number) {
            if self.queues[number].readyInMiddle > 0, entry.key >= self.queues[number].scanFrom { break }
            bytes += entry.content.byteCount
            if bytes > maxBytes, !taken.isEmpty { break }
            self.queues[number].removeFirst()
            // Leased at once: a key may stand in line twice, when its message was forgotten and loaded again.
            self.setStatus(.leased, of: entry)
            if self.isAwaitingHolders, self.mayBeHeld(entry.standing) {
                self.awaited.insert(entry.sequence)
                continue
            }
            taken.append(entry)
        }
        return taken
    }

    /// The message of memory that is first in line; keys whose message has moved on meanwhile are passed over.
    mutating func firstInLine(_ number: UInt32) -> Entry? {
        while let key = self.queues[number].first {
            if let entry = self.entries[key.sequence], entry.status == .ready, entry.key == key, entry.queue == number {
                return entry
            }
            self.queues[number].removeFirst()
        }
        return nil
    }

    /// Leases messages to a taker, who gets them once their attempts are safe.
    private mutating func deliver(_ entries: [Entry], to taker: Taker, now: Moment, _ actions: inout Actions) {
        let deadline = now.later(by: taker.lease)
        var deliveries: [Delivery] = []
        deliveries.reserveCapacity(entries.count)
        self.stage(.take(entries.map(\.sequence)), now: now)
        for entry in entries {
            let lease = self.nextLease
            self.nextLease += 1
            let sequence = entry.sequence
            self.noteLost(entry)
            self.countAttempt(of: entry, lease: lease)
            entry.lease = lease
            entry.holder = taker.collector
            entry.timer = self.addTimer(.lease, queue: entry.queue, key: sequence, deadline: deadline, &actions)
            deliveries.append(
                Delivery(
                    id: MessageID(sequence: sequence),
                    queue: self.queues[entry.queue].name,
                    body: entry.content.body,
                    headers: entry.content.headers,
                    attempt: Int(entry.standing.attempts),
                    publishedAt: Timestamp(millisecondsSince1970: entry.content.publishedAt),
                    receipt: Receipt(token: .local(store: self.meta.store, sequence: sequence, lease: lease))
                )
            )
        }
        self.collectors[taker.collector]?.inFlight += deliveries.count
        let done = deliveries
        self.waitForStaged(taker.durability) { outcome in
            taker.reply(outcome.map { done }.mapError { $0 })
        }
        actions.wakesLog = true
    }

    /// Counts one more attempt; from now on the message stands among the ready ones, not in the schedule.
    mutating func countAttempt(of entry: Entry, lease: UInt64) {
        entry.standing.attempts += 1
        entry.standing.lease = lease
        entry.standing.isScheduled = false
        self.markDirty(entry)
    }

    /// Gives a leased message back to the line, at its old place.
    mutating func endLease(of entry: Entry) {
        guard entry.status == .leased else { return }
        if let timer = entry.timer { self.wheel.cancel(timer) }
        self.collectors[entry.holder]?.inFlight -= 1
        self.freedQueues.insert(entry.queue)
        entry.timer = nil
        entry.lease = 0
        entry.holder = 0
        self.setStatus(.ready, of: entry)
    }
}

// MARK: - The window at the head of a queue

extension Engine {
    /// Whether a taker that does not wait can still hope: for messages that only LMDB knows, or for room in the log.
    func mayStillCome(_ taker: Taker, _ number: UInt32) -> Bool {
        let queue = self.queues[number]
        if queue.isPaused { return false }
        if self.queuesWithoutRoom.contains(number) { return true }
        return queue.readyInMiddle > 0 && !queue.isHeldBySchedule && (self.collectors[taker.collector]?.room ?? 0) > 0
    }

    /// Asks for the next run of messages when takers wait for it or the window runs low.
    mutating func loadWindowIfWanted(_ number: UInt32, _ actions: inout Actions) {
        let queue = self.queues[number]
        guard queue.readyInMiddle > 0, !queue.isLoading, !queue.isHeldBySchedule, !queue.isPaused else { return }
        let isWaitedFor = queue.takers.contains { (self.collectors[$0.collector]?.room ?? 0) > 0 }
        let isRunningLow = queue.readyInMemory < self.limits.windowMessages / 4 && queue.leased > 0
        guard isWaitedFor || isRunningLow else { return }
        guard self.hasRoomForWindow else {
            // What was taken and finished must leave memory before more comes into it.
            self.windowsWithoutRoom.insert(number)
            actions.wakesKeeper = true
            return
        }
        self.wantedWindows.insert(number)
        actions.wakesScheduler = true
    }

    /// Serves the takers that had to wait for room in the log.
    mutating func serveTakersWithoutRoom(now: Moment, _ actions: inout Actions) {
        let numbers = self.queuesWithoutRoom
        self.queuesWithoutRoom = []
        for number in numbers {
            self.serveTakers(of: number, now: now, &actions)
            self.dismissImmediateTakers(of: number, &actions)
        }
    }

    /// Sends the takers away that would wait for room which the disk does not have.
    mutating func refuseTakersWithoutRoom(_ error: StalkError, _ actions: inout Actions) {
        for number in self.queuesWithoutRoom {
            while !self.queues[number].takers.isEmpty {
                let taker = self.removeTaker(at: 0, of: number)
                actions.replies.append { taker.reply(.failure(error)) }
            }
        }
        self.queuesWithoutRoom = []
    }

    /// The windows that are wanted, marked as being loaded.
    mutating func takeWindowLoads() -> [WindowLoad] {
        defer { self.wantedWindows = [] }
        return self.wantedWindows.sorted().map { number in
            self.queues[number].isLoading = true
            return WindowLoad(
                queue: number,
                from: self.queues[number].scanFrom,
                epoch: self.epoch,
                releasedThrough: self.meta.releasedThrough
            )
        }
    }

    /// Puts a loaded run in line.
    ///
    /// - Parameters:
    ///   - load: What was asked for.
    ///   - messages: The run, in order.
    ///   - end: What comes behind the run.
    mutating func install(
        _ load: WindowLoad,
        _ messages: [SettledMessage],
        end: WindowEnd,
        now: Moment
    ) -> Actions {
        var actions = Actions()
        self.queues[load.queue].isLoading = false
        guard load.epoch == self.epoch else {
            // Memory forgot something meanwhile, which the run may miss or bring back: it is loaded again.
            self.serveTakers(of: load.queue, now: now, &actions)
            self.dismissImmediateTakers(of: load.queue, &actions)
            return actions
        }
        var loaded = 0
        for message in messages {
            let key = message.standing.key
            self.queues[load.queue].scanFrom = key.successor
            guard self.entries[key.sequence] == nil else { continue }
            self.addLoaded(message, status: .ready)
            loaded += 1
        }
        switch end {
        case .more: break
        case .nothing(let from): self.queues[load.queue].scanFrom = max(from, self.queues[load.queue].scanFrom)
        case .heldBySchedule where load.releasedThrough < self.meta.releasedThrough:
            // Released while the run was read: it is read again.
            break
        case .heldBySchedule where self.queues[load.queue].readyInMiddle > 0:
            self.queues[load.queue].isHeldBySchedule = true
            self.heldQueues.insert(load.queue)
        case .heldBySchedule:
            // What waits is not due yet, and all that is ready is in memory.
            break
        }
        if loaded == 0, case .nothing = end { self.mendCount(of: load) }
        self.serveTakers(of: load.queue, now: now, &actions)
        self.dismissImmediateTakers(of: load.queue, &actions)
        return actions
    }

    /// Puts a settled message into memory; its figures stand in the queue already.
    @discardableResult
    mutating func addLoaded(_ message: SettledMessage, status: Entry.Status) -> Entry {
        var standing = message.standing
        if status == .ready { standing.isScheduled = false }
        let entry = Entry(standing: standing, content: message.content, status: status, settled: message.standing.place)
        self.entries[entry.sequence] = entry
        guard status == .ready else { return entry }
        self.queues[standing.queue].readyInMemory += 1
        self.enqueueReady(entry)
        return entry
    }

    /// LMDB holds fewer ready messages than were counted, for instance since one was set aside: the count is mended.
    private mutating func mendCount(of load: WindowLoad) {
        let number = load.queue
        let missing = self.queues[number].readyInMiddle
        guard missing > 0 else { return }
        guard load.from == .first else {
            // Before anything is given up, the whole queue is read once more.
            self.queues[number].scanFrom = .first
            return
        }
        self.queues[number].ready -= missing
        self.queues[number].isDirty = true
    }

    /// A window could not be read.
    mutating func failLoad(_ load: WindowLoad, _ error: StalkError) -> Actions {
        var actions = Actions()
        self.queues[load.queue].isLoading = false
        for taker in self.queues[load.queue].takers { actions.replies.append { taker.reply(.failure(error)) } }
        self.queues[load.queue].takers = []
        return actions
    }

    /// Lets those go who only wanted what is there.
    private mutating func dismissImmediateTakers(of number: UInt32, _ actions: inout Actions) {
        for taker in self.queues[number].takers where taker.isImmediate && !self.mayStillCome(taker, number) {
            self.endWait(of: taker.id, queue: number, &actions)
        }
    }
}

/// A run of ready messages to be read from LMDB.
struct WindowLoad: Sendable {
    var queue: UInt32
    var from: OrderKey
    /// The engine's ``Engine/epoch`` when it was asked for.
    var epoch: UInt64
    var releasedThrough: ScheduleKey
}

/// What comes behind a run.
enum WindowEnd: Sendable {
    /// More messages, or the limits were reached.
    case more
    /// No more ready message; the next one will stand at or behind this key.
    case nothing(from: OrderKey)
    /// A message whose time has not been released yet.
    case heldBySchedule
}
