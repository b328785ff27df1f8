// What came of the messages of a `stalk work`.

internal import StalkCore
internal import Synchronization

/// Counts outcomes.
final class WorkTally: Sendable {
    /// The counts.
    struct Counts: Hashable {
        var acknowledged = 0
        var retried = 0
        var deadLettered = 0
    }

    private let counts = Mutex(Counts())

    /// Counts one outcome.
    func count(_ outcome: CommandOutcome) {
        self.counts.withLock { counts in
            switch outcome {
            case .acknowledge: counts.acknowledged += 1
            case .retry: counts.retried += 1
            case .deadLetter: counts.deadLettered += 1
            }
        }
    }

    /// The counts so far.
    var current: Counts { self.counts.withLock { $0 } }
}

extension WorkTally.Counts {
    /// The counts as a sentence.
    var text: String {
        "\(self.acknowledged) acknowledged, \(self.retried) retried, \(self.deadLettered) dead-lettered\n"
    }

    /// The counts as JSON.
    var json: JSONValue {
        .object([
            .init("acknowledged", .number(self.acknowledged)),
            .init("retried", .number(self.retried)),
            .init("deadLettered", .number(self.deadLettered)),
        ])
    }
}
