// What a worker says: constant sentences, never above info, never a body.

internal import Logging
internal import StalkCore

extension WorkerLogEntry {
    private static func about(
        _ delivery: DeliveryFacts,
        _ level: Level,
        _ message: String,
        _ more: [String: String] = [:]
    ) -> WorkerLogEntry {
        let facts = ["id": delivery.id.rawValue, "attempt": "\(delivery.attempt)"]
        return WorkerLogEntry(level, message, facts.merging(more) { $1 })
    }

    static func backendWentAway(_ error: StalkError) -> WorkerLogEntry {
        WorkerLogEntry(.info, "The backend can't be used now; the worker keeps trying", ["error": "\(error)"])
    }

    static var backendReturned: WorkerLogEntry { WorkerLogEntry(.info, "The backend can be used again") }

    static func unreadablePolicy(of id: MessageID, _ error: StalkError) -> WorkerLogEntry {
        WorkerLogEntry(
            .info,
            "The message's retry policy can't be read; the worker's holds",
            ["id": id.rawValue, "error": "\(error)"]
        )
    }

    static func shortenedDelays(_ policy: RetryPolicy, _ longest: Duration) -> WorkerLogEntry {
        WorkerLogEntry(
            .info,
            "The retry policy waits longer than the collector can; its waits are cut",
            ["policy": "\(policy)", "longest": longest.stalkText]
        )
    }

    static func attemptsUsedUp(_ delivery: DeliveryFacts) -> WorkerLogEntry {
        .about(delivery, .info, "The message was delivered too often without an outcome; it is not run again")
    }

    static func timedOut(_ delivery: DeliveryFacts) -> WorkerLogEntry {
        .about(delivery, .info, "The handler ran out of time and is cancelled")
    }

    static func stopGraceIsOver(_ count: Int) -> WorkerLogEntry {
        WorkerLogEntry(
            .info,
            "The time to stop is over; what still runs is cancelled and given back",
            ["count": "\(count)"]
        )
    }

    static func lostLease(_ delivery: DeliveryFacts) -> WorkerLogEntry {
        .about(delivery, .info, "The lease is lost; the handler is cancelled and the message may run elsewhere")
    }

    static func ignoresCancellation(_ delivery: DeliveryFacts) -> WorkerLogEntry {
        .about(delivery, .info, "The handler ignores its cancellation; the worker goes on without it")
    }

    static func abandonedHandlerEnded(_ delivery: DeliveryFacts) -> WorkerLogEntry {
        .about(delivery, .info, "The handler that ignored its cancellation has ended")
    }

    static func outcomeCameLate(_ delivery: DeliveryFacts) -> WorkerLogEntry {
        .about(delivery, .info, "The lease was over before the outcome was stored; the message may come again")
    }

    static func outcomeRefused(_ delivery: DeliveryFacts, _ error: StalkError) -> WorkerLogEntry {
        .about(
            delivery,
            .info,
            "The collector can't keep this outcome; the message fails instead",
            ["error": "\(error)"]
        )
    }

    static func outcomeLost(_ delivery: DeliveryFacts, _ error: StalkError) -> WorkerLogEntry {
        .about(delivery, .info, "The outcome could not be stored; the message comes again", ["error": "\(error)"])
    }

    /// What a failed delivery leads to; nothing for the others.
    static func failure(_ disposition: Disposition, _ delivery: DeliveryFacts) -> WorkerLogEntry? {
        switch disposition {
        case .retry(let delay, let reason):
            .about(
                delivery,
                .debug,
                "The message failed and comes again",
                ["after": delay.stalkText, "reason": reason]
            )
        case .deadLetter(let reason):
            .about(delivery, .info, "The message failed for good", ["reason": reason])
        case .acknowledge, .acknowledgeAndPublish, .release:
            nil
        }
    }

    /// Writes the entry.
    func log(to logger: Logger, queue: QueueName) {
        var metadata = Logger.Metadata(uniqueKeysWithValues: self.metadata.map { ($0.key, .string($0.value)) })
        metadata["queue"] = .string(queue.rawValue)
        logger.log(level: self.level == .info ? .info : .debug, "\(self.message)", metadata: metadata)
    }
}
