import StalkCore
import StalkTesting
import Testing

@Suite struct DurationTextTests {
    @Test(
        arguments: [
            ("0ms", .zero), ("500ms", .milliseconds(500)), ("5s", .seconds(5)), ("2m", .seconds(120)),
            ("3h", .seconds(3 * 3600)), ("7d", .seconds(7 * 86_400)), ("0d", .zero), ("007s", .seconds(7)),
            ("9223372036854775807ms", .milliseconds(Int64.max)),
        ] as [(String, Duration)]
    )
    func reads(text: String, duration: Duration) throws {
        #expect(try Duration(stalk: text) == duration)
    }

    @Test(arguments: [
        "", "s", "5", "ms", "-5s", "+5s", "1.5s", "5 s", " 5s", "5s ", "5S", "5min", "5y", "1h30m", "5µs", "٣s",
        "5e3ms",
        "99999999999999999999",
    ])
    func refuses(text: String) throws {
        let error = try stalkError { _ = try Duration(stalk: text) }
        #expect(error.code == .invalidArgument)
        #expect(error.message.contains("\"\(text)\""))
    }

    @Test func saysWhenOnlyTheUnitIsMissing() throws {
        #expect(try stalkError { _ = try Duration(stalk: "5") }.message.contains("needs a unit"))
        #expect(try !stalkError { _ = try Duration(stalk: "5x") }.message.contains("needs a unit"))
    }

    @Test(arguments: ["9223372036854775808ms", "9223372036854776s", "106751991168d", "99999999999999999999999s"])
    func refusesWhatIsTooLongToCount(text: String) throws {
        let error = try stalkError { _ = try Duration(stalk: text) }
        #expect(error.code == .delayOutOfRange)
        #expect(error.message.contains(text))
    }

    @Test(
        arguments: [
            (.zero, "0ms"), (.milliseconds(1), "1ms"), (.milliseconds(1500), "1500ms"), (.seconds(59), "59s"),
            (.seconds(60), "1m"), (.seconds(90), "90s"), (.seconds(3600), "1h"), (.seconds(86_400), "1d"),
            (.seconds(86_400 + 3600), "25h"), (.seconds(10 * 365 * 86_400), "3650d"), (.nanoseconds(1), "1ms"),
            (.milliseconds(-1500), "-1500ms"),
        ] as [(Duration, String)]
    )
    func printsInTheLargestUnitThatDivides(duration: Duration, text: String) {
        #expect(duration.stalkText == text)
    }

    @Test(arguments: 0..<50 as Range<UInt64>)
    func whatIsPrintedReadsTheSame(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let units: [Int64] = [1, 1000, 60_000, 3_600_000, 86_400_000]
        let unit = units.randomElement(using: &generator) ?? 1
        let duration = Duration.milliseconds(Int64.random(in: 0...100_000, using: &generator) * unit)
        #expect(try Duration(stalk: duration.stalkText) == duration)
    }

    @Test(
        arguments: [
            (.zero, 0), (.milliseconds(1), 1), (.nanoseconds(1), 1), (.nanoseconds(999_999), 1),
            (.nanoseconds(1_000_001), 2),
            (.nanoseconds(1_999_999_999), 2000), (.seconds(2), 2000),
            (Duration(secondsComponent: 0, attosecondsComponent: 1), 1),
            (.nanoseconds(-1), 0), (.milliseconds(-1), -1), (.nanoseconds(-1_000_001), -1),
            (.nanoseconds(-1_999_999), -1),
            (.nanoseconds(-1_999_999_999), -1999),
        ] as [(Duration, Int64)]
    )
    func roundsUpToWholeMilliseconds(duration: Duration, millis: Int64) {
        #expect(duration.wholeMillisecondsRoundedUp == millis)
    }

    @Test func clampsWholeMillisecondsTo64Bits() {
        let (most, least) = (Duration.milliseconds(Int64.max), Duration.milliseconds(Int64.min))
        #expect(most.wholeMillisecondsRoundedUp == .max)
        #expect((most - .nanoseconds(1)).wholeMillisecondsRoundedUp == .max)
        #expect((most - .milliseconds(1)).wholeMillisecondsRoundedUp == .max - 1)
        #expect((most + .nanoseconds(1)).wholeMillisecondsRoundedUp == .max)
        #expect(Duration.seconds(Int64.max).wholeMillisecondsRoundedUp == .max)
        #expect((Duration.seconds(Int64.max) * 2).wholeMillisecondsRoundedUp == .max)
        #expect(least.wholeMillisecondsRoundedUp == .min)
        #expect((least + .nanoseconds(1)).wholeMillisecondsRoundedUp == .min + 1)
        #expect((Duration.seconds(Int64.min) * 2).wholeMillisecondsRoundedUp == .min)
    }
}
