// Frames: closing them, and what it means that one is safe.

internal import DequeModule
internal import StalkCore
internal import StalkLog

/// What the log's thread is to do next.
enum LogJob: Sendable {
    case write(StagedFrame)
    /// Nothing to write, but somebody wants what was written to survive a power cut.
    case sync
}

extension Engine {
    /// Stages a record for the next frame; the room must be there.
    mutating func stage(_ record: LogRecord, now: Moment) {
        record.write(to: &self.staging.bytes)
        self.lastChange = now
    }

    /// Lets a caller wait until what is staged so far is safe.
    mutating func waitForStaged(
        _ durability: Durability,
        _ reply: @escaping @Sendable (Result<Void, StalkError>) -> Void
    ) {
        self.staging.waiters.append(DurabilityWaiter(level: durability, reply: reply))
        if durability == .synced { self.staging.needsSync = true }
    }

    /// Lets a caller wait until everything staged so far survives a power cut.
    mutating func waitForSync(_ reply: @escaping @Sendable (Result<Void, StalkError>) -> Void) -> Actions {
        var actions = Actions()
        let isStaging = self.staging.bytes.count > FrameHeader.byteCount
        let last = self.nextFrame - (isStaging ? 0 : 1)
        if let failure = self.failure {
            actions.replies.append { reply(.failure(failure)) }
        } else if last <= self.syncedThrough {
            actions.replies.append { reply(.success(())) }
        } else {
            if isStaging { self.staging.needsSync = true }
            self.syncWaiters.append((last, reply))
            actions.wakesLog = true
        }
        return actions
    }

    /// Closes the frame that gathers, so that what follows goes into the next one.
    mutating func seal(now: Moment, reusing memory: consuming [UInt8] = []) {
        guard !self.staging.isEmpty else { return }
        var frame = StagedFrame(reusing: memory)
        swap(&frame, &self.staging)
        frame.sequence = self.nextFrame
        frame.storeTime = now.milliseconds
        self.nextFrame += 1
        frame.nextSegment = self.room.consume(frameBytes: frame.bytes.count)
        if let next = frame.nextSegment {
            if let full = self.activeSegment { self.retiredSegments.append((full, lastFrame: frame.sequence - 1)) }
            self.activeSegment = next
        }
        self.bytesSinceCheckpoint += frame.bytes.count
        self.sealed.append(frame)
    }

    /// The next thing to do for the log's thread, or `nil` when there is nothing.
    ///
    /// - Parameter memory: Memory of a frame that was written, to be used again.
    mutating func nextLogJob(now: Moment, reusing memory: consuming [UInt8]) -> (LogJob?, Actions) {
        guard self.failure == nil else {
            self.isLogAsleep = true
            return (nil, Actions())
        }
        if self.sealed.isEmpty { self.seal(now: now, reusing: memory) }
        guard let frame = self.sealed.popFirst() else {
            self.isLogAsleep = self.syncWaiters.isEmpty
            return (self.isLogAsleep ? nil : .sync, Actions())
        }
        var actions = self.admitPending(now: now)
        self.serveTakersWithoutRoom(now: now, &actions)
        if frame.nextSegment != nil || self.wantsCheckpoint { actions.wakesKeeper = true }
        return (.write(frame), actions)
    }

    /// A frame was written, and synced if it asked for that: its messages become visible, its callers go on.
    ///
    /// - Parameter syncTime: How long the sync took, in microseconds.
    mutating func complete(_ frame: StagedFrame, syncTime: Int?, now: Moment) -> Actions {
        var actions = Actions()
        precondition(frame.sequence == self.writtenThrough + 1, "frames are written in order, without gaps")
        self.writtenThrough = frame.sequence
        self.commitCalls.record(frame.waiters.count)
        if let syncTime { self.noteSynced(through: frame.sequence, syncTime, &actions) }
        self.activate(frame.published, now: now, &actions)
        for waiter in frame.waiters { actions.replies.append { waiter.reply(.success(())) } }
        return actions
    }

    /// Everything written so far survives a power cut.
    ///
    /// - Parameter syncTime: How long the sync took, in microseconds.
    mutating func completeSync(syncTime: Int) -> Actions {
        var actions = Actions()
        self.noteSynced(through: self.writtenThrough, syncTime, &actions)
        return actions
    }

    private mutating func noteSynced(through frame: UInt64, _ syncTime: Int, _ actions: inout Actions) {
        self.logSyncs.record(syncTime)
        precondition((self.syncedThrough...self.writtenThrough).contains(frame), "only what was written is synced")
        self.syncedThrough = frame
        guard !self.syncWaiters.isEmpty else { return }
        for waiter in self.syncWaiters where waiter.frame <= frame {
            actions.replies.append { waiter.reply(.success(())) }
        }
        self.syncWaiters.removeAll { $0.frame <= frame }
    }

    /// Makes published messages visible.
    private mutating func activate(_ published: Range<UInt64>, now: Moment, _ actions: inout Actions) {
        var touched: Set<UInt32> = []
        var last: UInt32 = 0
        for sequence in published {
            guard let entry = self.entries[sequence], entry.status == .staged else { continue }
            self.makeVisible(entry, now: now, &actions)
            if entry.queue != last { touched.insert(entry.queue) }
            last = entry.queue
        }
        for queue in touched { self.serveTakers(of: queue, now: now, &actions) }
    }

    /// Lets a published message be ready, or wait for its time.
    mutating func makeVisible(_ entry: Entry, now: Moment, _ actions: inout Actions) {
        // What fell due while it was on its way to the disk is released like everything else that was due by then.
        if entry.standing.isScheduled, entry.key.scheduleKey > self.meta.releasedThrough {
            self.setStatus(.delayed, of: entry)
            self.startDelay(of: entry, &actions)
        } else {
            self.setStatus(.ready, of: entry)
            entry.standing.isScheduled = false
            self.enqueueReady(entry)
        }
    }
}
