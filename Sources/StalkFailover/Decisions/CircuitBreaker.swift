// Whether a destination is asked at all: closed while it answers, open while it does not, half-open for one try.

internal import StalkCore

/// The circuit breaker of one destination.
///
/// Failures of the way there open it after a few in a row; a refusal of the whole queue opens it at once and for longer.
/// When its time is over, one real batch is let through. Waits double up to a cap, with full jitter.
struct CircuitBreaker: Sendable {
    /// Whether something may be sent now.
    enum Permission: Hashable {
        case all
        /// One batch, as a trial.
        case trial
        /// Nothing; `until` is when that changes by itself.
        case nothing(until: Duration?)
    }

    private enum State: Hashable {
        case closed(failures: Int)
        case open(until: Duration)
        case halfOpen
    }

    let options: ForwardingOptions
    private var state = State.closed(failures: 0)
    /// How often it opened without a success in between.
    private var openings = 0
    /// Whether what opened it last was a refusal of the queue.
    private(set) var isRefused = false

    init(options: ForwardingOptions) {
        self.options = options
    }

    /// As users see it.
    var phase: BreakerPhase {
        switch self.state {
        case .closed: .closed
        case .open: .open
        case .halfOpen: .halfOpen
        }
    }

    /// When the next trial may begin; `nil` unless it is open.
    var openUntil: Duration? {
        if case .open(let until) = self.state { until } else { nil }
    }

    func permission(now: Duration) -> Permission {
        switch self.state {
        case .closed: .all
        case .open(let until) where now >= until: .trial
        case .open(let until): .nothing(until: until)
        case .halfOpen: .nothing(until: nil)
        }
    }

    /// The one batch of the trial is on its way.
    mutating func beginTrial() {
        self.state = .halfOpen
    }

    /// The destination answered, whatever it said of single messages.
    mutating func succeeded() {
        self.state = .closed(failures: 0)
        self.openings = 0
        self.isRefused = false
    }

    /// The destination could not be reached.
    mutating func failed(now: Duration, using generator: inout some RandomNumberGenerator) {
        switch self.state {
        case .closed(let failures) where failures + 1 < self.options.failuresToOpen:
            self.state = .closed(failures: failures + 1)
        case .closed, .halfOpen:
            self.isRefused = false
            self.open(now: now, self.backoff(using: &generator))
        case .open:
            // A batch that was on its way before it opened says nothing new.
            break
        }
    }

    /// The destination refuses everything.
    mutating func refused(now: Duration, using generator: inout some RandomNumberGenerator) {
        if case .open = self.state, self.isRefused { return }
        self.isRefused = true
        let longest = self.options.refusedInterval.wholeMillisecondsRoundedUp
        self.open(now: now, .milliseconds(Int64.random(in: longest / 2...longest, using: &generator)))
    }

    private mutating func open(now: Duration, _ wait: Duration) {
        self.openings += 1
        self.state = .open(until: now + wait)
    }

    private func backoff(using generator: inout some RandomNumberGenerator) -> Duration {
        let cap = self.options.maxBackoff.wholeMillisecondsRoundedUp
        let base = self.options.minBackoff.wholeMillisecondsRoundedUp
        let grown = base.multipliedReportingOverflow(by: 1 << Int64(min(self.openings, 30)))
        let longest = grown.overflow ? cap : min(grown.partialValue, cap)
        return .milliseconds(Int64.random(in: 0...max(longest, 0), using: &generator))
    }
}
