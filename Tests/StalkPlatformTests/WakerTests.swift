import StalkCore
import StalkPlatform
import Testing

extension BootTime {
    /// The moment that comes this many milliseconds later.
    fileprivate func advanced(byMilliseconds millis: Int64) -> BootTime {
        BootTime(nanoseconds: self.nanoseconds + millis * 1_000_000)
    }
}

@Suite(.timeLimit(.minutes(10))) struct WakerTests {
    private let clock = SystemStoreClock()

    @Test func aSignalBeforeTheWaitIsNotLost() throws {
        let waker = try Waker()
        waker.signal()
        // Without a deadline: if the signal were lost, this would never return.
        self.clock.wait(for: waker, until: nil)
    }

    @Test func manySignalsAreOneAndAreTakenBack() throws {
        let waker = try Waker()
        for _ in 0..<1000 { waker.signal() }
        self.clock.wait(for: waker, until: nil)
        let deadline = self.clock.bootTime().advanced(byMilliseconds: 20)
        self.clock.wait(for: waker, until: deadline)
        #expect(self.clock.bootTime() >= deadline, "no signal was left to end the wait early")
    }

    @Test func aDeadlineEndsTheWaitAndNeverEarly() throws {
        let waker = try Waker()
        for millis in [1, 5, 1, 10] as [Int64] {
            let deadline = self.clock.bootTime().advanced(byMilliseconds: millis)
            self.clock.wait(for: waker, until: deadline)
            #expect(self.clock.bootTime() >= deadline)
        }
    }

    @Test func aDeadlineInThePastReturnsAtOnce() throws {
        let waker = try Waker()
        for nanoseconds in [self.clock.bootTime().nanoseconds - 1, 0, -1, .min] {
            self.clock.wait(for: waker, until: BootTime(nanoseconds: nanoseconds))
        }
    }

    @Test func aTimerThatFiredDoesNotEndALaterWait() throws {
        let waker = try Waker()
        self.clock.wait(for: waker, until: BootTime(nanoseconds: 0))
        let deadline = self.clock.bootTime().advanced(byMilliseconds: 20)
        self.clock.wait(for: waker, until: deadline)
        #expect(self.clock.bootTime() >= deadline)
        waker.signal()
        self.clock.wait(for: waker, until: nil)
    }

    @Test func aSignalEndsAWaitBeforeItsDeadline() throws {
        let waker = try Waker()
        let signaller = try DedicatedThread(name: "signaller") { waker.signal() }
        self.clock.wait(for: waker, until: BootTime(nanoseconds: .max))
        signaller.join()
    }

    /// Two threads in turn, by two wakers: any lost signal leaves both waiting.
    @Test func noSignalIsLostBetweenThreads() throws {
        let (ping, pong) = (try Waker(), try Waker())
        let turns = Locked(0)
        let rounds = 2000
        let partner = try DedicatedThread(name: "partner") {
            for _ in 0..<rounds {
                SystemStoreClock().wait(for: ping, until: nil)
                turns.withLock { $0 += 1 }
                pong.signal()
            }
        }
        for round in 1...rounds {
            ping.signal()
            self.clock.wait(for: pong, until: nil)
            #expect(turns.withLock { $0 } == round)
        }
        partner.join()
    }
}

@Suite struct SystemStoreClockTests {
    @Test func theBootTimeNeverGoesBack() {
        let clock = SystemStoreClock()
        var last = clock.bootTime()
        #expect(last.nanoseconds > 0)
        for _ in 0..<1000 {
            let next = clock.bootTime()
            #expect(next >= last)
            last = next
        }
    }

    @Test func theWallClockIsInThisCentury() {
        let now = SystemStoreClock().wallTime()
        #expect(now > Timestamp(millisecondsSince1970: 1_577_836_800_000), "\(now)")
        #expect(now < Timestamp(millisecondsSince1970: 4_102_444_800_000), "\(now)")
    }

    @Test func theBootHasOneIdentityWithoutBlanks() {
        let id = SystemStoreClock().bootID
        #expect(id == SystemStoreClock().bootID)
        #expect(!id.contains { $0.isWhitespace })
    }
}
