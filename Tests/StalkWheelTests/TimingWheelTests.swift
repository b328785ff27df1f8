import StalkWheel
import Testing

extension TimingWheel {
    /// Sets a timer that is told apart by its key alone.
    @discardableResult
    mutating func set(_ key: UInt64, at deadline: Int64) -> Handle {
        self.insert(tag: 0, key: key, deadline: deadline)
    }

    /// The keys of what fires, and whether all of it did.
    mutating func fired(to tick: Int64, limit: Int = .max) -> (keys: [UInt64], isDone: Bool) {
        var due: [Timer] = []
        let isDone = self.advance(to: tick, limit: limit, into: &due)
        return (due.map(\.key), isDone)
    }

    /// The keys of what fires without a limit.
    mutating func keys(to tick: Int64) -> [UInt64] { self.fired(to: tick).keys }
}

@Suite struct TimingWheelTests {
    @Test func firesNeverEarlyAndGivesBackWhatWasPutIn() {
        var wheel = TimingWheel(now: 100)
        var due: [TimingWheel.Timer] = []
        _ = wheel.insert(tag: 7, key: 42, deadline: 150)
        #expect(wheel.count == 1)
        #expect(wheel.advance(to: 149, limit: .max, into: &due) == true)
        #expect(due.isEmpty)
        #expect(wheel.now == 149)
        #expect(wheel.advance(to: 150, limit: .max, into: &due) == true)
        #expect(due == [TimingWheel.Timer(tag: 7, key: 42, deadline: 150)])
        #expect(wheel.now == 150)
        #expect(wheel.count == 0)
    }

    @Test func appendsToWhatTheCallerHasAlready() {
        var wheel = TimingWheel(now: 0)
        var due = [TimingWheel.Timer(tag: 1, key: 1, deadline: 1)]
        wheel.set(2, at: 5)
        wheel.set(3, at: 6)
        #expect(wheel.advance(to: 10, limit: 1, into: &due) == false)
        #expect(due.map(\.key) == [1, 2])
    }

    @Test func anEmptyWheelGoesAnyDistance() {
        var wheel = TimingWheel(now: .min)
        #expect(wheel.nextDeadline == nil)
        #expect(wheel.fired(to: 0) == ([], true))
        #expect(wheel.fired(to: .max) == ([], true))
        #expect(wheel.now == .max)
        #expect(wheel.nextDeadline == nil)
    }

    @Test func firesInOrderOfDeadlineOverAllLevels() {
        let deadlines: [Int64] = (0..<10).flatMap { level in
            let border = Int64(1) << (6 * Int64(level))
            return [border - 1, border, border + 1]
        }
        var wheel = TimingWheel(now: -1)
        for (key, deadline) in deadlines.enumerated().reversed() { wheel.set(UInt64(key), at: deadline) }
        let expected = deadlines.enumerated().sorted { ($0.element, -$0.offset) < ($1.element, -$1.offset) }
        #expect(wheel.keys(to: .max) == expected.map { UInt64($0.offset) })
    }

    @Test func keepsTheOrderOfInsertionWithinATickOverCascades() {
        var wheel = TimingWheel(now: 0)
        wheel.set(1, at: 5000)
        #expect(wheel.keys(to: 4000).isEmpty)
        wheel.set(2, at: 5000)
        #expect(wheel.keys(to: 4990).isEmpty)
        wheel.set(3, at: 5000)
        wheel.set(4, at: 4999)
        #expect(wheel.keys(to: 4999) == [4])
        wheel.set(5, at: 5000)
        #expect(wheel.keys(to: 5000) == [1, 2, 3, 5])
    }

    @Test func theLimitCutsAndTheRestComesInOrder() {
        var wheel = TimingWheel(now: 0)
        for key in 1...3 { wheel.set(UInt64(key), at: 70) }
        wheel.set(4, at: 71)
        #expect(wheel.fired(to: 100, limit: 2) == ([1, 2], false))
        #expect(wheel.now == 69, "tick 70 has not wholly fired")
        #expect(wheel.count == 2)
        wheel.set(5, at: 70)
        wheel.set(6, at: 69)
        #expect(wheel.fired(to: 100, limit: 2) == ([6, 3], false))
        #expect(wheel.fired(to: 100, limit: 2) == ([5, 4], true), "a limit that is just enough cuts nothing")
        #expect(wheel.now == 100)
    }

    @Test func aLimitOfNothingFiresNothing() {
        var wheel = TimingWheel(now: 0)
        wheel.set(1, at: 10_000)
        #expect(wheel.fired(to: 9999, limit: 0) == ([], true), "nothing is due")
        #expect(wheel.now == 9999)
        #expect(wheel.fired(to: 10_000, limit: 0) == ([], false))
        #expect(wheel.fired(to: 10_000, limit: -5) == ([], false))
        #expect(wheel.fired(to: 10_000, limit: 1) == ([1], true))
    }

    @Test func whatIsOverdueFiresAtTheNextAdvanceByDeadline() {
        var wheel = TimingWheel(now: 100)
        wheel.set(1, at: 100)
        wheel.set(2, at: -50)
        wheel.set(3, at: 100)
        wheel.set(4, at: -50)
        wheel.set(5, at: 101)
        #expect(wheel.nextDeadline == -50)
        #expect(wheel.fired(to: 100, limit: 1) == ([2], false))
        #expect(wheel.keys(to: 100) == [4, 1, 3])
        #expect(wheel.nextDeadline == 101)
        #expect(wheel.keys(to: 101) == [5])
    }

    @Test func timeNeverGoesBack() {
        var wheel = TimingWheel(now: 100)
        wheel.set(1, at: 101)
        #expect(wheel.fired(to: 50) == ([], true))
        #expect(wheel.now == 100)
        wheel.set(2, at: 80)
        #expect(wheel.fired(to: 50) == ([2], true), "it counts as now")
        #expect(wheel.keys(to: 101) == [1])
    }

    @Test func theLastTickOfAllCanBeReached() {
        var wheel = TimingWheel(now: .max - 2)
        wheel.set(1, at: .max)
        wheel.set(2, at: .max - 1)
        #expect(wheel.nextDeadline == Int64.max - 1)
        #expect(wheel.fired(to: .max, limit: 1) == ([2], false))
        #expect(wheel.keys(to: .max) == [1])
        #expect(wheel.now == .max)
        let handle = wheel.set(3, at: .max)
        wheel.set(4, at: .min)
        #expect(wheel.nextDeadline == .min)
        #expect(wheel.cancel(handle) == true)
        #expect(wheel.keys(to: 0) == [4])
    }

    @Test func aCopyIsAWheelOfItsOwn() {
        var wheel = TimingWheel(now: 0)
        let handle = wheel.set(1, at: 10)
        var copy = wheel
        #expect(copy.cancel(handle) == true)
        #expect(copy.count == 0)
        #expect(wheel.keys(to: 10) == [1])
    }
}

@Suite struct TimingWheelCancelTests {
    @Test(
        arguments: [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]],
        [-5, 3, 200] as [Int64]
    )
    func takesTimersOutAnywhereInAList(order: [Int], deadline: Int64) {
        var wheel = TimingWheel(now: 0)
        let handles = (0..<3).map { wheel.set(UInt64($0), at: deadline) }
        var left: [UInt64] = [0, 1, 2]
        for position in order {
            #expect(wheel.cancel(handles[position]) == true)
            left.removeAll { $0 == UInt64(position) }
            var copy = wheel
            #expect(copy.keys(to: 1000) == left)
        }
        #expect(wheel.count == 0)
        #expect(wheel.nextDeadline == nil, "an empty slot wakes nobody")
    }

    @Test func aHandleNamesItsTimerOnce() {
        var wheel = TimingWheel(now: 0)
        let cancelled = wheel.set(1, at: 10)
        #expect(wheel.cancel(cancelled) == true)
        #expect(wheel.cancel(cancelled) == false)
        let fired = wheel.set(2, at: 10)
        #expect(fired != cancelled)
        #expect(wheel.cancel(cancelled) == false, "the node is in use again, for another timer")
        #expect(wheel.keys(to: 10) == [2])
        #expect(wheel.cancel(fired) == false)
        let last = wheel.set(3, at: 20)
        #expect(wheel.cancel(fired) == false)
        #expect(wheel.count == 1)
        #expect(wheel.cancel(last) == true)
    }

    @Test func cancelsWhatHasCascaded() {
        var wheel = TimingWheel(now: 0)
        let first = wheel.set(1, at: 300_000)
        let second = wheel.set(2, at: 300_001)
        #expect(wheel.keys(to: 299_999).isEmpty)
        #expect(wheel.cancel(first) == true)
        #expect(wheel.nextDeadline == 300_001)
        #expect(wheel.cancel(second) == true)
        #expect(wheel.nextDeadline == nil)
    }

    @Test func aHandleOfAnotherWheelDoesNoHarmToFreeNodes() {
        var other = TimingWheel(now: 0)
        let foreign = other.set(1, at: 10)
        var wheel = TimingWheel(now: 0)
        #expect(wheel.cancel(foreign) == false)
        wheel.cancel(wheel.set(2, at: 10))
        #expect(wheel.cancel(foreign) == false)
        #expect(wheel.count == 0)
    }
}

@Suite struct TimingWheelNextDeadlineTests {
    @Test func isExactOnTheLowestLevel() {
        var wheel = TimingWheel(now: 0)
        wheel.set(1, at: 63)
        #expect(wheel.nextDeadline == 63)
        let earlier = wheel.set(2, at: 1)
        #expect(wheel.nextDeadline == 1)
        wheel.cancel(earlier)
        #expect(wheel.nextDeadline == 63)
    }

    @Test func isTheCascadeOfHigherLevels() {
        var wheel = TimingWheel(now: 0)
        wheel.set(1, at: 130)
        #expect(wheel.nextDeadline == 128)
        #expect(wheel.keys(to: 128).isEmpty)
        #expect(wheel.nextDeadline == 130)
    }

    @Test(
        arguments: [
            1, 64, 4095, 4097, 86_400_000, 10 * 365 * 86_400_000, 1 << 40, .max,
        ] as [Int64]
    )
    func wakesAtMostOncePerLevelAndFiresOnTime(deadline: Int64) throws {
        var wheel = TimingWheel(now: 0)
        wheel.set(1, at: deadline)
        var wakeUps = 0
        while wheel.count > 0 {
            let next = try #require(wheel.nextDeadline)
            try #require(next > wheel.now && next <= deadline)
            wakeUps += 1
            let keys = wheel.keys(to: next)
            #expect(keys == (next == deadline ? [1] : []))
        }
        #expect(wakeUps <= 11)
    }
}
