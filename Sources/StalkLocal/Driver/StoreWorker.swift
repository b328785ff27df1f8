// The work of a store's threads, cut into steps, so that a simulation can take them one at a time and in any order.

internal import StalkCore

/// The three who work on an open store besides its callers.
enum StoreRole: CaseIterable, Sendable {
    /// Writes and syncs the log.
    case log
    /// Follows the clock, and asks LMDB for what memory lacks.
    case scheduler
    /// Checkpoints, and prepares segments.
    case keeper
}

/// What a worker wants after a step.
enum WorkerWish: Hashable, Sendable {
    /// To go on at once.
    case goOn
    /// To sleep until it is woken or, if there is one, until a time of the store's clock in milliseconds.
    case sleep(until: Int64?)
    /// To end: the store stops.
    case end
}

/// Whoever does the work of a role.
///
/// Between two steps the others may do anything, so a step ends wherever it matters what they do meanwhile.
protocol StoreWorker: Sendable {
    mutating func step() -> WorkerWish
}

/// Those who work on an open store.
struct StoreWorkers: Sendable {
    var core: StoreCore
    var log: LogWorker
    var scheduler: SchedulerWorker
    var keeper: KeeperWorker
}
