// Keeps house: checkpoints into LMDB, and segments prepared before the log needs them.

internal import StalkCore
internal import StalkFiles
internal import StalkIndex
internal import StalkLog

/// Keeps house.
struct KeeperWorker: StoreWorker {
    private enum Task {
        case prepareSegment
        case checkpoint(isIdle: Bool)
        /// Publishing waits for a checkpoint, and that would fail as the last one did.
        case refusePublishing(StalkError)
        case sleep(until: Int64?)
        case end
    }

    private struct Checkpoint: Sendable {
        var batch: SettleBatch
        var isIdle: Bool
        /// Why the disk gave no room for a segment; what waits for room is refused unless the checkpoint brings some.
        var lackOfRoom: StalkError?
    }

    /// How far a checkpoint is.
    private enum Phase: Sendable {
        case idle
        /// Its frames are on the way to the disk.
        case syncing(Checkpoint, SyncOutcome)
        /// They are there, LMDB is next.
        case applying(Checkpoint)
        /// LMDB has the changes before `end` as well as those behind, but memory does not know yet.
        case settling(Checkpoint, end: Int, free: [Segment])
        /// The log does without these segments.
        case recycling(Checkpoint, ArraySlice<Segment>)
        /// The checkpoint is over; the index may be far larger than what is in it.
        case compacting(isIdle: Bool)
    }

    /// How many messages memory settles in a step, so that nobody waits long for the lock.
    private static let settledAtOnce = 4096

    let core: StoreCore
    /// The number that the next prepared segment gets.
    private var nextSegment: UInt64
    private var phase = Phase.idle
    /// The next checkpoint waits for this after one that failed.
    private var retryAt: Int64 = .min
    /// Why the last checkpoint failed; `nil` after one that did not.
    private var lastFailure: StalkError?

    init(core: StoreCore, nextSegment: UInt64) {
        self.core = core
        self.nextSegment = nextSegment
    }

    mutating func step() -> WorkerWish {
        switch self.phase {
        case .idle: return self.look()
        case .syncing(let checkpoint, let outcome):
            guard let outcome = outcome.result.withLock({ $0 }) else { return .sleep(until: nil) }
            self.finishSync(of: checkpoint, outcome)
        case .applying(let checkpoint): self.apply(checkpoint)
        case .settling(let checkpoint, let end, let free): self.settle(checkpoint, end: end, free)
        case .recycling(let checkpoint, let segments): self.recycle(segments, checkpoint)
        case .compacting(let isIdle): self.compactIfWorthwhile(isIdle: isIdle)
        }
        return .goOn
    }

    private mutating func look() -> WorkerWish {
        switch self.nextTask() {
        case .prepareSegment: self.prepareSegment()
        case .checkpoint(let isIdle): self.beginCheckpoint(isIdle: isIdle)
        case .refusePublishing(let error):
            self.core.step { engine, now in engine.refusePending(error, now: now) }
        case .sleep(let deadline): return .sleep(until: deadline)
        case .end: return .end
        }
        return .goOn
    }

    private func nextTask() -> Task {
        let now = self.core.now
        let isStopping = self.core.isStopping
        let idle = self.core.options.idleCheckpointDelay
        let retryAt = self.retryAt
        let lastFailure = self.lastFailure
        return self.core.look { engine in
            if isStopping || engine.failure != nil { return isStopping ? .end : .sleep(until: nil) }
            let isWaitedFor = !engine.pending.isEmpty || !engine.queuesWithoutRoom.isEmpty
            if engine.room.spares.count < 2, engine.roomFailure == nil || isWaitedFor { return .prepareSegment }
            let mayCheckpoint = now.milliseconds >= retryAt
            if engine.isCheckpointRequested || mayCheckpoint && engine.wantsCheckpoint {
                return .checkpoint(isIdle: false)
            }
            if let lastFailure, !engine.pending.isEmpty, engine.isBehindWithCheckpoints {
                return .refusePublishing(lastFailure)
            }
            guard engine.hasUnsettledChanges, let lastChange = engine.lastChange else {
                engine.isKeeperArmed = false
                return .sleep(until: nil)
            }
            let due = max(lastChange.later(by: idle), retryAt)
            return due <= now.milliseconds ? .checkpoint(isIdle: true) : .sleep(until: due)
        }
    }

    // MARK: Checkpoints

    private mutating func beginCheckpoint(isIdle: Bool, lackOfRoom: StalkError? = nil) {
        let outcome = SyncOutcome()
        let core = self.core
        let batch = self.core.step { engine, now in
            engine.isCheckpointRequested = false
            let batch = engine.beginCheckpoint(now: now)
            // LMDB must not be ahead of the log: frames it claims to contain are never written again.
            var actions = engine.waitForSync { result in
                outcome.result.withLock { $0 = result }
                core.wake(.keeper)
            }
            actions.wakesLog = true
            return (batch, actions)
        }
        self.phase = .syncing(Checkpoint(batch: batch, isIdle: isIdle, lackOfRoom: lackOfRoom), outcome)
    }

    private mutating func finishSync(of checkpoint: Checkpoint, _ outcome: Result<Void, StalkError>) {
        switch outcome {
        case .success: self.phase = .applying(checkpoint)
        case .failure(let error): self.abandon(checkpoint, error)
        }
    }

    private mutating func apply(_ checkpoint: Checkpoint) {
        let batch = checkpoint.batch
        do throws(StalkError) {
            try self.apply(batch)
        } catch {
            self.abandon(checkpoint, error)
            return
        }
        self.lastFailure = nil
        let free = self.core.step { engine, _ in (engine.endCheckpoint(batch.meta), Actions()) }
        self.phase = .settling(checkpoint, end: batch.changes.count, free: free)
    }

    private func apply(_ batch: SettleBatch) throws(StalkError) {
        do throws(StalkError) {
            try self.core.tables.apply(batch)
        } catch {
            // The ballast is for what gives space back; new messages are as safe in the log.
            let newBytes = batch.changes.reduce(0) { $0 + ($1.content?.body.count ?? 0) }
            guard error.code == .storageFull, newBytes <= Ballast.byteCount / 2,
                (try? self.core.directory.remove(Ballast.name)) != nil
            else { throw error }
            try self.core.tables.apply(batch)
        }
    }

    /// Settles from the end, so that the head of each queue is what stays in memory.
    private mutating func settle(_ checkpoint: Checkpoint, end: Int, _ free: [Segment]) {
        guard end > 0 else {
            self.phase = .recycling(checkpoint, free[...])
            return
        }
        let start = max(0, end - Self.settledAtOnce)
        let part = checkpoint.batch.changes[start..<end]
        self.core.step { engine, now in engine.settle(part, isLast: start == 0, now: now) }
        self.phase = .settling(checkpoint, end: start, free: free)
    }

    private mutating func abandon(_ checkpoint: Checkpoint, _ error: StalkError) {
        self.phase = .idle
        self.retryAt = self.core.now.milliseconds + 1000
        self.lastFailure = error
        let batch = checkpoint.batch
        self.core.step { engine, now in
            engine.abandonCheckpoint(batch)
            if error.code != .storageFull { return engine.fail(error) }
            var actions = engine.noticeCheckpoint(.failure(error))
            // What waits for the checkpoint would wait for space that only finishing brings back.
            if engine.isBehindWithCheckpoints || engine.room.spares.count < 2 {
                actions.append(engine.refusePending(error, now: now))
            }
            return actions
        }
    }

    // MARK: Segments

    private mutating func prepareSegment() {
        let number = self.nextSegment
        self.nextSegment += 1
        do throws(StalkError) {
            let segment = try Segment.make(number, self.core.limits.segmentBytes, in: self.core.directory)
            self.core.step { engine, now in engine.addSpare(segment, now: now) }
        } catch {
            guard error.code != .storageFailed else {
                self.core.step { engine, _ in engine.fail(error) }
                return
            }
            let isHopeful = self.core.look { engine in
                engine.roomFailure = error
                return engine.hasUnsettledChanges && !engine.retiredSegments.isEmpty
            }
            if isHopeful, error.code == .storageFull, self.core.now.milliseconds >= self.retryAt {
                // A checkpoint may free segments that can be used again.
                self.beginCheckpoint(isIdle: false, lackOfRoom: error)
            } else {
                self.refuseWhatWaitsForRoom(error)
            }
        }
    }

    private func refuseWhatWaitsForRoom(_ error: StalkError) {
        self.core.step { engine, now in
            engine.room.spares.count >= 2 ? Actions() : engine.refusePending(error, now: now)
        }
    }

    /// Gives a segment that the log no longer needs a new number, or removes it.
    private mutating func recycle(_ segments: ArraySlice<Segment>, _ checkpoint: Checkpoint) {
        guard let segment = segments.first else {
            self.endCheckpoint(checkpoint)
            return
        }
        self.phase = .recycling(checkpoint, segments.dropFirst())
        let spares = self.core.look { $0.room.spares.count }
        let number = self.nextSegment
        self.nextSegment += 1
        // What stays behind is passed over as settled at the next opening, and removed then.
        self.attempt { () throws(StalkError) in
            guard spares < self.worthKeeping(isIdle: checkpoint.isIdle),
                try segment.file.size() == self.core.limits.segmentBytes
            else {
                try self.core.directory.remove(Segment.path(segment.number))
                return
            }
            try self.core.directory.rename(Segment.path(segment.number), to: Segment.path(number))
            try self.core.directory.sync(Segment.directory)
            let spare = Segment(number: number, file: segment.file)
            self.core.step { engine, now in engine.addSpare(spare, now: now) }
        }
    }

    private mutating func endCheckpoint(_ checkpoint: Checkpoint) {
        self.phase = .compacting(isIdle: checkpoint.isIdle)
        if checkpoint.isIdle { self.trimSpares(to: self.worthKeeping(isIdle: true)) }
        if self.core.directory.freeBytes ?? .max > 4 * Ballast.byteCount {
            self.attempt { () throws(StalkError) in try Ballast.make(in: self.core.directory) }
        }
        self.core.step { engine, _ in engine.noticeCheckpoint(.success(())) }
        if let error = checkpoint.lackOfRoom { self.refuseWhatWaitsForRoom(error) }
    }

    /// Gives space of finished messages back, when little else is left in the index.
    private mutating func compactIfWorthwhile(isIdle: Bool) {
        self.phase = .idle
        self.attempt { () throws(StalkError) in
            guard let index = self.core.tables.index as? Environment,
                CompactionRule.mayApply(toFileOf: index.fileBytes),
                let live = try? index.statistics().liveBytes,
                CompactionRule.isWorthwhile(fileBytes: index.fileBytes, liveBytes: live, isIdle: isIdle)
            else { return }
            try StoreCompaction.compact(index, liveBytes: live, of: self.core)
        }
    }

    /// How many prepared segments are worth keeping.
    private func worthKeeping(isIdle: Bool) -> Int {
        isIdle ? 2 : 2 * self.core.limits.checkpointBytes / self.core.limits.segmentBytes + 2
    }

    private func trimSpares(to most: Int) {
        let surplus = self.core.look { engine -> [Segment] in
            let surplus = Array(engine.room.spares.dropFirst(most))
            engine.room.spares.removeLast(surplus.count)
            return surplus
        }
        for segment in surplus {
            self.attempt { () throws(StalkError) in try self.core.directory.remove(Segment.path(segment.number)) }
        }
    }

    /// Does what the store can do without; but a disk that failed ends its work whatever the call was.
    private func attempt(_ body: () throws(StalkError) -> Void) {
        do throws(StalkError) {
            try body()
        } catch {
            if error.code == .storageFailed { self.core.step { engine, _ in engine.fail(error) } }
        }
    }
}

/// How the sync went that a checkpoint waits for.
private final class SyncOutcome: Sendable {
    let result = Locked<Result<Void, StalkError>?>(nil)
}
