import StalkCore
import StalkPlatform
import StalkTesting
import Testing

@Suite(.timeLimit(.minutes(10))) struct ManualClockTests {
    @Test func standsStillUntilItIsAdvanced() {
        let clock = ManualClock(wall: Timestamp(millisecondsSince1970: 5000), bootID: "boot-7")
        #expect(clock.bootID == "boot-7")
        #expect(clock.bootTime() == BootTime(nanoseconds: 0))
        #expect(clock.wallTime() == Timestamp(millisecondsSince1970: 5000))
        #expect(clock.now.offset == .zero)

        clock.advance(by: .milliseconds(1500) + .nanoseconds(1))
        #expect(clock.bootTime() == BootTime(nanoseconds: 1_500_000_001))
        #expect(clock.wallTime() == Timestamp(millisecondsSince1970: 6500))
        #expect(clock.now.offset == .milliseconds(1500) + .nanoseconds(1))
    }

    @Test func theWallClockJumpsAlone() {
        let clock = ManualClock(wall: Timestamp(millisecondsSince1970: 1000))
        clock.advance(by: .seconds(1))
        clock.jumpWall(by: .seconds(3600))
        #expect(clock.wallTime() == Timestamp(millisecondsSince1970: 3_602_000))
        clock.jumpWall(by: .seconds(-7200))
        #expect(clock.wallTime() == Timestamp(millisecondsSince1970: -3_598_000))
        #expect(clock.bootTime() == BootTime(nanoseconds: 1_000_000_000))
        clock.advance(by: .seconds(1))
        #expect(clock.wallTime() == Timestamp(millisecondsSince1970: -3_597_000))
    }

    @Test func aSleeperWakesAtItsDeadlineAndNotBefore() async throws {
        let clock = ManualClock()
        async let sleep: Void = clock.sleep(for: .seconds(10))
        async let later: Void = clock.sleep(for: .seconds(20))
        await clock.sleeperCount(reaches: 2)
        clock.advance(by: .seconds(10) - .nanoseconds(1))
        await clock.sleeperCount(reaches: 2)
        clock.advance(by: .nanoseconds(1))
        try await sleep
        // The other one sleeps on: a third makes them two again.
        async let third: Void = clock.sleep(for: .seconds(1))
        await clock.sleeperCount(reaches: 2)
        clock.advance(by: .seconds(10))
        try await later
        try await third
    }

    @Test func whatIsOverDoesNotSleep() async throws {
        let clock = ManualClock()
        clock.advance(by: .seconds(1))
        try await clock.sleep(until: clock.now)
        try await clock.sleep(until: clock.now.advanced(by: .seconds(-1)))
        #expect(clock.now.offset == .seconds(1))
    }

    @Test func oneAdvanceWakesAllThatAreDue() async throws {
        let clock = ManualClock()
        try await withThrowingTaskGroup(of: Int.self) { group in
            for seconds in [3, 1, 2, 9] {
                group.addTask {
                    try await clock.sleep(for: .seconds(seconds))
                    return seconds
                }
            }
            await clock.sleeperCount(reaches: 4)
            clock.advance(by: .seconds(3))
            var woken: Set<Int> = []
            while woken.count < 3, let seconds = try await group.next() { woken.insert(seconds) }
            #expect(woken == [1, 2, 3])
            clock.advance(by: .seconds(6))
            #expect(try await group.next() == 9)
        }
    }

    @Test func aCancelledSleeperWakesAtOnce() async throws {
        let clock = ManualClock()
        let sleeper = Task { try await clock.sleep(for: .seconds(10)) }
        await clock.sleeperCount(reaches: 1)
        sleeper.cancel()
        await #expect(throws: CancellationError.self) { try await sleeper.value }
        let isReached = Locked(false)
        let watch = Task.immediate {
            await clock.sleeperCount(reaches: 1)
            isReached.withLock { $0 = true }
        }
        #expect(!isReached.withLock { $0 }, "who was cancelled counts no more")
        async let next: Void = clock.sleep(for: .seconds(1))
        await watch.value
        clock.advance(by: .seconds(1))
        try await next
    }

    @Test func aTaskThatIsCancelledAlreadyDoesNotSleep() async {
        let clock = ManualClock()
        let gate = ManualClock()
        let sleeper = Task {
            // Ends by cancellation alone, so that the second sleep begins in a cancelled task.
            try? await gate.sleep(for: .seconds(1))
            try await clock.sleep(for: .seconds(10))
        }
        await gate.sleeperCount(reaches: 1)
        sleeper.cancel()
        await #expect(throws: CancellationError.self) { try await sleeper.value }
    }
}

/// The same clock as the engine's: it blocks threads instead of suspending tasks.
@Suite(.timeLimit(.minutes(10))) struct ManualStoreClockTests {
    @Test func aDeadlineThatHasComeDoesNotBlock() throws {
        let clock = ManualClock()
        let waker = try Waker()
        clock.advance(by: .seconds(1))
        clock.wait(for: waker, until: BootTime(nanoseconds: 1_000_000_000))
        clock.wait(for: waker, until: BootTime(nanoseconds: 0))
    }

    @Test func aSignalBeforeTheWaitIsNotLost() throws {
        let clock = ManualClock()
        let waker = try Waker()
        waker.signal()
        clock.wait(for: waker, until: nil)
        #expect(clock.bootTime() == BootTime(nanoseconds: 0))
    }

    @Test func advancingWakesAWaitingThread() throws {
        let clock = ManualClock()
        let waker = try Waker()
        let deadline = BootTime(nanoseconds: 5_000_000_000)
        let thread = try DedicatedThread(name: "waiter") {
            while clock.bootTime() < deadline { clock.wait(for: waker, until: deadline) }
        }
        for _ in 0..<5 { clock.advance(by: .seconds(1)) }
        thread.join()
        #expect(clock.bootTime() == deadline)
    }
}
