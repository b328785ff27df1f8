// Keeps house: checkpoints into LMDB, and segments prepared before the log needs them.

internal import StalkCore
internal import StalkFiles
internal import StalkLog
internal import StalkPlatform
internal import Synchronization

/// What the keeper's thread runs.
struct KeeperThread {
    /// Freed when LMDB can't grow any more, so that finishing messages can still give space back.
    static let ballastName = "ballast"
    static let ballastBytes = 4 << 20

    let core: StoreCore
    /// The number that the next prepared segment gets.
    var nextSegment: UInt64
    /// The next checkpoint waits for this after one that failed.
    private var retryAt: Int64 = .min
    /// Why the last checkpoint failed; `nil` after one that did not.
    private var lastFailure: StalkError?

    init(core: StoreCore, nextSegment: UInt64) {
        self.core = core
        self.nextSegment = nextSegment
    }

    private enum Task {
        case prepareSegment
        case checkpoint(isIdle: Bool)
        /// Publishing waits for a checkpoint, and that would fail as the last one did.
        case refusePublishing(StalkError)
        case wait(until: Int64?)
        case stop
    }

    /// Keeps house until the store stops.
    mutating func run() {
        while true {
            switch self.nextTask() {
            case .prepareSegment: self.prepareSegment()
            case .checkpoint(let isIdle): self.checkpoint(isIdle: isIdle)
            case .refusePublishing(let error):
                self.core.step { engine, now in engine.refusePending(error, now: now) }
            case .wait(let deadline):
                self.core.clock.wait(
                    for: self.core.keeperWaker,
                    until: deadline.map { self.core.bootTime(at: $0) }
                )
            case .stop: return
            }
        }
    }

    private mutating func nextTask() -> Task {
        let now = self.core.now
        let isStopping = self.core.isStopping
        let idle = self.core.options.idleCheckpointDelay
        let retryAt = self.retryAt
        let lastFailure = self.lastFailure
        return self.core.look { engine in
            if isStopping || engine.failure != nil { return isStopping ? .stop : .wait(until: nil) }
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
                return .wait(until: nil)
            }
            let due = max(lastChange.later(by: idle), retryAt)
            return due <= now.milliseconds ? .checkpoint(isIdle: true) : .wait(until: due)
        }
    }

    // MARK: Checkpoints

    private mutating func checkpoint(isIdle: Bool) {
        let batch = self.core.step { engine, now in
            engine.isCheckpointRequested = false
            return (engine.beginCheckpoint(now: now), Actions(wakesLog: true))
        }
        do throws(StalkError) {
            // LMDB must not be ahead of the log: frames it claims to contain are never written again.
            try self.core.waitForSync()
            try self.apply(batch)
        } catch {
            self.abandon(batch, error)
            return
        }
        self.lastFailure = nil
        let free = self.core.step { engine, _ in (engine.endCheckpoint(batch.meta), Actions()) }
        // From the end, so that the head of each queue is what stays in memory.
        var end = batch.changes.count
        while end > 0 {
            let start = max(0, end - 4096)
            let part = batch.changes[start..<end]
            self.core.step { engine, now in engine.settle(part, now: now) }
            end = start
        }
        self.recycle(free, isIdle: isIdle)
        self.core.step { engine, _ in engine.noticeCheckpoint(.success(())) }
    }

    private func apply(_ batch: SettleBatch) throws(StalkError) {
        do throws(StalkError) {
            try self.core.tables.apply(batch)
        } catch {
            // The ballast is for what gives space back; new messages are as safe in the log.
            let newBytes = batch.changes.reduce(0) { $0 + ($1.content?.body.count ?? 0) }
            guard error.code == .storageFull, newBytes <= Self.ballastBytes / 2,
                (try? self.core.directory.remove(Self.ballastName)) != nil
            else { throw error }
            try self.core.tables.apply(batch)
        }
    }

    private mutating func abandon(_ batch: SettleBatch, _ error: StalkError) {
        self.retryAt = self.core.now.milliseconds + 1000
        self.lastFailure = error
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

    /// How many prepared segments are worth keeping.
    private func worthKeeping(isIdle: Bool) -> Int {
        isIdle ? 2 : 2 * self.core.limits.checkpointBytes / self.core.limits.segmentBytes + 2
    }

    private mutating func prepareSegment() {
        let number = self.nextSegment
        do throws(StalkError) {
            let segment = try Self.makeSegment(number, self.core.limits.segmentBytes, in: self.core.directory)
            self.nextSegment += 1
            self.core.step { engine, now in engine.addSpare(segment, now: now) }
        } catch {
            self.nextSegment += 1
            let isHopeful = self.core.look { $0.hasUnsettledChanges && !$0.retiredSegments.isEmpty }
            if isHopeful, error.code == .storageFull, self.core.now.milliseconds >= self.retryAt {
                // A checkpoint may free segments that can be used again.
                self.core.look { $0.roomFailure = error }
                self.checkpoint(isIdle: false)
            }
            self.core.step { engine, now in
                engine.room.spares.count >= 2 ? Actions() : engine.refusePending(error, now: now)
            }
        }
    }

    /// Makes a segment of zeros, durably, name and all.
    static func makeSegment(
        _ number: UInt64,
        _ size: Int,
        in directory: RealDirectory
    ) throws(StalkError) -> Segment {
        let path = Segment.path(number)
        let file = try directory.open(path, .new)
        do throws(StalkError) {
            try file.fillWithZeros(size)
            try directory.sync(Segment.directory)
        } catch {
            try? directory.remove(path)
            throw error
        }
        return Segment(number: number, file: file)
    }

    /// Gives segments that the log no longer needs a new number, or removes them.
    private mutating func recycle(_ segments: [Segment], isIdle: Bool) {
        var spares = self.core.look { $0.room.spares.count }
        let most = self.worthKeeping(isIdle: isIdle)
        for segment in segments {
            do throws(StalkError) {
                guard spares < most, try segment.file.size() == self.core.limits.segmentBytes else {
                    try self.core.directory.remove(Segment.path(segment.number))
                    continue
                }
                let number = self.nextSegment
                self.nextSegment += 1
                try self.core.directory.rename(Segment.path(segment.number), to: Segment.path(number))
                try self.core.directory.sync(Segment.directory)
                let spare = Segment(number: number, file: segment.file)
                self.core.step { engine, now in engine.addSpare(spare, now: now) }
                spares += 1
            } catch {
                // What stays behind is passed over as settled at the next opening, and removed then.
                continue
            }
        }
        if isIdle { self.trimSpares(to: most) }
        if self.core.directory.freeBytes ?? .max > 4 * Self.ballastBytes {
            try? Self.makeBallast(in: self.core.directory)
        }
    }

    private func trimSpares(to most: Int) {
        let surplus = self.core.look { engine -> [Segment] in
            let surplus = Array(engine.room.spares.dropFirst(most))
            engine.room.spares.removeLast(surplus.count)
            return surplus
        }
        for segment in surplus { try? self.core.directory.remove(Segment.path(segment.number)) }
    }

    /// Makes the ballast, unless it is there.
    static func makeBallast(in directory: RealDirectory) throws(StalkError) {
        guard !(try directory.list("").contains(Self.ballastName)) else { return }
        let file = try directory.open(Self.ballastName, .new)
        do throws(StalkError) {
            try file.fillWithZeros(Self.ballastBytes)
        } catch {
            try? directory.remove(Self.ballastName)
            throw error
        }
    }
}

extension StoreCore {
    /// Blocks until everything staged so far survives a power cut; for the keeper's thread alone.
    func waitForSync() throws(StalkError) {
        let outcome = SyncOutcome()
        self.step { engine, _ in
            engine.waitForSync { result in
                outcome.result.withLock { $0 = result }
                self.syncWaker.signal()
            }
        }
        while true {
            if let result = outcome.result.withLock({ $0 }) { return try result.get() }
            SystemStoreClock().wait(for: self.syncWaker, until: nil)
        }
    }
}

private final class SyncOutcome: Sendable {
    let result = Locked<Result<Void, StalkError>?>(nil)
}
