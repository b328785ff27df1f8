// When a failed message comes again, and when it does so no more.

/// How long a failed message waits before it comes again, and how often it may come.
///
/// The first delivery is attempt 1: `maxAttempts: 1` means no retry.
/// Full jitter after Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
public struct RetryPolicy: Hashable, Sendable {
    private enum Backoff: Hashable {
        case fixed
        case exponential
    }

    /// The header that carries a policy with one message and overrides the worker's.
    public static var headerName: String { "Stalk-Retry-Policy" }

    /// A growing wait with full jitter, from one second to one hour, 25 attempts.
    public static var standard: RetryPolicy {
        RetryPolicy(backoff: .exponential, interval: .seconds(1), cap: .seconds(3600), maxAttempts: 25)
    }

    private var backoff: Backoff
    /// The wait after each failure (fixed), or the largest wait after the first one (exponential).
    public private(set) var interval: Duration
    /// The longest wait.
    public private(set) var cap: Duration
    /// The most deliveries of one message, at least 1; `nil` without a limit.
    public private(set) var maxAttempts: Int?

    private init(backoff: Backoff, interval: Duration, cap: Duration, maxAttempts: Int?) {
        self.backoff = backoff
        self.interval = interval
        self.cap = cap
        self.maxAttempts = maxAttempts
    }

    /// The same wait after every failure.
    ///
    /// - Parameters:
    ///   - interval: The wait, from zero to ten years.
    ///   - maxAttempts: The most deliveries, at least 1; `nil` without a limit.
    /// - Throws: ``StalkError`` with ``StalkError/Code/invalidArgument`` or ``StalkError/Code/delayOutOfRange``.
    public static func fixed(_ interval: Duration, maxAttempts: Int?) throws(StalkError) -> RetryPolicy {
        try RetryPolicy(backoff: .fixed, interval: interval, cap: interval, maxAttempts: maxAttempts).checked()
    }

    /// A wait drawn evenly between zero and `base` × 2ⁿ⁻¹ after the n-th failure, never over `cap`.
    ///
    /// - Parameters:
    ///   - base: The largest wait after the first failure.
    ///   - cap: The longest wait, up to ten years.
    ///   - maxAttempts: The most deliveries, at least 1; `nil` without a limit.
    /// - Throws: ``StalkError`` with ``StalkError/Code/invalidArgument`` or ``StalkError/Code/delayOutOfRange``.
    public static func exponential(
        base: Duration,
        cap: Duration,
        maxAttempts: Int?
    ) throws(StalkError) -> RetryPolicy {
        try RetryPolicy(backoff: .exponential, interval: base, cap: cap, maxAttempts: maxAttempts).checked()
    }

    /// Whether a message may be delivered again after this many deliveries.
    ///
    /// - Parameter attempt: The delivery that failed, from 1.
    public func allowsRetry(afterAttempt attempt: Int) -> Bool {
        guard let maxAttempts = self.maxAttempts else { return true }
        return attempt < maxAttempts
    }

    /// The wait after a failed delivery.
    ///
    /// - Parameters:
    ///   - attempt: The delivery that failed, from 1.
    ///   - generator: Where the jitter comes from.
    /// - Returns: The wait; zero or more, at most ``cap``.
    public func delay(afterAttempt attempt: Int, using generator: inout some RandomNumberGenerator) -> Duration {
        switch self.backoff {
        case .fixed:
            return self.interval
        case .exponential:
            let capMillis = self.cap.wholeMillisecondsRoundedUp
            let baseMillis = self.interval.wholeMillisecondsRoundedUp
            let doublings = min(Swift.max(attempt, 1) - 1, 62)
            let (grown, overflow) = baseMillis.multipliedReportingOverflow(by: 1 << Int64(doublings))
            let largest = overflow ? capMillis : min(grown, capMillis)
            return min(.milliseconds(Int64.random(in: 0...largest, using: &generator)), self.cap)
        }
    }

    private func checked() throws(StalkError) -> RetryPolicy {
        try Message.validate(delay: self.interval, largest: Message.maxDelay)
        try Message.validate(delay: self.cap, largest: Message.maxDelay)
        if let maxAttempts = self.maxAttempts, maxAttempts < 1 {
            throw StalkError(
                .invalidArgument,
                "maxAttempts is \(maxAttempts): the first delivery is attempt 1, so 1 means no retry and 0 means nothing."
            )
        }
        return self
    }
}

extension RetryPolicy: CustomStringConvertible {
    /// The policy as text, as ``init(text:)`` reads it and the header ``headerName`` carries it.
    public var description: String {
        let limit = self.maxAttempts.map { " max=\($0)" } ?? ""
        return switch self.backoff {
        case .fixed: "fixed interval=\(self.interval.stalkText)\(limit)"
        case .exponential: "exponential base=\(self.interval.stalkText) cap=\(self.cap.stalkText)\(limit)"
        }
    }

    /// Reads a policy from text.
    ///
    /// - Parameter text: `fixed interval=30s max=5` or `exponential base=1s cap=1h max=25`; `max` may be left out.
    /// - Throws: ``StalkError`` with ``StalkError/Code/invalidArgument``, saying what is not understood.
    public init(text: String) throws(StalkError) {
        let words = text.split(separator: " ")
        var values: [Substring: String] = [:]
        for word in words.dropFirst() {
            let pair = word.split(separator: "=", maxSplits: 1)
            guard pair.count == 2, values.updateValue(String(pair[1]), forKey: pair[0]) == nil else {
                throw StalkError(
                    .invalidArgument,
                    "Can't read \(quoted(String(word))) in the retry policy \(quoted(text))."
                )
            }
        }
        let max = values.removeValue(forKey: "max")
        let maxAttempts = max.flatMap { Int($0) }
        guard (max == nil) == (maxAttempts == nil) else {
            throw StalkError(.invalidArgument, "Can't read max=\(max ?? "") in the retry policy \(quoted(text)).")
        }
        switch (words.first, values["interval"], values["base"], values["cap"], values.count) {
        case ("fixed", let interval?, nil, nil, 1):
            self = try .fixed(Duration(stalk: interval), maxAttempts: maxAttempts)
        case ("exponential", nil, let base?, let cap?, 2):
            self = try .exponential(base: Duration(stalk: base), cap: Duration(stalk: cap), maxAttempts: maxAttempts)
        default:
            throw StalkError(
                .invalidArgument,
                "Can't read the retry policy \(quoted(text)): write for instance \"fixed interval=30s max=5\" "
                    + "or \"exponential base=1s cap=1h max=25\"."
            )
        }
    }
}

extension Message {
    /// A retry policy for this message alone, carried in the header ``RetryPolicy/headerName``; it overrides the worker's.
    public var retryPolicy: RetryPolicy? {
        get { self.headers[RetryPolicy.headerName].flatMap { try? RetryPolicy(text: $0) } }
        set { self.headers[RetryPolicy.headerName] = newValue?.description }
    }
}
