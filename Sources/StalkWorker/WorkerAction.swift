// What the worker's state machine asks its driver to do.

internal import StalkCore

/// Names one delivery in the worker's hands; never used twice.
struct SlotID: Hashable, Comparable, Sendable {
    var number: UInt64

    static func < (left: SlotID, right: SlotID) -> Bool { left.number < right.number }
}

/// What is waited for; one of each kind at a time.
enum WorkerAlarm: Hashable, Sendable {
    /// Leases are to be extended.
    case heartbeat
    /// A handler runs out of time.
    case timeout
    /// A cancelled handler should have ended.
    case grace
    /// The backend may give messages again.
    case take
    /// The backend may store outcomes again.
    case finish
    /// What still runs after a stop was asked for is cancelled.
    case stop
}

/// What the driver is to do, in this order; each task it starts reports back.
enum WorkerAction: Equatable, Sendable {
    case wake
    case take(TakeRequest)
    case cancelTake
    case handle(SlotID, Delivery)
    case cancelHandler(SlotID)
    /// The handler has ended: its task needs no owner any more.
    case forgetHandler(SlotID)
    case finish([Completion])
    case extend([SlotID], [Receipt])
    case setAlarm(WorkerAlarm, at: Duration)
    case log(WorkerLogEntry)
    /// Nothing is left to do.
    case end

    static func == (left: WorkerAction, right: WorkerAction) -> Bool {
        switch (left, right) {
        case (.wake, .wake), (.cancelTake, .cancelTake), (.end, .end): true
        case (.take(let left), .take(let right)): left == right
        case (.handle(let left, let one), .handle(let right, let other)): left == right && one.receipt == other.receipt
        case (.cancelHandler(let left), .cancelHandler(let right)): left == right
        case (.forgetHandler(let left), .forgetHandler(let right)): left == right
        case (.finish(let left), .finish(let right)): left == right
        case (.extend(let left, let one), .extend(let right, let other)): left == right && one == other
        case (.setAlarm(let left, let one), .setAlarm(let right, let other)): left == right && one == other
        case (.log(let left), .log(let right)): left == right
        default: false
        }
    }
}

/// One line for the log.
///
/// A constant sentence, with what varies beside it; never a body.
struct WorkerLogEntry: Equatable, Sendable {
    enum Level: Sendable {
        case debug
        case info
    }

    var level: Level
    var message: String
    var metadata: [String: String]

    init(_ level: Level, _ message: String, _ metadata: [String: String] = [:]) {
        self.level = level
        self.message = message
        self.metadata = metadata
    }
}
