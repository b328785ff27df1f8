// The store's state and every rule about it, without I/O.

internal import DequeModule
internal import StalkCore
internal import StalkLog
internal import StalkWheel

/// The state of a store in memory.
///
/// It does no I/O: its methods change it and say what is left to do. Threads and locks are the driver's business, so whole
/// histories can be played in a test. Every change is staged as a record for the log in the same step in which it is
/// made, so what the log says and what memory says can't differ.
// SAFETY: all of it is values but its entries, which nobody else holds: they are not `Sendable`, so no call can hand one out.
struct Engine: @unchecked Sendable {
    /// What a timer of the wheel stands for; its queue, where it has one, is in the lower bits of the tag.
    enum TimerKind: UInt32 {
        case lease = 0x1000_0000
        case due = 0x2000_0000
        case settledDue = 0x3000_0000
        case taker = 0x4000_0000

        static var mask: UInt32 { 0xF000_0000 }
    }

    var limits: EngineLimits
    /// What the next checkpoint writes about the store as a whole, as far as it is known.
    var meta: StoreMeta

    var queues = QueueTable()
    var queueNumbers: [QueueName: UInt32] = [:]
    var entries: [UInt64: Entry] = [:]
    var collectors: [UInt64: CollectorState] = [:]

    var wheel: TimingWheel
    /// The latest moment at which a message became ready, so that publish order holds whatever the clock does.
    var lastReadyAt: Int64 = .min
    /// The timers of delayed messages that only LMDB knows, for those of the schedule that were read into the wheel.
    var settledTimers: [UInt64: TimingWheel.Handle] = [:]
    /// Up to where the schedule in LMDB was read into the wheel.
    var fedThrough: ScheduleKey
    /// The due time of the first message of the schedule that is not in the wheel; `nil` when there is none.
    var nextUnfed: Int64? = 0
    /// Whether a run of the schedule is on its way.
    var isFeeding = false
    var releaseBudget: ReleaseBudget
    /// When the scheduler will look again by itself.
    var schedulerDeadline: Int64?

    var staging: StagedFrame
    /// Frames that are closed and wait for the log's thread.
    var sealed: Deque<StagedFrame> = []
    var nextFrame: UInt64
    var writtenThrough: UInt64
    var syncedThrough: UInt64
    var room: LogRoom
    /// How many calls waited for each frame that was written.
    var commitCalls = StoreHistogram.commitCalls
    /// How long the syncs of the log took, in microseconds.
    var logSyncs = StoreHistogram.syncMicroseconds
    /// The segment that sealed frames go into.
    var activeSegment: Segment?
    /// Segments that are full, with the last frame in each.
    var retiredSegments: [(segment: Segment, lastFrame: UInt64)] = []
    var pending: Deque<PendingPublish> = []
    /// Callers that wait until a frame survives a power cut, beyond what the frame's own callers asked for.
    var syncWaiters: [(frame: UInt64, reply: @Sendable (Result<Void, StalkError>) -> Void)] = []
    /// Queues whose takers wait for room in the log.
    var queuesWithoutRoom: Set<UInt32> = []
    /// Queues in which a lease ended in this step.
    var freedQueues: Set<UInt32> = []
    /// Queues whose window is to be loaded.
    var wantedWindows: Set<UInt32> = []
    /// Queues whose next message waits for the schedule's release.
    var heldQueues: Set<UInt32> = []
    /// Queues some of whose due messages were released, while others wait for the bounded rate.
    var queuesReleasedAhead: Set<UInt32> = []
    /// Why publishing has no room: the disk was full when the keeper asked for another segment.
    var roomFailure: StalkError?

    /// The messages that differ from what LMDB holds, in the order in which they first did.
    var dirty: [UInt64] = []
    /// How many of them are still in memory.
    var dirtyCount = 0
    /// Queues of which memory forgot messages since the settling of a checkpoint began: their keys still stand in line.
    var queuesWithForgotten: Set<UInt32> = []
    /// Queues whose window is to be loaded once a checkpoint has made room in memory.
    var windowsWithoutRoom: Set<UInt32> = []
    /// The size of the bodies that LMDB does not hold yet.
    var unsettledBytes = 0
    /// What the log took since the last checkpoint began, in bytes.
    var bytesSinceCheckpoint = 0
    /// When something was last staged, by the store's clock.
    var lastChange: Moment?
    var isCheckpointing = false
    /// Whether the last checkpoint failed.
    var isCheckpointFailing = false
    /// Whether a queue was paused or resumed since the last checkpoint began: the log does not say so, LMDB alone does.
    var hasUnsettledPause = false
    /// Whether somebody asked for a checkpoint, and who waits for it.
    var isCheckpointRequested = false
    var checkpointWaiters: [@Sendable (Result<Void, StalkError>) -> Void] = []
    /// Counts the moments at which memory forgot something: what was read from LMDB before one is of no use after it.
    var epoch: UInt64 = 0

    /// Whether processes that the last owner served may still come back for what they work on.
    var isAwaitingHolders = false
    /// What is held back for them, leased to nobody.
    var awaited: Set<UInt64> = []
    /// The leases of the last owner whose messages were given to others, since nobody came back for them.
    var lostLeases: [UInt64: UInt64] = [:]

    /// Which threads wait for a signal; a signal to one that does not is saved.
    var isLogAsleep = false
    var isSchedulerAsleep = false
    /// Whether the keeper will look again by itself while something is unsettled.
    var isKeeperArmed = false

    var nextLease: UInt64
    var nextID: UInt64 = 1
    var failure: StalkError?
    /// Messages whose records in LMDB failed their checksum: they are passed over.
    var setAside: Set<UInt64> = []

    init(meta: StoreMeta, limits: EngineLimits, now: Moment) {
        self.meta = meta
        self.limits = limits
        self.wheel = TimingWheel(now: now.milliseconds)
        self.fedThrough = meta.releasedThrough
        self.releaseBudget = ReleaseBudget(rate: limits.releaseRate, now: now.milliseconds)
        self.staging = StagedFrame()
        self.nextFrame = meta.settledFrame + 1
        self.writtenThrough = meta.settledFrame
        self.syncedThrough = meta.settledFrame
        self.room = LogRoom(segmentBytes: limits.segmentBytes)
        self.nextLease = meta.nextLease
    }

    /// A number that nothing else of this owner has.
    mutating func makeID() -> UInt64 {
        defer { self.nextID += 1 }
        return self.nextID
    }
}

/// The figures that bound the engine.
struct EngineLimits: Sendable {
    var segmentBytes: Int
    var checkpointBytes: Int
    /// Publishing waits for a checkpoint when this much is not in LMDB yet.
    var unsettledBytesMax: Int
    /// The same for messages that differ from what LMDB holds.
    var dirtyMessagesMax: Int
    var releaseRate: Int
    /// How many messages, and how many bytes, the window at a queue's head is loaded with.
    var windowMessages = 1024
    var windowBytes = 2 << 20
    /// How far ahead of their time the wheel takes messages from the schedule, in milliseconds.
    var horizon: Int64 = 2_000

    init(options: LocalStoreOptions) {
        self.segmentBytes = options.segmentBytes
        self.checkpointBytes = options.checkpointBytes
        self.unsettledBytesMax = max(options.checkpointBytes, 1 << 16)
        self.dirtyMessagesMax = 65_536
        self.releaseRate = options.releaseRate
    }
}

/// How many messages may be released now, so that what fell due during a downtime does not come as a storm.
struct ReleaseBudget: Sendable {
    private let perMillisecond: Double
    private let most: Double
    private var tokens: Double
    /// When the scheduler last looked.
    private(set) var refilledAt: Int64

    init(rate: Int, now: Int64) {
        self.perMillisecond = Double(rate) / 1000
        self.most = max(Double(rate) / 50, 16)
        self.tokens = self.most
        self.refilledAt = now
    }

    mutating func available(now: Int64) -> Int {
        if now > self.refilledAt {
            let gained = Double(now - self.refilledAt) * self.perMillisecond
            self.tokens = min(self.most, self.tokens + gained)
            self.refilledAt = now
        }
        return Int(self.tokens)
    }

    mutating func spend(_ count: Int) {
        self.tokens -= Double(count)
    }
}

// MARK: - Entries

extension Engine {
    /// Changes those of some messages that are in memory.
    mutating func forEach(_ sequences: [UInt64], _ change: (inout Engine, Entry) -> Void) {
        for sequence in sequences {
            if let entry = self.entries[sequence] { change(&self, entry) }
        }
    }

    /// Moves a message to another status and keeps its queue's figures right.
    mutating func setStatus(_ status: Entry.Status, of entry: Entry) {
        self.queues[entry.queue].recount(entry, as: status)
        entry.status = status
    }

    /// Notes that the next checkpoint must write a message.
    mutating func markDirty(_ entry: Entry) {
        guard !entry.isDirty else { return }
        entry.isDirty = true
        self.dirty.append(entry.sequence)
        self.dirtyCount += 1
    }

    /// Makes a ready message of memory available to takers.
    mutating func enqueueReady(_ entry: Entry) {
        self.queues[entry.queue].enqueue(entry.key)
    }

    /// Takes a finished message out of memory, or leaves a mark for as long as LMDB holds it.
    mutating func remove(_ entry: Entry) {
        if let timer = entry.timer { self.wheel.cancel(timer) }
        entry.timer = nil
        self.setStatus(.gone, of: entry)
        if entry.settled == nil {
            self.noteSettled(entry)
            if !entry.isSettling {
                if entry.isDirty { self.dirtyCount -= 1 }
                self.entries[entry.sequence] = nil
                return
            }
        }
        entry.dropContent()
        self.markDirty(entry)
    }

    /// Notes that a message is no longer kept by the log alone.
    mutating func noteSettled(_ entry: Entry) {
        self.unsettledBytes -= entry.content.body.count
    }

    /// Fails everything from now on: what was acknowledged is safe, nothing else will be.
    ///
    /// - Parameter frame: The frame that could not be written; its callers are told as well.
    mutating func fail(_ error: StalkError, includingCallersOf frame: StagedFrame? = nil) -> Actions {
        var actions = Actions()
        for waiter in frame?.waiters ?? [] { actions.replies.append { waiter.reply(.failure(error)) } }
        guard self.failure == nil else { return actions }
        self.failure = error
        for frame in self.sealed + [self.staging] {
            for waiter in frame.waiters { actions.replies.append { waiter.reply(.failure(error)) } }
        }
        self.sealed = []
        self.staging = StagedFrame()
        for call in self.pending { actions.replies.append { call.reply(.failure(error)) } }
        self.pending = []
        for waiter in self.syncWaiters { actions.replies.append { waiter.reply(.failure(error)) } }
        self.syncWaiters = []
        for reply in self.checkpointWaiters { actions.replies.append { reply(.failure(error)) } }
        self.checkpointWaiters = []
        for number in self.queues.numbers {
            for taker in self.queues[number].takers { actions.replies.append { taker.reply(.failure(error)) } }
            for reply in self.queues[number].drainWaiters.values { actions.replies.append { reply(.failure(error)) } }
            self.queues[number].takers = []
            self.queues[number].drainWaiters = [:]
        }
        actions.wakesKeeper = true
        actions.wakesScheduler = true
        actions.wakesLog = true
        return actions
    }
}
