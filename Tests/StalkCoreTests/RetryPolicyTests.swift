import StalkCore
import StalkTesting
import Testing

@Suite struct RetryPolicyTests {
    private static let attempts = [Int.min, -1, 0, 1, 2, 3, 10, 62, 63, 64, 65, 1000, Int.max]

    @Test func fixedWaitsTheSameEveryTime() throws {
        var generator = SeededGenerator(seed: 1)
        let policy = try RetryPolicy.fixed(.seconds(30), maxAttempts: nil)
        for attempt in Self.attempts {
            #expect(policy.delay(afterAttempt: attempt, using: &generator) == .seconds(30))
        }
    }

    @Test(arguments: 1...12)
    func exponentialSpreadsOverAllOfTheGrowingWindow(attempt: Int) throws {
        var generator = SeededGenerator(seed: UInt64(attempt))
        let policy = try RetryPolicy.exponential(base: .seconds(1), cap: .seconds(600), maxAttempts: 25)
        let window: Int64 = min(1000 << Int64(attempt - 1), 600_000)
        let delays = (0..<2000).map { _ in
            policy.delay(afterAttempt: attempt, using: &generator).wholeMillisecondsRoundedUp
        }
        #expect(delays.allSatisfy { (0...window).contains($0) })
        // Full jitter is even: with 2000 draws, a tenth at either end has some, and the mean is near the middle.
        #expect(delays.contains { $0 < window / 10 })
        #expect(delays.contains { $0 > window - window / 10 })
        let mean = delays.reduce(0, +) / Int64(delays.count)
        #expect((window * 4 / 10...window * 6 / 10).contains(mean))
    }

    @Test func theSameSeedGivesTheSameDelays() throws {
        func delays(seed: UInt64) -> [Duration] {
            var generator = SeededGenerator(seed: seed)
            return (1...10).map { RetryPolicy.standard.delay(afterAttempt: $0, using: &generator) }
        }
        #expect(delays(seed: 5) == delays(seed: 5))
        #expect(delays(seed: 5) != delays(seed: 6))
    }

    @Test func neverOverflowsNorPassesTheCap() throws {
        var generator = SeededGenerator(seed: 2)
        for base in [.zero, .nanoseconds(1), .milliseconds(1), .seconds(1), Message.maxDelay] as [Duration] {
            for cap in [.zero, .microseconds(1500), .seconds(1), Message.maxDelay] as [Duration] {
                let policy = try RetryPolicy.exponential(base: base, cap: cap, maxAttempts: nil)
                for attempt in Self.attempts {
                    let delay = policy.delay(afterAttempt: attempt, using: &generator)
                    #expect(delay >= .zero && delay <= cap)
                    if base == .zero { #expect(delay == .zero) }
                }
            }
        }
    }

    @Test func theFirstDeliveryIsAttempt1() throws {
        let once = try RetryPolicy.fixed(.zero, maxAttempts: 1)
        #expect(!once.allowsRetry(afterAttempt: 1))
        let thrice = try RetryPolicy.fixed(.zero, maxAttempts: 3)
        #expect(thrice.allowsRetry(afterAttempt: 2))
        #expect(!thrice.allowsRetry(afterAttempt: 3))
        let unlimited = try RetryPolicy.fixed(.zero, maxAttempts: nil)
        #expect(unlimited.allowsRetry(afterAttempt: .max))
    }

    @Test(arguments: [0, -1, Int.min])
    func refusesAttemptsBelow1(maxAttempts: Int) throws {
        let fixed = try stalkError { _ = try RetryPolicy.fixed(.zero, maxAttempts: maxAttempts) }
        #expect(fixed.code == .invalidArgument)
        #expect(fixed.message.contains("\(maxAttempts)"))
        let exponential = try stalkError {
            _ = try RetryPolicy.exponential(base: .zero, cap: .zero, maxAttempts: maxAttempts)
        }
        #expect(exponential.code == .invalidArgument)
    }

    @Test(arguments: [.seconds(-1), Message.maxDelay + .nanoseconds(1)] as [Duration])
    func refusesDelaysOutOfRange(delay: Duration) throws {
        let good = Duration.seconds(1)
        #expect(try stalkError { _ = try RetryPolicy.fixed(delay, maxAttempts: 1) }.code == .delayOutOfRange)
        let base = try stalkError { _ = try RetryPolicy.exponential(base: delay, cap: good, maxAttempts: 1) }
        #expect(base.code == .delayOutOfRange)
        let cap = try stalkError { _ = try RetryPolicy.exponential(base: good, cap: delay, maxAttempts: 1) }
        #expect(cap.code == .delayOutOfRange)
    }
}

@Suite struct RetryPolicyTextTests {
    @Test func printsAsItIsWritten() throws {
        #expect(try RetryPolicy.fixed(.seconds(30), maxAttempts: 5).description == "fixed interval=30s max=5")
        #expect(try RetryPolicy.fixed(.zero, maxAttempts: nil).description == "fixed interval=0ms")
        #expect(RetryPolicy.standard.description == "exponential base=1s cap=1h max=25")
    }

    @Test(arguments: [nil, 1, 25, Int.max] as [Int?])
    func whatIsPrintedReadsTheSame(maxAttempts: Int?) throws {
        for interval in [.zero, .milliseconds(1), .milliseconds(1500), .seconds(90), Message.maxDelay] as [Duration] {
            let fixed = try RetryPolicy.fixed(interval, maxAttempts: maxAttempts)
            #expect(try RetryPolicy(text: fixed.description) == fixed)
            let exponential = try RetryPolicy.exponential(base: .seconds(2), cap: interval, maxAttempts: maxAttempts)
            #expect(try RetryPolicy(text: exponential.description) == exponential)
            #expect(fixed != exponential)
        }
    }

    @Test func readsWordsInAnyOrder() throws {
        #expect(try RetryPolicy(text: "  exponential max=25  cap=1h base=1s ") == .standard)
    }

    @Test(arguments: [
        "", " ", "fixed", "exponential", "linear interval=1s", "fixed interval", "fixed interval=", "fixed interval=1",
        "fixed interval=1s base=1s", "fixed base=1s", "fixed cap=1s", "exponential base=1s", "exponential cap=1s",
        "exponential base=1s cap=1h interval=1s", "fixed interval=1s max=", "fixed interval=1s max=x",
        "fixed interval=1s max=0", "fixed interval=1s max=-1", "fixed interval=1s max=99999999999999999999",
        "fixed interval=1s colour=red", "interval=1s fixed", "fixed=1s interval=1s", "fixed interval=-1s",
        "fixed interval=1s interval=2s", "fixed interval=1s max=1 max=2", "Fixed interval=1s",
    ])
    func refusesOtherText(text: String) throws {
        #expect(try stalkError { _ = try RetryPolicy(text: text) }.code == .invalidArgument)
    }

    @Test func refusesTextWithADelayOutOfRange() throws {
        #expect(try stalkError { _ = try RetryPolicy(text: "fixed interval=3651d") }.code == .delayOutOfRange)
        let long = "exponential base=1s cap=99999999999999999999d"
        #expect(try stalkError { _ = try RetryPolicy(text: long) }.code == .delayOutOfRange)
    }

    @Test func travelsInAHeader() throws {
        var message = Message("work")
        #expect(message.retryPolicy == nil)
        message.retryPolicy = .standard
        #expect(message.headers["stalk-retry-policy"] == "exponential base=1s cap=1h max=25")
        #expect(message.retryPolicy == .standard)
        message.headers["Stalk-Retry-Policy"] = "nonsense"
        #expect(message.retryPolicy == nil)
        message.retryPolicy = nil
        #expect(message.headers.isEmpty)
    }
}
