// The standard retry mode of AWS's SDKs, in its form of 2026: few tries, growing waits, and a bucket of tokens that keeps
// a client from adding load to a service that is down.

internal import StalkCore

/// The tokens that all calls of a client share.
struct RetryBudget: Hashable, Sendable {
    static let capacity = 500

    private(set) var tokens = Self.capacity

    /// Takes the price of a retry out of the bucket.
    ///
    /// - Returns: Whether there was enough.
    mutating func take(_ price: Int) -> Bool {
        guard self.tokens >= price else { return false }
        self.tokens -= price
        return true
    }

    /// A call succeeded: its last retry's price comes back, or one token where it needed none.
    mutating func put(_ price: Int?) {
        self.tokens = min(Self.capacity, self.tokens + (price ?? 1))
    }
}

/// The tries of one call.
struct RetryState: Sendable {
    /// What became of a try.
    enum Failure: Hashable, Sendable {
        case transient
        case throttle(after: Duration?)
    }

    /// What to do after a failed try.
    enum Verdict: Hashable, Sendable {
        /// Wait, then try again.
        case retry(after: Duration)
        /// Wait, then say that it failed: a call that is made again at once must not become a busy loop.
        case giveUp(after: Duration)
    }

    static let cap = Duration.seconds(20)

    /// The most tries, the first included.
    var maxAttempts: Int
    /// Whether the caller comes back at once when it fails, as one that polls does.
    var isLongPoll: Bool
    private(set) var attempt = 1
    /// What the last retry cost.
    private(set) var price: Int?

    init(maxAttempts: Int, isLongPoll: Bool) {
        self.maxAttempts = maxAttempts
        self.isLongPoll = isLongPoll
    }

    /// Decides what follows a failed try.
    mutating func failed(
        _ failure: Failure,
        _ budget: inout RetryBudget,
        using generator: inout some RandomNumberGenerator
    ) -> Verdict {
        let delay = self.delay(failure, using: &generator)
        guard self.attempt < self.maxAttempts else { return .giveUp(after: .zero) }
        let price = if case .throttle = failure { 5 } else { 14 }
        guard budget.take(price) else { return .giveUp(after: self.isLongPoll ? delay : .zero) }
        self.price = price
        self.attempt += 1
        return .retry(after: delay)
    }

    private func delay(_ failure: Failure, using generator: inout some RandomNumberGenerator) -> Duration {
        var (base, asked) = (Duration.milliseconds(50), Duration?.none)
        if case .throttle(let after) = failure { (base, asked) = (.seconds(1), after) }
        let largest = min(base * (1 << min(self.attempt - 1, 20)), Self.cap)
        let drawn = largest * Double.random(in: 0...1, using: &generator)
        guard let asked else { return drawn }
        return max(drawn, min(asked, drawn + .seconds(5)))
    }
}
