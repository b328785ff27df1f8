// One queue in memory: its figures, the messages at its head, and who waits for them.

internal import DequeModule
internal import HeapModule
internal import StalkCore
internal import StalkWheel

/// The state of one queue.
///
/// Ready messages stand in up to three places: in `head` and `tail`, which are in memory, and in the middle, which only
/// LMDB knows. `scanFrom` bounds the middle from below, so what is in memory before it may leave without asking LMDB.
struct QueueState {
    let number: UInt32
    let name: QueueName

    var ready = 0
    var delayed = 0
    var leased = 0
    var dead = 0
    /// Messages whose records are on the way to the disk, ready ones and delayed ones.
    var stagedReady = 0
    var stagedDelayed = 0
    /// Released messages that stand in the schedule of LMDB behind what it calls released: for LMDB they are delayed.
    var releasedAhead = 0
    /// The size of the bodies as published, in bytes.
    var bytes = 0

    /// Ready messages in memory that did not come in publish order: loaded, released, returned.
    var head = Heap<QueuedKey>()
    /// Ready messages in memory in publish order.
    var tail: Deque<OrderKey> = []
    /// How many ready messages are in memory.
    var readyInMemory = 0
    /// No ready message that only LMDB knows comes before this.
    var scanFrom = OrderKey.first
    /// Whether a load of the window is on its way.
    var isLoading = false
    /// Whether the next message of the middle waits for the schedule's release.
    var isHeldBySchedule = false

    /// Whether nothing is taken from it until it is resumed.
    var isPaused = false
    /// Takers in the order in which they came.
    var takers: Deque<Taker> = []
    /// Callers that wait until nothing is ready, delayed or leased.
    var drainWaiters: [UInt64: @Sendable (Result<Void, any Error>) -> Void] = [:]
    /// Whether the figures differ from what LMDB holds.
    var isDirty = true

    init(number: UInt32, name: QueueName) {
        self.number = number
        self.name = name
    }

    init(settled: SettledQueue) {
        self.init(number: settled.number, name: settled.name)
        self.ready = settled.ready
        self.delayed = settled.delayed
        self.dead = settled.dead
        self.bytes = settled.bytes
        self.isPaused = settled.isPaused
        self.isDirty = false
    }

    /// How many ready messages only LMDB knows.
    var readyInMiddle: Int { self.ready - self.readyInMemory }

    var isDrained: Bool {
        self.ready + self.delayed + self.leased + self.stagedReady + self.stagedDelayed == 0
    }

    /// What a checkpoint writes: leases are not kept, so what is leased is ready for the next owner.
    var settled: SettledQueue {
        SettledQueue(
            number: self.number,
            name: self.name,
            ready: self.ready + self.leased + self.stagedReady - self.releasedAhead,
            delayed: self.delayed + self.stagedDelayed + self.releasedAhead,
            dead: self.dead,
            bytes: self.bytes,
            isPaused: self.isPaused
        )
    }

    /// Counts a message under another status than its own from now on.
    mutating func recount(_ entry: Entry, as status: Entry.Status) {
        self.count(entry, as: entry.status, by: -1)
        self.count(entry, as: status, by: 1)
    }

    /// Counts a message in, or out, under a status.
    mutating func count(_ entry: Entry, as status: Entry.Status, by step: Int) {
        self.isDirty = true
        switch status {
        case .staged where entry.standing.isScheduled: self.stagedDelayed += step
        case .staged: self.stagedReady += step
        case .ready:
            self.ready += step
            self.readyInMemory += step
        case .delayed: self.delayed += step
        case .leased: self.leased += step
        case .dead: self.dead += step
        case .gone: return
        }
        self.bytes += step * entry.content.body.count
        precondition(
            min(self.stagedReady, self.stagedDelayed, self.readyInMemory, self.leased) >= 0,
            "what is in memory is counted as often out as in"
        )
    }

    /// Puts a ready message of memory in line.
    mutating func enqueue(_ key: OrderKey) {
        if let last = self.tail.last, key < last {
            self.head.insert(QueuedKey(key: key))
        } else {
            self.tail.append(key)
        }
    }

    /// Forgets the keys of messages that were taken out of line by hand, since nobody may ever come to pass over them.
    mutating func clearLineIfEmpty() {
        guard self.readyInMemory == 0 else { return }
        self.head = Heap()
        self.tail = []
    }

    /// A message that is ready stands in the middle now, at this place.
    mutating func lowerScan(to key: OrderKey) {
        self.scanFrom = min(self.scanFrom, key)
        self.isHeldBySchedule = false
    }

    /// The message that is first in line in memory.
    var first: OrderKey? {
        guard let head = self.head.min?.key else { return self.tail.first }
        guard let tail = self.tail.first else { return head }
        return min(head, tail)
    }

    mutating func removeFirst() {
        if let head = self.head.min?.key, self.tail.first.map({ head <= $0 }) ?? true {
            self.head.removeMin()
        } else {
            self.tail.removeFirst()
        }
    }
}

/// A key as the heap compares it.
struct QueuedKey: Comparable {
    var key: OrderKey

    static func < (left: QueuedKey, right: QueuedKey) -> Bool { left.key < right.key }
}

/// A caller that waits for messages.
struct Taker: Sendable {
    var id: UInt64
    var collector: UInt64
    var max: Int
    /// How large the bodies of all deliveries may be together, unless one alone is larger.
    var maxBytes = Int.max
    var lease: Duration
    var durability: Durability
    /// Whether it leaves with nothing once LMDB was asked; it does not wait for messages to come.
    var isImmediate: Bool
    /// What ends its wait.
    var timer: TimingWheel.Handle?
    var reply: @Sendable (Result<[Delivery], any Error>) -> Void
}

/// What a collector allows itself.
struct CollectorState {
    var queue: QueueName
    var isAsleep = true
    var maxInFlight: Int?
    var inFlight = 0

    /// How many more deliveries it may hold.
    var room: Int {
        if self.isAsleep { return 0 }
        guard let maxInFlight = self.maxInFlight else { return .max }
        return max(0, maxInFlight - self.inFlight)
    }
}

/// The queues of a store by number; numbers are given without gaps, from 1.
struct QueueTable {
    private var states: [QueueState] = []

    var numbers: Range<UInt32> { 1..<UInt32(self.states.count) + 1 }

    func contains(_ number: UInt32) -> Bool { number >= 1 && number <= self.states.count }

    /// Puts a queue behind the others; its number must be the next one.
    mutating func append(_ queue: QueueState) {
        precondition(queue.number == self.states.count + 1, "queue numbers have no gaps")
        self.states.append(queue)
    }

    subscript(number: UInt32) -> QueueState {
        _read { yield self.states[Int(number) - 1] }
        _modify { yield &self.states[Int(number) - 1] }
    }
}
