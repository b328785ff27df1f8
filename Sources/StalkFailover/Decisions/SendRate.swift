// How fast is sent: a bound in messages and in bytes, lowered when the remote asks for less.

internal import StalkCore

/// The rate towards one destination.
///
/// Two schedules of the generic cell rate algorithm (ITU-T I.371), one counted in messages, one in bytes, each up to a
/// second ahead. Throttling halves the rate in messages; every second without it adds a tenth of the rate that was too
/// much (additive increase, multiplicative decrease). At twice that rate the bound is gone, unless one was set.
struct SendRate: Sendable {
    private static let burst = Duration.seconds(1)

    private let ceiling: Double?
    private let byteCeiling: Double?
    /// The bound that throttling left, in messages per second.
    private var lowered: Double?
    /// The rate that was too much.
    private var tooMuch: Double = 0
    private var raisedAt: Duration = .zero
    /// When the next message and byte would leave, were they spread evenly.
    private var nextMessageAt: Duration = .zero
    private var nextByteAt: Duration = .zero
    private var tried = SecondCount()
    private var taken = SecondCount()
    private var takenBytes = SecondCount()

    init(messagesPerSecond: Double?, bytesPerSecond: Double?) {
        self.ceiling = messagesPerSecond
        self.byteCeiling = bytesPerSecond
    }

    /// The bound in messages per second; `nil` without one.
    var limit: Double? {
        guard let lowered else { return self.ceiling }
        return min(lowered, self.ceiling ?? lowered)
    }

    /// Messages that the remote took in the last second.
    mutating func measured(now: Duration) -> Int { self.taken.count(now: now) }

    /// The size of their bodies.
    mutating func measuredBytes(now: Duration) -> Int { self.takenBytes.count(now: now) }

    /// The most messages that may leave at once: what a second brings, and at least one.
    var largestBatch: Int {
        self.limit.map { max(Int(min($0, 1_000_000)), 1) } ?? .max
    }

    /// When the next batch may leave.
    func startAt(now: Duration) -> Duration {
        var start = now
        if self.limit != nil { start = max(start, self.nextMessageAt - Self.burst) }
        if self.byteCeiling != nil { start = max(start, self.nextByteAt - Self.burst) }
        return start
    }

    /// A batch leaves.
    mutating func left(messages: Int, bytes: Int, now: Duration) {
        self.tried.add(messages, now: now)
        if let limit {
            self.nextMessageAt = max(self.nextMessageAt, now) + .seconds(Double(messages) / limit)
        }
        if let byteCeiling {
            self.nextByteAt = max(self.nextByteAt, now) + .seconds(Double(bytes) / byteCeiling)
        }
    }

    /// The remote asked for less.
    mutating func throttled(now: Duration) {
        let used = self.limit ?? Double(max(self.tried.count(now: now), 2))
        self.tooMuch = used
        self.lowered = max(used / 2, 1)
        self.raisedAt = now
        // What just was too much is not tried again at once.
        self.nextMessageAt = max(self.nextMessageAt, now + Self.burst + .seconds(1))
    }

    /// The remote took messages.
    mutating func accepted(_ messages: Int, bytes: Int = 0, now: Duration) {
        self.taken.add(messages, now: now)
        self.takenBytes.add(bytes, now: now)
        guard let lowered else { return }
        let seconds = (now - self.raisedAt).wholeMillisecondsRoundedUp / 1000
        guard seconds >= 1 else { return }
        self.raisedAt = now
        let raised = lowered + Double(seconds) * max(self.tooMuch / 10, 1)
        self.lowered = raised >= 2 * self.tooMuch ? nil : raised
    }
}

/// How many of something happened in the last second: the whole one before, or as much as there is of the one under way.
private struct SecondCount {
    private var start: Duration = .zero
    private var current = 0
    private var last = 0

    mutating func add(_ count: Int, now: Duration) {
        self.turn(now: now)
        self.current += count
    }

    mutating func count(now: Duration) -> Int {
        self.turn(now: now)
        return max(self.last, self.current)
    }

    private mutating func turn(now: Duration) {
        guard now - self.start >= .seconds(1) else { return }
        self.last = now - self.start < .seconds(2) ? self.current : 0
        self.current = 0
        self.start = now
    }
}
