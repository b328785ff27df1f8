// How one delivery of the torture ends.

internal import StalkCore

/// A delivery and what becomes of it.
struct TortureEnding: Sendable {
    var delivery: Delivery
    var ending: TortureEvent.Ending
    var completion: Completion
    var outgoing: [TortureEvent.Outgoing] = []

    /// Chooses what becomes of a delivery: most are acknowledged.
    init(_ delivery: Delivery, of load: TortureLoad, _ random: inout TortureRandom) {
        let isError = delivery.queue.rawValue == TortureQueues.errors
        let choice = isError || delivery.attempt > 5 ? 99 : random.below(100)
        switch choice {
        case 0..<10: self.init(delivery, .retry, after: .milliseconds(random.below(60)))
        case 10..<16: self.init(delivery, .dead)
        case 16..<22: self.init(delivery, .release)
        case 22..<28:
            let outgoing = (0...random.below(2)).map { index in
                TortureEvent.Outgoing(
                    number: load.nextNumber(),
                    queue: TortureQueues.homes[(index + random.below(3)) % 3]
                )
            }
            self.init(delivery, .publish, outgoing: outgoing)
        default: self.init(delivery, .acknowledge)
        }
    }

    /// Makes the end of a delivery.
    init(
        _ delivery: Delivery,
        _ ending: TortureEvent.Ending,
        after delay: Duration = .zero,
        outgoing: [TortureEvent.Outgoing] = []
    ) {
        let number = TortureMessage.number(in: delivery.headers) ?? 0
        let reason = TortureMessage.reason(number, attempt: delivery.attempt)
        let disposition: Disposition =
            switch ending {
            case .acknowledge: .acknowledge
            case .publish:
                .acknowledgeAndPublish(
                    outgoing.map { message in
                        OutgoingMessage(TortureMessage.make(message.number), to: QueueName(stored: message.queue))
                    }
                )
            case .retry: .retry(after: delay, reason: reason)
            case .dead: .deadLetter(reason: reason)
            case .release: .release
            }
        self.delivery = delivery
        self.ending = ending
        self.completion = Completion(delivery.receipt, disposition)
        self.outgoing = outgoing
    }

    /// Whether the message leaves the backlog.
    var isEnd: Bool { [.acknowledge, .publish, .dead].contains(self.ending) }

    /// The event before the call.
    var announcement: TortureEvent { .finishing(id: self.delivery.id.rawValue, self.ending, self.outgoing) }

    /// The event after it.
    func report(_ result: Result<Void, StalkError>) -> TortureEvent {
        let id = self.delivery.id.rawValue
        return switch result {
        case .success: .finished(id: id, self.ending)
        case .failure(let error): .unfinished(id: id, self.ending, code: error.code.description)
        }
    }
}
