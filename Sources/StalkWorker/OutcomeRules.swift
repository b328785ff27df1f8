// What becomes of a message after its handler: the rules alone, without a worker around them.

internal import StalkCore

/// How a handler ended.
enum HandlerResult: Sendable {
    case returned(Disposition)
    case threw(any Error)
}

/// What is kept of a delivery while its handler runs: the body goes to the handler alone.
struct DeliveryFacts: Hashable, Sendable {
    var id: MessageID
    var receipt: Receipt
    var attempt: Int
    var policy: RetryPolicy
}

/// How results become dispositions.
struct OutcomeRules: Sendable {
    /// The longest reason that goes into a message's history, in bytes of UTF-8.
    static let maxReasonBytes = 1024

    /// The longest delay that the collector keeps.
    var maxDelay: Duration

    /// What becomes of a message whose handler ended by itself.
    func disposition(
        for result: HandlerResult,
        of delivery: DeliveryFacts,
        using generator: inout some RandomNumberGenerator
    ) -> Disposition {
        switch result {
        case .returned(.retry(let delay, let reason)):
            self.retry(delivery, after: delay, reason)
        case .returned(.deadLetter(let reason)):
            .deadLetter(reason: Self.bounded(reason))
        case .returned(let disposition):
            disposition
        case .threw(let error as DeadLetter):
            .deadLetter(reason: Self.bounded(error.reason))
        case .threw(let error as RetryLater):
            self.retry(delivery, after: error.delay, error.reason)
        case .threw(let error):
            self.failure(of: delivery, String(describing: error), using: &generator)
        }
    }

    /// What becomes of a message that failed without saying when to come again: by its policy.
    func failure(
        of delivery: DeliveryFacts,
        _ reason: String,
        using generator: inout some RandomNumberGenerator
    ) -> Disposition {
        let delay = delivery.policy.delay(afterAttempt: delivery.attempt, using: &generator)
        return self.retry(delivery, after: min(delay, self.maxDelay), reason)
    }

    /// Why a delivery must not run at all, since every attempt that it had is used up already.
    func reasonAgainstRunning(_ delivery: DeliveryFacts) -> String? {
        guard let maxAttempts = delivery.policy.maxAttempts, delivery.attempt > maxAttempts else { return nil }
        return "attempt \(delivery.attempt) of at most \(maxAttempts): "
            + "the worker of each attempt before died or lost its lease"
    }

    private func retry(_ delivery: DeliveryFacts, after delay: Duration, _ reason: String) -> Disposition {
        let reason = Self.bounded(reason)
        guard delivery.policy.allowsRetry(afterAttempt: delivery.attempt) else { return .deadLetter(reason: reason) }
        return .retry(after: delay, reason: reason)
    }

    /// Cuts a reason between two characters, so that it stays text.
    static func bounded(_ reason: String) -> String {
        guard reason.utf8.count > Self.maxReasonBytes else { return reason }
        let ellipsis = "…"
        var end = reason.startIndex
        var bytes = ellipsis.utf8.count
        while end < reason.endIndex {
            let next = reason.index(after: end)
            bytes += reason[end..<next].utf8.count
            if bytes > Self.maxReasonBytes { break }
            end = next
        }
        return reason[..<end] + ellipsis
    }
}

/// A small generator of jitter that is a value, so that a state machine with a given seed always decides alike.
///
/// SplitMix64 after Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014).
struct SplitMix64: RandomNumberGenerator, Sendable {
    private var state: UInt64

    init(seed: UInt64) {
        self.state = seed
    }

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = self.state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
