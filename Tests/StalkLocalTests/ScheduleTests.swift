import StalkCore
import StalkTesting
import StalkWheel
import Testing

@testable import StalkLocal

/// Delays and leases against clocks that misbehave.
@Suite(.timeLimit(.minutes(10))) struct ScheduleTests {
    private static func texts(_ queue: LocalQueue) async throws -> [String] {
        try await queue.take(TakeRequest(max: 100, lease: .seconds(3600))).map(\.text)
    }

    @Test(arguments: [-3600, 3600, 10 * 365 * 86_400] as [Int64], [false, true])
    func wallClockJumpChangesNothing(seconds: Int64, isReopened: Bool) async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        var queue = try store.queue("q")
        try await queue.wake()
        try await queue.publish([Message("leased"), Message("later", delay: .seconds(10))])
        if isReopened {
            try await store.close()
            temporary.clock.jumpWall(by: .seconds(seconds))
            store = try await temporary.open()
            queue = try store.queue("q")
            try await queue.wake()
        }
        let leased = try await queue.take(TakeRequest(max: 9, lease: .seconds(5)))
        #expect(leased.map(\.text) == ["leased"])
        temporary.clock.jumpWall(by: .seconds(seconds))
        await temporary.advance(store, by: .milliseconds(4999))
        #expect(try await Self.texts(queue).isEmpty)
        await temporary.advance(store, by: .milliseconds(1))
        #expect(try await Self.texts(queue) == ["leased"])
        await temporary.advance(store, by: .milliseconds(4999))
        #expect(try await Self.texts(queue).isEmpty)
        await temporary.advance(store, by: .milliseconds(1))
        #expect(try await Self.texts(queue) == ["later"])
        try await store.close()
    }

    @Test func anotherBootGoesByTheWallClockButNeverBack() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        try await store.queue("q").publish(Message("later", delay: .seconds(3600)))
        try await store.close()
        // Half an hour later by the wall, on a machine that has just booted.
        var rebooted = temporary
        let wall = temporary.clock.wallTime().millisecondsSince1970
        let clock = ManualClock(wall: Timestamp(millisecondsSince1970: wall + 1_800_000), bootID: "another")
        rebooted.options.clock = clock
        store = try await rebooted.open()
        let queue = try store.queue("q")
        try await queue.wake()
        clock.advance(by: .milliseconds(1_799_999))
        await store.catchUp()
        #expect(try await Self.texts(queue).isEmpty)
        clock.advance(by: .milliseconds(1))
        await store.catchUp()
        #expect(try await Self.texts(queue) == ["later"])
        try await store.close()
    }

    @Test func wallClockThatIsBehindAfterAnotherBootMakesNothingEarly() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        try await store.queue("q").publish(Message("later", delay: .seconds(3600)))
        try await store.close()
        // On a machine that has just booted, and whose wall clock says an hour less than when the store was closed.
        var rebooted = temporary
        let wall = temporary.clock.wallTime().millisecondsSince1970
        let clock = ManualClock(wall: Timestamp(millisecondsSince1970: wall - 3_600_000), bootID: "another")
        rebooted.options.clock = clock
        store = try await rebooted.open()
        let queue = try store.queue("q")
        try await queue.wake()
        clock.advance(by: .milliseconds(3_599_999))
        await store.catchUp()
        #expect(try await Self.texts(queue).isEmpty)
        clock.advance(by: .milliseconds(1))
        await store.catchUp()
        #expect(try await Self.texts(queue) == ["later"])
        try await store.close()
    }

    @Test func overdueWorkComesInOrderAtBoundedRate() async throws {
        var temporary = TemporaryStore()
        temporary.options.releaseRate = 1000
        defer { temporary.remove() }
        var store = try await temporary.open()
        var queue = try store.queue("q")
        let count = 400
        try await queue.publish((0..<count).map { Message("\($0)", delay: .seconds(Int64(1 + $0 % 7))) })
        try await store.close()
        temporary.clock.advance(by: .seconds(86_400))
        store = try await temporary.open()
        queue = try store.queue("q")
        try await queue.wake()
        // A burst of a fiftieth of a second, then a thousand a second: never more by any moment.
        var released = 0
        for step in 0..<60 {
            await store.settleSchedule()
            released = try #require(try await store.stats().queues.first).ready
            #expect(released <= 20 + step * 10 + 1)
            temporary.clock.advance(by: .milliseconds(10))
        }
        #expect(released == count)
        var order: [String] = []
        for _ in 0..<count where order.count < count { order += try await Self.texts(queue) }
        let expected = (0..<count).sorted { ($0 % 7, $0) < ($1 % 7, $1) }.map(String.init)
        #expect(order == expected)
        try await store.close()
    }

    @Test func schedulerSleepsWhenThereIsNothingToWaitFor() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        try await queue.wake()
        try await queue.publish(Message("x"))
        try await queue.acknowledge(queue.take(TakeRequest())[0])
        try await store.checkpoint()
        await store.catchUp()
        // What is left is the lease's timer, cancelled: nothing that would wake the scheduler by itself.
        #expect(store.core.look { $0.wheel.nextDeadline } == nil)
        #expect(store.core.look { $0.hasUnsettledChanges } == false)
        try await store.close()
    }

    @Test func waitWithoutEndIsPossible() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        try await queue.wake()
        async let taken = queue.take(TakeRequest(wait: .seconds(Int64.max)))
        while store.core.look({ $0.queueNumbers.isEmpty || $0.queues[1].takers.isEmpty }) { await Task.yield() }
        await temporary.advance(store, by: .seconds(86_400))
        try await queue.publish(Message("x"))
        #expect(try await taken.map(\.text) == ["x"])
        try await store.close()
    }

    @Test func momentsRoundUpAndNeverOverflow() {
        let now = Moment(nanoseconds: 1_700_000_000_000_000_001)
        #expect(now.milliseconds == 1_700_000_000_000)
        #expect(now.later(by: .zero) == 1_700_000_000_001)
        #expect(now.later(by: .nanoseconds(999_999)) == 1_700_000_000_001)
        #expect(now.later(by: .milliseconds(1)) == 1_700_000_000_002)
        #expect(now.later(by: .seconds(Int64.max)) == Int64.max / 1_000_000)
    }

    @Test func takersWakeForDelayedMessages() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        try await queue.wake()
        try await queue.publish(Message("later", delay: .seconds(100)))
        try await store.checkpoint()
        async let taken = queue.take(TakeRequest(wait: .seconds(1000)))
        while store.core.look({ $0.queues[1].takers.isEmpty }) { await Task.yield() }
        await temporary.advance(store, by: .seconds(100))
        #expect(try await taken.map(\.text) == ["later"])
        try await store.close()
    }
}
