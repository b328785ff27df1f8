// What moves into LMDB, and what memory may forget afterwards.

internal import DequeModule
internal import HeapModule
internal import StalkCore
internal import StalkLog
internal import StalkWheel

extension Engine {
    /// Whether enough has gathered for a checkpoint.
    var wantsCheckpoint: Bool {
        !self.isCheckpointing
            && (self.bytesSinceCheckpoint >= self.limits.checkpointBytes
                || self.unsettledBytes >= self.limits.unsettledBytesMax / 2
                || self.dirtyCount >= self.limits.dirtyMessagesMax / 2)
    }

    /// Whether publishing must wait for a checkpoint, so that memory stays bounded.
    var isBehindWithCheckpoints: Bool {
        self.unsettledBytes >= self.limits.unsettledBytesMax
            || self.dirtyCount >= self.limits.dirtyMessagesMax
    }

    /// Whether memory has room for more messages at the head of a queue.
    ///
    /// While checkpoints fail, which is when the disk is full, there is more: finishing is what gives space back.
    var hasRoomForWindow: Bool {
        self.dirtyCount < self.limits.dirtyMessagesMax * (self.isCheckpointFailing ? 4 : 1)
    }

    /// Whether a checkpoint would change anything in LMDB.
    var hasUnsettledChanges: Bool {
        self.hasUnsettledPause || self.nextFrame - 1 > self.meta.settledFrame
            || self.staging.bytes.count > FrameHeader.byteCount
    }

    /// Asks for a checkpoint and lets the caller wait for it.
    mutating func requestCheckpoint(_ reply: @escaping @Sendable (Result<Void, StalkError>) -> Void) -> Actions {
        var actions = Actions()
        if let failure = self.failure {
            actions.replies.append { reply(.failure(failure)) }
        } else if !self.hasUnsettledChanges, !self.isCheckpointing {
            actions.replies.append { reply(.success(())) }
        } else {
            self.isCheckpointRequested = true
            self.checkpointWaiters.append(reply)
            actions.wakesKeeper = true
        }
        return actions
    }

    /// A checkpoint is over: who waits for it goes on, unless one that was asked for later is still to come.
    mutating func noticeCheckpoint(_ outcome: Result<Void, StalkError>) -> Actions {
        var actions = Actions()
        self.retryWindows(&actions)
        guard !self.isCheckpointRequested else { return actions }
        for reply in self.checkpointWaiters { actions.replies.append { reply(outcome) } }
        self.checkpointWaiters = []
        return actions
    }

    /// Asks again for the windows that memory had no room for.
    mutating func retryWindows(_ actions: inout Actions) {
        guard !self.windowsWithoutRoom.isEmpty else { return }
        let windows = self.windowsWithoutRoom
        self.windowsWithoutRoom = []
        for number in windows { self.loadWindowIfWanted(number, &actions) }
    }

    /// Freezes what changed since the last checkpoint, at the border of a frame.
    ///
    /// - Returns: What LMDB is to be told once the frame survives a power cut.
    mutating func beginCheckpoint(now: Moment) -> SettleBatch {
        self.isCheckpointing = true
        self.seal(now: now)
        self.bytesSinceCheckpoint = 0
        self.hasUnsettledPause = false
        var meta = self.meta
        meta.settledFrame = self.nextFrame - 1
        meta.nextLease = self.nextLease
        meta.storeTime = now.milliseconds
        let sequences = self.dirty
        self.dirty = []
        let changes = sequences.compactMap { self.entries[$0].flatMap { self.freeze($0) } }
        let queues = self.queues.numbers.compactMap { number -> SettledQueue? in
            guard self.queues[number].isDirty else { return nil }
            self.queues[number].isDirty = false
            return self.queues[number].settled
        }
        return SettleBatch(meta: meta, changes: changes, queues: queues)
    }

    /// A message that is on its way to the disk, and that LMDB will hold as released since everything due by then was, must be
    /// ready when it is visible.
    private mutating func releaseIfOvertaken(_ entry: Entry) {
        guard entry.status == .staged, entry.standing.isScheduled, entry.key.scheduleKey <= self.meta.releasedThrough
        else { return }
        self.queues[entry.queue].count(entry, as: .staged, by: -1)
        entry.standing.isScheduled = false
        self.queues[entry.queue].count(entry, as: .staged, by: 1)
    }

    private mutating func freeze(_ entry: Entry) -> SettleChange? {
        self.releaseIfOvertaken(entry)
        guard entry.isDirty else { return nil }
        entry.isDirty = false
        self.dirtyCount -= 1
        entry.isSettling = true
        return SettleChange(
            sequence: entry.sequence,
            before: entry.settled,
            after: entry.status == .gone ? nil : entry.standing,
            content: entry.settled == nil ? entry.content : nil
        )
    }

    /// LMDB holds the batch now.
    ///
    /// - Returns: The segments that the log no longer needs.
    mutating func endCheckpoint(_ meta: StoreMeta) -> [Segment] {
        precondition(
            (self.meta.settledFrame...self.syncedThrough).contains(meta.settledFrame),
            "LMDB never goes back, and is never ahead of what the log has on the disk"
        )
        self.isCheckpointing = false
        self.isCheckpointFailing = false
        self.meta.settledFrame = meta.settledFrame
        self.meta.storeTime = meta.storeTime
        let free = self.retiredSegments.filter { $0.lastFrame <= meta.settledFrame }.map(\.segment)
        self.retiredSegments.removeAll { $0.lastFrame <= meta.settledFrame }
        return free
    }

    /// A prepared segment is there.
    mutating func addSpare(_ segment: Segment, now: Moment) -> Actions {
        self.room.spares.append(segment)
        self.roomFailure = nil
        var actions = self.admitPending(now: now)
        self.serveTakersWithoutRoom(now: now, &actions)
        return actions
    }

    /// Notes for a part of the batch that LMDB holds it, and forgets what need not be in memory.
    ///
    /// Parts are small, so that nobody waits long for the lock.
    ///
    /// - Parameter isLast: Whether the batch has no other part.
    mutating func settle(_ changes: ArraySlice<SettleChange>, isLast: Bool, now: Moment) -> Actions {
        var actions = Actions()
        self.epoch += 1
        var forgotten: Set<UInt32> = []
        // From the last one to the first, so that the head of a queue is what stays.
        for change in changes.reversed() {
            guard let entry = self.entries[change.sequence] else { continue }
            entry.isSettling = false
            if change.before == nil, entry.settled == nil { self.noteSettled(ifAlive: entry) }
            entry.settled = change.after?.place
            self.forget(entry, &forgotten, &actions)
        }
        self.queuesWithForgotten.formUnion(forgotten)
        if isLast {
            for number in self.queuesWithForgotten { self.dropForgottenKeys(number) }
            self.queuesWithForgotten = []
        }
        actions.append(self.admitPending(now: now))
        for number in forgotten { self.serveTakers(of: number, now: now, &actions) }
        return actions
    }

    /// A checkpoint failed: what it would have settled stays in memory and in the log.
    mutating func abandonCheckpoint(_ batch: SettleBatch) {
        self.isCheckpointing = false
        self.isCheckpointFailing = true
        for change in batch.changes {
            guard let entry = self.entries[change.sequence] else { continue }
            entry.isSettling = false
            if entry.status == .gone, entry.settled == nil {
                if entry.isDirty { self.dirtyCount -= 1 }
                self.entries[change.sequence] = nil
            } else {
                self.markDirty(entry)
            }
        }
        for queue in batch.queues { self.queues[queue.number].isDirty = true }
        // Whether one of them was paused is not known any more; writing them all again is right in any case.
        self.hasUnsettledPause = !batch.queues.isEmpty
    }

    private mutating func noteSettled(ifAlive entry: Entry) {
        // A message that was finished meanwhile was counted out when it was.
        if entry.status != .gone { self.noteSettled(entry) }
    }

    /// Forgets a message that LMDB holds, unless it is worth keeping.
    private mutating func forget(_ entry: Entry, _ forgotten: inout Set<UInt32>, _ actions: inout Actions) {
        guard entry.isEvictable else { return }
        let queue = entry.queue
        switch entry.status {
        case .ready:
            // The head of a queue stays, since it is wanted next.
            if self.queues[queue].readyInMemory <= self.limits.windowMessages, !self.isBodyLarge(entry) { return }
            self.queues[queue].readyInMemory -= 1
            self.queues[queue].lowerScan(to: entry.key)
            forgotten.insert(queue)
        case .delayed:
            // What is due within the horizon was read into the wheel, so it must stay there.
            if entry.key.scheduleKey <= self.fedThrough { return }
            if let timer = entry.timer { self.wheel.cancel(timer) }
            if entry.key.dueAt < self.nextUnfed ?? .max {
                self.nextUnfed = entry.key.dueAt
                actions.wakesScheduler = true
            }
        case .dead, .gone: break
        case .staged, .leased: return
        }
        self.entries[entry.sequence] = nil
    }

    private func isBodyLarge(_ entry: Entry) -> Bool {
        entry.content.body.count > self.limits.windowBytes / 64
    }

    /// Takes the keys of forgotten messages out of line; one that is left is passed over when its turn comes.
    private mutating func dropForgottenKeys(_ number: UInt32) {
        let entries = self.entries
        self.queues[number].tail.removeAll { entries[$0.sequence] == nil }
        if self.queues[number].head.count > 4 * self.limits.windowMessages {
            let kept = self.queues[number].head.unordered.filter { entries[$0.key.sequence] != nil }
            self.queues[number].head = .init(kept)
        }
    }
}
