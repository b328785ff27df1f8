import StalkTesting
import StalkWheel
import Testing

/// What the wheel must do, done in the simplest way: a list that is sorted at every advance.
private struct Model {
    struct Entry {
        var timer: TimingWheel.Timer
        var sequence: UInt64
        var handle: TimingWheel.Handle
    }

    var now: Int64
    var entries: [Entry] = []

    var earliest: Int64? { self.entries.map(\.timer.deadline).min() }

    mutating func advance(to tick: Int64, limit: Int) -> (due: [Entry], isDone: Bool) {
        let end = max(tick, self.now)
        let ordered = self.entries.filter { $0.timer.deadline <= end }
            .sorted { ($0.timer.deadline, $0.sequence) < ($1.timer.deadline, $1.sequence) }
        let due = ordered.prefix(max(limit, 0))
        let fired = Set(due.map(\.sequence))
        self.entries.removeAll { fired.contains($0.sequence) }
        let isDone = due.count == ordered.count
        // A tick that has not wholly fired is not over.
        self.now = isDone ? end : max(self.now, ordered[due.count].timer.deadline - 1)
        return (Array(due), isDone)
    }
}

/// Drives the wheel and the model through the same random steps.
private struct Run {
    /// What both must agree on after a step.
    struct Outcome: Equatable {
        var due: [TimingWheel.Timer] = []
        var isDone = true
        var cancelled: Bool?
        var now: Int64
        var count: Int
    }

    static let starts: [Int64] = [0, -1, -1000, 63, 64, 1_700_000_000_000, .min, .min / 2, .max / 2, .max - 5000]

    var generator: SeededGenerator
    var wheel: TimingWheel
    var model: Model
    var stale: [TimingWheel.Handle] = []
    var nextKey: UInt64 = 0

    init(seed: UInt64) {
        self.generator = SeededGenerator(seed: seed)
        let start = Self.starts.randomElement(using: &self.generator) ?? 0
        self.wheel = TimingWheel(now: start)
        self.model = Model(now: start)
    }

    mutating func number(_ range: ClosedRange<Int64>) -> Int64 { Int64.random(in: range, using: &self.generator) }

    /// A tick that is likely to be on a border: of a level, of the range, or one that another timer has.
    mutating func tick() -> Int64 {
        let (kind, near) = (self.number(0...7), self.number(-2...2))
        let distance: Int64
        switch kind {
        case 0: return self.model.entries.randomElement(using: &self.generator)?.timer.deadline ?? self.model.now
        case 1: return self.number(.min ... .max)
        case 2: return self.number(0...1) == 0 ? .max : .max - self.number(0...200)
        case 3: return self.clamped(self.model.now | ((1 << (6 * self.number(1...9))) - 1), plus: near)
        case 4: distance = self.number(0...5) << (6 * self.number(0...9))
        case 5: distance = 10 * 365 * 86_400_000
        default: distance = self.number(-5...150)
        }
        return self.clamped(self.model.now, plus: self.clamped(distance, plus: near))
    }

    func clamped(_ number: Int64, plus other: Int64) -> Int64 {
        let (sum, overflow) = number.addingReportingOverflow(other)
        return overflow ? (other < 0 ? .min : .max) : sum
    }

    mutating func step() -> (seen: Outcome, expected: Outcome) {
        var seen = Outcome(now: 0, count: 0)
        var expected = Outcome(now: 0, count: 0)
        switch self.number(0...9) {
        case 0...4:
            self.nextKey += 1
            let deadline = self.tick()
            let tag = UInt32(truncatingIfNeeded: self.nextKey &* 31)
            let handle = self.wheel.insert(tag: tag, key: self.nextKey, deadline: deadline)
            let timer = TimingWheel.Timer(tag: tag, key: self.nextKey, deadline: deadline)
            self.model.entries.append(Model.Entry(timer: timer, sequence: self.nextKey, handle: handle))
        case 5:
            guard let position = self.model.entries.indices.randomElement(using: &self.generator) else { break }
            let entry = self.model.entries.remove(at: position)
            (seen.cancelled, expected.cancelled) = (self.wheel.cancel(entry.handle), true)
            self.stale.append(entry.handle)
        case 6:
            guard let handle = self.stale.randomElement(using: &self.generator) else { break }
            (seen.cancelled, expected.cancelled) = (self.wheel.cancel(handle), false)
        default:
            let limit = self.number(0...2) == 0 ? .max : Int(self.number(0...4))
            // Mostly small steps: after a jump to the end of time, nothing is left to test.
            let isJump = self.number(0...19) == 0
            let tick =
                isJump ? min(self.tick(), .max - 1000) : self.clamped(self.model.now, plus: self.number(-2...300))
            seen.isDone = self.wheel.advance(to: tick, limit: limit, into: &seen.due)
            let result = self.model.advance(to: tick, limit: limit)
            (expected.due, expected.isDone) = (result.due.map(\.timer), result.isDone)
            self.stale.append(contentsOf: result.due.map(\.handle))
        }
        (seen.now, seen.count) = (self.wheel.now, self.wheel.count)
        (expected.now, expected.count) = (self.model.now, self.model.entries.count)
        return (seen, expected)
    }

    /// Whether the promise of `nextDeadline` holds.
    var isNextDeadlineSound: Bool {
        let next = self.wheel.nextDeadline
        guard let earliest = self.model.earliest, let next else { return next == nil && self.model.entries.isEmpty }
        let now = self.model.now
        guard earliest > now else { return next == earliest }
        // On the lowest level: the same turn of 64 ticks as the first tick that has not fired.
        if earliest >> 6 == (now + 1) >> 6 { return next == earliest }
        return next > now && next <= earliest
    }
}

@Suite struct TimingWheelModelTests {
    @Test(arguments: 0..<100 as Range<UInt64>)
    func agreesWithASortedList(seed: UInt64) throws {
        var run = Run(seed: seed)
        for step in 0..<300 {
            let (seen, expected) = run.step()
            try #require(seen == expected, "seed \(seed), step \(step)")
            try #require(run.isNextDeadlineSound, "seed \(seed), step \(step)")
        }
        let rest = run.model.advance(to: .max, limit: .max)
        var due: [TimingWheel.Timer] = []
        #expect(run.wheel.advance(to: .max, limit: .max, into: &due) == true)
        #expect(due == rest.due.map(\.timer))
        #expect(run.wheel.count == 0)
        #expect(run.wheel.nextDeadline == nil)
    }

    /// Timers that were due when they were set lie in a heap, which must stay one when some are taken out of the middle.
    @Test(arguments: 0..<50 as Range<UInt64>)
    func cancelsAmongOverdueTimers(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var wheel = TimingWheel(now: 1000)
        var left: [(deadline: Int64, key: UInt64, handle: TimingWheel.Handle)] = []
        for key in 0..<60 as Range<UInt64> {
            let deadline = Int64.random(in: -20...20, using: &generator)
            left.append((deadline, key, wheel.set(key, at: deadline)))
        }
        left.shuffle(using: &generator)
        for entry in left.suffix(20) { #expect(wheel.cancel(entry.handle) == true) }
        left.removeLast(20)
        left.sort { ($0.deadline, $0.key) < ($1.deadline, $1.key) }
        #expect(wheel.keys(to: 1000) == left.map(\.key))
    }

    /// Sleeps until `nextDeadline` only, as the engine does, and must still fire every timer at its very tick.
    @Test(arguments: 0..<20 as Range<UInt64>)
    func whoSleepsUntilTheNextDeadlineMissesNothing(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        var wheel = TimingWheel(now: -10_000)
        for key in 0..<300 as Range<UInt64> {
            let spread = Int64(1) << Int64.random(in: 1...38, using: &generator)
            wheel.set(key, at: -9_999 + Int64.random(in: 0..<spread, using: &generator))
        }
        var fired = 0
        while let next = wheel.nextDeadline {
            try #require(next > wheel.now)
            var due: [TimingWheel.Timer] = []
            try #require(wheel.advance(to: next, limit: .max, into: &due) == true)
            try #require(due.allSatisfy { $0.deadline == next })
            fired += due.count
        }
        #expect(fired == 300)
    }
}
