// What the conformance suite needs to know of a backend before it can try it.

public import StalkCore

/// How the conformance suite reaches one backend: makes queues, lets time pass, looks at what failed.
///
/// A backend under a ``ManualClock`` moves that clock in ``advance(by:)``; a real one is waited for. See
/// <doc:Conformance>.
public protocol CollectorHarness: Sendable {
    /// The collector that is tried.
    associatedtype Subject: Collector

    /// How long the checks let things take; ``ConformanceTiming/manual`` unless stated.
    var timing: ConformanceTiming { get }

    /// Makes a collector on a fresh, empty queue of its own, asleep.
    func makeCollector() async throws -> Subject

    /// Lets time pass for the backend, and returns when the backend can have noticed.
    ///
    /// - Parameter duration: How much, more than zero.
    func advance(by duration: Duration) async throws

    /// Returns once a take that was just started waits, as far as that can be told.
    ///
    /// With a ``ManualClock`` this is `await clock.sleeperCount(reaches: 1)`. The default lets other tasks run a few
    /// times: enough for most collectors, but a check that needs it may then pass without having tried the wait.
    func takeIsWaiting() async throws

    /// The messages that failed for good, in any order; `nil` where the backend can't show them.
    ///
    /// - Parameter collector: A collector that ``makeCollector()`` made.
    func deadLetters(of collector: Subject) async throws -> [ConformanceDeadLetter]?

    /// Takes back what ``makeCollector()`` made, after each check, failed ones included.
    ///
    /// - Parameter collector: The collector that is not needed any more.
    func finishUp(_ collector: Subject) async throws
}

extension CollectorHarness {
    /// The pace of a manual clock.
    public var timing: ConformanceTiming { .manual }

    /// Lets other tasks run a few times.
    public func takeIsWaiting() async throws {
        for _ in 0..<100 { await Task.yield() }
    }

    /// A backend that can't show what failed for good.
    public func deadLetters(of collector: Subject) async throws -> [ConformanceDeadLetter]? { nil }

    /// Nothing to take back.
    public func finishUp(_ collector: Subject) async throws {}
}

/// A message that failed for good, as a backend shows it.
public struct ConformanceDeadLetter: Hashable, Sendable {
    /// The payload.
    public var body: [UInt8]
    /// Why it failed for good.
    public var reason: String

    /// Pairs a body with its reason.
    public init(body: [UInt8], reason: String) {
        self.body = body
        self.reason = reason
    }
}

/// How long the checks of the conformance suite let things take.
public struct ConformanceTiming: Hashable, Sendable {
    /// What delays and leases are small multiples of: at least twice what the backend can tell apart.
    public var unit: Duration
    /// How long before a moment the checks look that nothing has happened, and how long after it that it has.
    public var tolerance: Duration
    /// How long, in real time, something that must happen is waited for before it counts as missing.
    public var patience: Duration

    /// States how long things take.
    ///
    /// - Parameters:
    ///   - unit: What delays and leases are small multiples of.
    ///   - tolerance: How far around a moment the checks look; less than half of `unit`.
    ///   - patience: How long in real time something is waited for.
    public init(unit: Duration, tolerance: Duration, patience: Duration) {
        self.unit = unit
        self.tolerance = tolerance
        self.patience = patience
    }

    /// For a clock that the test moves: to the millisecond.
    public static var manual: ConformanceTiming {
        ConformanceTiming(unit: .seconds(10), tolerance: .milliseconds(1), patience: .seconds(60))
    }

    /// For a backend that is waited for and keeps time to the second.
    public static var real: ConformanceTiming {
        ConformanceTiming(unit: .seconds(3), tolerance: .seconds(1), patience: .seconds(60))
    }
}
