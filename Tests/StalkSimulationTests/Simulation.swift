// Random histories of a whole store in virtual time: callers, workers, faults and crashes, all from one seed.

import StalkCore
import StalkTesting

@testable import StalkLocal

/// How a life of the store ends, or what happens to its disk.
enum Fate: Hashable {
    /// It is closed.
    case close
    /// The process is killed at a step.
    case kill(step: Int)
    /// The power goes at a change of the disk.
    case powerCut(change: Int)
    /// A call on the disk fails.
    case deviceError(DiskOperation, call: Int)
    /// The disk is full for a while; then the store is closed.
    case fullDisk(steps: Range<Int>)
}

/// A history of a store, several lives long, in which everything follows from the seed.
struct Simulation {
    /// What a caller waits for.
    enum Call {
        case publish([Int], Certainty)
        case take(queue: Int, max: Int, askedAt: Int64, lease: Int64)
        case finish([End], Certainty)
        case sync([(number: Int, fact: Int)])
        case checkpoint
    }

    /// The end of a delivery that was asked for.
    struct End {
        var number: Int
        var fact: Int
        var receipt: Receipt
        var leasedUntil: Int64
        var published: [Int]
        var isBatched: Bool
    }

    static let queues = ["a", "b", "errors"].compactMap { try? QueueName($0) }

    let seed: UInt64
    /// Whether every step is printed.
    var isTold = false
    /// Decides what of the unsynced a power cut spares; `nil` leaves it to the history's own chance.
    var cutSeed: UInt64?
    /// Spoils the disk between two lives, to see whether that is noticed.
    var sabotage: ((SimulatedDisk) -> Void)?
    var random: SeededGenerator
    var model = StoreModel()
    var disk: SimulatedDisk
    var clock: ManualClock
    var boots = 1
    /// What was done, in short: two runs of one seed must do the same.
    private(set) var trace: UInt64 = 0
    private(set) var steps = 0
    private(set) var crashes = 0
    /// How often the last life changed the disk.
    private(set) var changes = 0

    // One life.
    var store: SimulatedStore?
    var collectors: [UInt64] = []
    let mailbox = Mailbox()
    var calls: [Int: Call] = [:]
    private var nextCall = 0
    var isFull = false
    var wasFull = false
    /// How many calls on the disk failed because it was full.
    private var expectedFailures = 0
    /// Deliveries that may have been counted for takers who were told of a failure, by queue.
    var doubtfulTakes: [String: Int] = [:]
    /// Deliveries whose end is not answered, although they came again: the answer must be a refusal.
    var mustBeRefused: Set<Int> = []

    init(seed: UInt64, disk: SimulatedDisk = SimulatedDisk()) {
        self.seed = seed
        self.random = SeededGenerator(seed: seed)
        self.disk = disk
        self.clock = ManualClock(bootID: "boot-1")
    }

    // MARK: The whole history

    /// Runs some lives that end in all ways, and empties the store at the end.
    mutating func run(lives: Int, steps: Int) throws {
        for _ in 0..<lives { try self.live(self.fate(steps: steps), steps: steps) }
        try self.drain()
    }

    private mutating func fate(steps: Int) -> Fate {
        let changes = self.disk.changes
        switch self.random.below(10) {
        case 0: return .close
        case 1, 2: return .kill(step: self.random.below(steps))
        case 3: return .deviceError(self.failingOperation(), call: 1 + self.random.below(20))
        case 4:
            let start = self.random.below(steps)
            return .fullDisk(steps: start..<min(steps, start + steps / 3))
        default: return .powerCut(change: changes + 1 + self.random.below(steps))
        }
    }

    private mutating func failingOperation() -> DiskOperation {
        let operations: [DiskOperation] = [
            .write, .write, .sync, .sync, .fillWithZeros, .syncDirectory, .rename, .open,
        ]
        return operations[self.random.below(operations.count)]
    }

    /// One life: recovery, steps, an end, and what the end leaves behind.
    mutating func live(_ fate: Fate, steps: Int) throws {
        self.note("\(fate)")
        self.expectedFailures = 0
        if case .powerCut(let change) = fate { self.disk.cutPower(atChange: change) }
        if case .deviceError(let operation, let call) = fate { self.disk.inject(DiskFault(operation, call: call)) }
        do {
            try self.open()
            for step in 0..<steps {
                if case .kill(let last) = fate, step >= last { break }
                if case .fullDisk(let range) = fate { self.fill(range.contains(step)) }
                try self.step()
                if self.store?.core.look({ $0.failure }) != nil { break }
            }
            if fate == .close || self.isFull { try self.close() }
        } catch let error as StalkError where error.code == .storageFailed {
            // Opening met the fault.
        }
        try self.end(fate)
    }

    /// Ends the life and gives the disk to the next one.
    private mutating func end(_ fate: Fate) throws {
        let openTakes = self.openTakes()
        self.store = nil
        self.calls = [:]
        self.mustBeRefused = []
        self.doubtfulTakes = [:]
        self.fill(false)
        self.wasFull = false
        self.crashes += 1
        self.changes = self.disk.changes
        var certainty = Certainty.written
        switch fate {
        case .close, .fullDisk: self.disk = self.disk.kill()
        case .kill: self.disk = self.disk.kill()
        // After a failed sync the process ends, and what it wrote without a sync may be gone from memory as well.
        case .deviceError:
            self.disk = self.disk.kill()
            certainty = .synced
        case .powerCut:
            self.disk = self.disk.crash(seed: self.cutSeed ?? self.random.next())
            self.reboot()
            certainty = .synced
        }
        self.sabotage?(self.disk)
        if self.random.below(3) == 0 { self.clock.jumpWall(by: .seconds(self.random.below(7200) - 3600)) }
        self.clock.advance(by: .milliseconds(self.random.below(5000)))
        try self.recover(sparing: certainty, openTakes)
    }

    /// Opens what was left and compares; now and then the power goes during that too.
    private mutating func recover(sparing certainty: Certainty, _ openTakes: [String: Int]) throws {
        var certainty = certainty
        for _ in 0..<3 where self.random.below(3) == 0 {
            self.disk.cutPower(atChange: self.disk.changes + 1 + self.random.below(12))
            let recovered = try? SimulatedStore(on: self.disk, clock: self.clock)
            self.note("recovery cut: \(recovered == nil)")
            if recovered != nil, self.random.below(2) == 0 { break }
            // What was opened was synced before; what was not may lose what only memory had.
            if recovered == nil { certainty = .synced }
            self.disk = self.disk.crash(seed: self.random.next())
            self.reboot()
            self.crashes += 1
        }
        self.disk = self.disk.kill()
        let store = try SimulatedStore(on: self.disk, clock: self.clock)
        let contents = try store.contents()
        try self.compare(contents, with: store)
        try self.model.adopt(contents, sparing: certainty, openTakes: openTakes)
        self.disk = self.disk.kill()
    }

    private mutating func reboot() {
        self.boots += 1
        let wall = self.clock.wallTime().millisecondsSince1970 + Int64(self.random.below(10_000))
        self.clock = ManualClock(wall: Timestamp(millisecondsSince1970: wall), bootID: "boot-\(self.boots)")
    }

    // MARK: One life

    private mutating func open() throws {
        let store = try SimulatedStore(on: self.disk, clock: self.clock)
        self.collectors = store.core.look { engine in
            Self.queues.map { queue in
                let id = engine.addCollector(of: queue)
                engine.collectors[id]?.isAsleep = false
                return id
            }
        }
        self.store = store
    }

    /// Closes the store as its owner would.
    private mutating func close() throws {
        guard let store = self.store, store.core.look({ $0.failure }) == nil else { return }
        store.core.step { engine, _ in engine.endWaits(with: .storeClosed) }
        self.ask(.sync([])) { core, reply in
            core.step { engine, _ in engine.waitForSync { outcome in reply(.done(outcome)) } }
        }
        try self.settle()
        self.ask(.checkpoint) { core, reply in
            core.step { engine, _ in engine.requestCheckpoint { outcome in reply(.done(outcome)) } }
        }
        try self.settle()
    }

    /// Lets the workers come to rest: then whoever asked must have been answered.
    mutating func settle() throws {
        guard self.store?.settle() == true else { throw Violation("the workers never come to rest") }
        // After a full disk the store looks again in a second.
        for _ in 0..<3 where self.wasFull {
            self.clock.advance(by: .seconds(1.1))
            guard self.store?.settle() == true else { throw Violation("the workers never come to rest") }
        }
        try self.readMail()
        for call in self.calls.values {
            if case .take = call { continue }
            throw Violation("nobody answers \(call)")
        }
    }

    private mutating func fill(_ isFull: Bool) {
        guard isFull != self.isFull else { return }
        self.isFull = isFull
        self.wasFull = true
        guard isFull else {
            self.disk.heal()
            return
        }
        self.disk.inject(DiskFault(.fillWithZeros, error: .diskFull, isLasting: true, reachedBytes: 4096))
        self.disk.inject(DiskFault(.write, error: .diskFull, isLasting: true, directory: "index"))
    }

    /// One step of somebody, chosen by chance.
    private mutating func step() throws {
        self.steps += 1
        let choice = self.random.below(100)
        let atWork = self.store?.atWork() ?? []
        if choice < 45, !atWork.isEmpty {
            let role = atWork[self.random.below(atWork.count)]
            self.note("\(role)")
            self.store?.step(role)
            if role == .keeper { try self.store?.checkTables() }
        } else {
            self.note("\(choice)")
            try self.act(choice)
        }
        try self.readMail()
        try self.check()
    }

    /// What must hold after every step.
    private mutating func check() throws {
        guard let store = self.store else { return }
        let (figures, failure) = store.core.look { engine in
            (engine.queues.numbers.map { engine.stats(of: $0) }, engine.failure)
        }
        if self.wasFull { self.expectedFailures = self.disk.failures }
        if self.disk.failures > self.expectedFailures, failure == nil {
            throw Violation("the disk failed, and the store goes on")
        }
        if failure != nil { return }
        var unanswered: Set<Int> = []
        for call in self.calls.values {
            switch call {
            case .publish(let numbers, _): unanswered.formUnion(numbers)
            case .finish(let ends, _): for end in ends { unanswered.formUnion(end.published) }
            case .take, .sync, .checkpoint: break
            }
        }
        let byName = Dictionary(uniqueKeysWithValues: figures.map { ($0.name.rawValue, $0) })
        try self.model.check(byName, unanswered: unanswered, now: store.now)
    }

    /// The figures must be those of what is there.
    private func compare(_ contents: [StoredMessage], with store: SimulatedStore) throws {
        for figures in store.core.look({ engine in engine.queues.numbers.map { engine.stats(of: $0) } }) {
            for (state, count) in [
                (MessageState.ready, figures.ready), (.delayed, figures.delayed), (.leased, figures.leased),
                (.dead, figures.dead),
            ] {
                let found = contents.filter { $0.queue == figures.name && $0.state == state }.count
                guard found == count else {
                    throw Violation("\(figures.name) counts \(count) \(state) messages, but holds \(found)")
                }
            }
        }
    }

    /// How many deliveries may be counted without anybody having been told.
    private func openTakes() -> [String: Int] {
        var open = self.doubtfulTakes
        for case .take(let queue, let max, _, _) in self.calls.values {
            open[Self.queues[queue].rawValue, default: 0] += max
        }
        return open
    }

    func note(_ what: String) {
        self.mailbox.note(what)
        if self.isTold { print("\(self.steps) t=\(self.store?.now ?? 0): \(what)") }
    }

    /// What two runs of a seed must agree in.
    var fingerprint: UInt64 { self.mailbox.hash }

    // MARK: Asking

    /// Notes a call and makes it.
    mutating func ask(_ call: Call, _ body: (StoreCore, @escaping @Sendable (Answer) -> Void) -> Void) {
        guard let core = self.store?.core else { return }
        self.nextCall += 1
        let id = self.nextCall
        self.calls[id] = call
        body(core) { [mailbox] answer in mailbox.put(id, answer) }
    }

    mutating func readMail() throws {
        for (id, answer) in self.mailbox.take() {
            guard let call = self.calls.removeValue(forKey: id) else { throw Violation("answered twice") }
            try self.hear(answer, to: call)
        }
    }

    // MARK: The end

    /// Takes and acknowledges everything: nothing may be stuck.
    mutating func drain() throws {
        try self.open()
        for _ in 0..<10_000 {
            guard self.store?.settle() == true else { throw Violation("the workers never come to rest") }
            try self.readMail()
            try self.check()
            let alive = self.model.items.filter { if case .alive = $0.current.place { true } else { false } }
            if alive.isEmpty { break }
            let held = alive.filter { $0.receipt != nil }
            if !held.isEmpty {
                for item in held { try self.finish(item.number, .acknowledge, .synced) }
                continue
            }
            let before = self.calls.count
            for queue in Self.queues.indices { self.take(queue, max: 1000, lease: 1000, wait: 0) }
            guard self.store?.settle() == true else { throw Violation("the workers never come to rest") }
            try self.readMail()
            guard self.calls.count == before else { throw Violation("a take without a wait is not answered") }
            let isTaken = self.model.items.contains { $0.receipt != nil }
            if !isTaken { try self.passTime() }
        }
        let left = try self.store?.contents() ?? []
        let dead = self.model.items.filter { $0.current.place == .dead }.count
        guard left.count == dead else { throw Violation("\(left.count) messages are left, \(dead) are dead") }
        try self.close()
        self.store = nil
    }

    /// Goes to the next moment at which something happens by itself.
    private mutating func passTime() throws {
        guard let store = self.store, let next = store.nextDeadline else {
            throw Violation("messages are there, but nobody gets them and nothing will happen")
        }
        self.clock.advance(by: .milliseconds(max(1, next - store.now)))
    }
}

/// An answer of the store.
enum Answer: Sendable {
    case published(Result<[Result<MessageID, StalkError>], StalkError>)
    case taken([Delivery], StalkError?)
    case finished(Result<[FinishOutcome], StalkError>)
    case done(Result<Void, StalkError>)
}

/// Answers in the order in which they came.
final class Mailbox: Sendable {
    private struct State {
        var answers: [(id: Int, answer: Answer)] = []
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    }

    private let state = Locked(State())

    func put(_ id: Int, _ answer: Answer) {
        self.state.withLock { $0.answers.append((id, answer)) }
    }

    func take() -> [(id: Int, answer: Answer)] {
        self.state.withLock { state in
            defer { state.answers = [] }
            return state.answers
        }
    }

    func note(_ what: String) {
        self.state.withLock { state in
            for byte in what.utf8 { state.hash = (state.hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        }
    }

    var hash: UInt64 { self.state.withLock { $0.hash } }
}
