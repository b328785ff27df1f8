// One life of a store on a simulated disk, its workers taken step by step.

import StalkCore
import StalkFiles
import StalkIndex
import StalkTesting

@testable import StalkLocal

/// A store that is open on a simulated disk.
///
/// No thread runs: whoever holds it decides which worker does its next step, and when time passes. A worker that sleeps is
/// left alone until it is woken or its time has come, so a signal that is never sent shows as work that is never done.
struct SimulatedStore {
    /// The rooms of a house for dwarfs: every limit is met within a short history.
    static let segmentBytes = 16 << 10

    let disk: SimulatedDisk
    let clock: ManualClock
    let report: RecoveryReport
    private var workers: StoreWorkers
    private let alarms: Alarms
    /// Until when each worker sleeps; one that is missing is at work.
    private var asleep: [StoreRole: Int64] = [:]

    var core: StoreCore { self.workers.core }
    var now: Int64 { self.core.now.milliseconds }

    /// Recovers the store from what is on the disk, or makes it.
    init(on disk: SimulatedDisk, clock: ManualClock) throws(StalkError) {
        let options = LocalStoreOptions(
            maxBodyBytes: 4 << 10,
            segmentBytes: Self.segmentBytes,
            checkpointBytes: 2 * Self.segmentBytes,
            releaseRate: 1000,
            clock: clock
        )
        try self.init(on: disk, clock: clock, options: options) { create throws(StalkError) in
            try SimulatedIndex(in: disk, tables: SettledTables.names, createIfMissing: create)
        }
        self.core.look { engine in
            engine.limits.windowMessages = 4
            engine.limits.windowBytes = 8 << 10
            engine.limits.dirtyMessagesMax = 48
            engine.limits.unsettledBytesMax = 24 << 10
        }
    }

    /// Recovers the store with rooms and tables of the caller's choice.
    init(
        on disk: SimulatedDisk,
        clock: ManualClock,
        options: LocalStoreOptions,
        openIndex: @escaping (_ createIfMissing: Bool) throws(StalkError) -> any Index
    ) throws(StalkError) {
        let alarms = Alarms()
        let recovery = StoreRecovery(directory: disk, options: options, openIndex: openIndex) { role in
            alarms.ring(role)
        } newStoreNumber: {
            4711
        }
        let recovered = try recovery.run()
        self.disk = disk
        self.clock = clock
        self.report = recovered.report
        self.workers = recovered.workers
        self.alarms = alarms
    }

    // MARK: Workers

    /// The workers that have something to do.
    mutating func atWork() -> [StoreRole] {
        for role in self.alarms.take() { self.asleep[role] = nil }
        let now = self.now
        return StoreRole.allCases.filter { (self.asleep[$0] ?? .min) <= now }
    }

    /// Lets a worker do its next step.
    mutating func step(_ role: StoreRole) {
        self.asleep[role] = nil
        let wish =
            switch role {
            case .log: self.workers.log.step()
            case .scheduler: self.workers.scheduler.step()
            case .keeper: self.workers.keeper.step()
            }
        switch wish {
        case .goOn: break
        case .sleep(let deadline): self.asleep[role] = deadline ?? .max
        case .end: self.asleep[role] = .max
        }
    }

    /// Lets all workers work until nothing is left to do at this moment.
    ///
    /// - Returns: Whether they came to rest.
    mutating func settle() -> Bool {
        for _ in 0..<20_000 {
            guard let role = self.atWork().first else { return true }
            self.step(role)
        }
        return false
    }

    /// When the first worker wants to go on by itself; `nil` when none does.
    var nextDeadline: Int64? {
        let deadlines = self.asleep.values.filter { $0 != .max }
        return deadlines.min()
    }

    // MARK: What is there

    /// The figures in the tables must be those of their rows: each commit must be true by itself.
    func checkTables() throws {
        let tables = self.core.tables
        guard let meta = try tables.readMeta() else { throw Violation("the tables have no meta record") }
        for queue in try tables.readQueues() {
            var ready = 0
            var delayed = 0
            var dead = 0
            try tables.forEachPlace(of: queue.number, isDead: false) { key, isScheduled in
                if isScheduled, key.scheduleKey > meta.releasedThrough { delayed += 1 } else { ready += 1 }
                return true
            }
            try tables.forEachPlace(of: queue.number, isDead: true) { _, _ in
                dead += 1
                return true
            }
            guard (queue.ready, queue.delayed, queue.dead) == (ready, delayed, dead) else {
                throw Violation("the tables hold \(ready) ready, \(delayed) delayed, \(dead) dead, but say \(queue)")
            }
        }
    }

    /// Everything that the store holds.
    func contents() throws -> [StoredMessage] {
        let inspector = StoreInspector(core: self.core)
        var messages: [StoredMessage] = []
        for number in self.core.look({ $0.queues.numbers }) {
            for state in MessageState.allCases {
                messages += try inspector.messages(of: number, state: state, max: .max)
            }
        }
        let byID = Dictionary(grouping: messages, by: \.id)
        if let twice = byID.values.first(where: { $0.count > 1 }) {
            throw Violation("one message stands at two places: \(twice.map { "\($0.queue) \($0.state) \($0.dueAt)" })")
        }
        return messages
    }
}

/// Who was woken since somebody looked.
private final class Alarms: Sendable {
    private let ringing = Locked<[StoreRole]>([])

    func ring(_ role: StoreRole) {
        self.ringing.withLock { $0.append(role) }
    }

    func take() -> [StoreRole] {
        self.ringing.withLock { ringing in
            defer { ringing.removeAll(keepingCapacity: true) }
            return ringing
        }
    }
}
