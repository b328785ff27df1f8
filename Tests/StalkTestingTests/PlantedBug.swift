import StalkCore
import StalkTesting

/// A mistake that a collector can make, and the check that must notice it.
struct PlantedBug: Sendable, CustomStringConvertible {
    let description: String
    let foundBy: CollectorCheck
    var isOfHumbleBackend = false
    let plant: @Sendable (inout AlteredCollector) async -> Void

    init(
        _ description: String,
        _ foundBy: CollectorCheck,
        humble: Bool = false,
        plant: @escaping @Sendable (inout AlteredCollector) async -> Void
    ) {
        self.description = description
        self.foundBy = foundBy
        self.isOfHumbleBackend = humble
        self.plant = plant
    }

    static var all: [PlantedBug] { self.publishing + self.leases + self.dispositions + self.taking + self.control }
}

extension AlteredCollector {
    /// Changes what is published before it is published.
    mutating func alterMessages(_ alter: @escaping @Sendable (inout Message) -> Void) {
        let publish = self.onPublish
        self.onPublish = { messages in
            try await publish(
                messages.map { message in
                    var message = message
                    alter(&message)
                    return message
                }
            )
        }
    }

    /// Changes what is delivered on its way out.
    mutating func alterDeliveries(_ alter: @escaping @Sendable (inout Delivery) -> Void) {
        let take = self.onTake
        self.onTake = { request in
            try await take(request).map { delivery in
                var delivery = delivery
                alter(&delivery)
                return delivery
            }
        }
    }

    /// Changes what is asked for.
    mutating func alterRequests(_ alter: @escaping @Sendable (inout TakeRequest) -> Void) {
        let take = self.onTake
        self.onTake = { request in
            var request = request
            alter(&request)
            return try await take(request)
        }
    }

    /// Changes how deliveries end.
    mutating func alterDispositions(_ alter: @escaping @Sendable (inout Disposition) -> Void) {
        let finish = self.onFinish
        self.onFinish = { completions in
            try await finish(
                completions.map { completion in
                    var completion = completion
                    alter(&completion.disposition)
                    return completion
                }
            )
        }
    }

    /// Says yes where it was no.
    mutating func acceptRefusedFinishes(of code: StalkError.Code) {
        let finish = self.onFinish
        self.onFinish = { completions in
            try await finish(completions).map { result in
                if case .failure(let error) = result, error.code == code { return .success(()) }
                return result
            }
        }
    }

    mutating func alterStatus(_ alter: @escaping @Sendable (CollectorCommand, inout CollectorStatus) -> Void) {
        let control = self.onControl
        self.onControl = { command in
            var status = try await control(command)
            alter(command, &status)
            return status
        }
    }
}

extension PlantedBug {
    static let publishing: [PlantedBug] = [
        PlantedBug("loses headers", .publishTakeAcknowledge) { $0.alterMessages { $0.headers = [:] } },
        PlantedBug("forgets to acknowledge", .publishTakeAcknowledge) { collector in
            collector.onFinish = { $0.map { _ in .success(()) } }
        },
        PlantedBug("mixes up the ids of a batch", .batchPublishesEach) { collector in
            let publish = collector.onPublish
            collector.onPublish = { try await publish($0).reversed() }
        },
        PlantedBug("refuses all for one", .badItemAloneIsRefused) { collector in
            let (publish, capabilities) = (collector.onPublish, collector.capabilities)
            collector.onPublish = { messages in
                for message in messages { try message.validate(for: capabilities) }
                return try await publish(messages)
            }
        },
        PlantedBug("stops at the first bad one", .badItemAloneIsRefused) { collector in
            let (publish, capabilities) = (collector.onPublish, collector.capabilities)
            collector.onPublish = { messages in
                let good = messages.prefix { (try? $0.validate(for: capabilities)) != nil }
                let refused = Result<MessageID, StalkError>.failure(StalkError(.invalidArgument, "refused"))
                return try await publish(Array(good)) + messages.dropFirst(good.count).map { _ in refused }
            }
        },
        PlantedBug("chokes on nothing", .emptyBatchesAreFine) { collector in
            let publish = collector.onPublish
            collector.onPublish = { messages in
                guard !messages.isEmpty else { throw StalkError(.invalidArgument, "nothing to publish") }
                return try await publish(messages)
            }
        },
        PlantedBug("clamps a batch", .oversizeBatchIsRefused) { collector in
            let (publish, limit) = (collector.onPublish, collector.capabilities.maxBatch)
            collector.onPublish = { try await publish(Array($0.prefix(limit))) }
        },
        PlantedBug("drops empty bodies", .emptyBodyIsValid) {
            $0.alterMessages { if $0.body.isEmpty { $0.body = [0x20] } }
        },
        PlantedBug("cuts the largest body", .bodyAtLimitIsValid) { collector in
            let limit = collector.capabilities.maxBodyBytes
            collector.alterMessages { if $0.body.count == limit { $0.body.removeLast() } }
        },
        PlantedBug("cuts bodies over the limit", .bodyOverLimitIsRefused) { collector in
            let limit = collector.capabilities.maxBodyBytes
            collector.alterMessages { $0.body = Array($0.body.prefix(limit)) }
        },
        PlantedBug("keeps sizes to itself", .bodyOverLimitIsRefused) { collector in
            let publish = collector.onPublish
            collector.onPublish = { messages in
                try await publish(messages).map { $0.mapError { StalkError($0.code, "too large") } }
            }
        },
        PlantedBug("takes bodies for text", .anyBytesAreABody) { collector in
            collector.alterMessages { $0.body = Array(String(decoding: $0.body, as: UTF8.self).utf8) }
        },
        PlantedBug("folds lines in headers", .anyTextIsAHeaderValue) { collector in
            collector.alterMessages { message in
                for field in message.headers {
                    message.headers[field.name] = field.value.split(whereSeparator: \.isNewline).joined(separator: " ")
                }
            }
        },
        PlantedBug("delivers a little early", .delayIsKept) { collector in
            collector.alterMessages { if $0.delay > .zero { $0.delay -= .milliseconds(1) } }
        },
        PlantedBug("delivers a little late", .delayIsKept) { collector in
            collector.alterMessages { if $0.delay > .zero { $0.delay += .milliseconds(2) } }
        },
        PlantedBug("clamps a delay", .delayOutOfRangeIsRefused) { collector in
            let longest = collector.capabilities.maxDelay
            collector.alterMessages { $0.delay = min($0.delay, longest) }
        },
        PlantedBug("takes a negative delay for none", .delayOutOfRangeIsRefused) { collector in
            collector.alterMessages { $0.delay = max($0.delay, .zero) }
        },
    ]

    static let leases: [PlantedBug] = [
        PlantedBug("ends leases early", .expiredLeaseComesAgain) { $0.alterRequests { $0.lease -= .milliseconds(1) } },
        PlantedBug("never ends leases", .expiredLeaseComesAgain) { $0.alterRequests { $0.lease *= 2 } },
        PlantedBug("does not count lost deliveries", .expiredLeaseComesAgain) { collector in
            collector.alterDeliveries { $0.attempt = 1 }
        },
        PlantedBug("says yes to stale receipts", .staleReceiptIsRefused) {
            $0.acceptRefusedFinishes(of: .staleReceipt)
        },
        PlantedBug("says no in other words", .staleReceiptIsRefused) { collector in
            let extend = collector.onExtend
            collector.onExtend = { receipts, lease in
                try await extend(receipts, lease).map { $0.mapError { StalkError(.noSuchMessage, $0.message) } }
            }
        },
        PlantedBug("finishes twice", .finishedReceiptIsStale) { $0.acceptRefusedFinishes(of: .staleReceipt) },
        PlantedBug("refuses a second acknowledge", .secondAcknowledgeIsHarmless) { collector in
            let (finish, seen) = (collector.onFinish, Remembered())
            collector.onFinish = { completions in
                guard seen.insertAll(completions.map(\.receipt)) else {
                    return completions.map { _ in .failure(StalkError(.staleReceipt, "seen before")) }
                }
                return try await finish(completions)
            }
        },
        PlantedBug("does not know its own receipts", .foreignReceiptIsRefused) { collector in
            let finish = collector.onFinish
            collector.onFinish = { completions in
                try await finish(completions).map { $0.mapError { StalkError(.staleReceipt, $0.message) } }
            }
        },
        PlantedBug("extends from the old end", .extensionKeepsLease) { collector in
            let extend = collector.onExtend
            collector.onExtend = { try await extend($0, $1 + .seconds(10)) }
        },
        PlantedBug("does not extend", .extensionKeepsLease) {
            $0.onExtend = { receipts, _ in receipts.map { _ in .success(()) } }
        },
        PlantedBug("clamps an extension", .extensionOutOfRangeIsRefused) { collector in
            let (extend, longest) = (collector.onExtend, collector.capabilities.maxLease)
            collector.onExtend = { try await extend($0, min($1, longest)) }
        },
        PlantedBug("pretends to extend", .missingExtensionIsRefused, humble: true) { collector in
            collector.onExtend = { receipts, _ in receipts.map { _ in .success(()) } }
        },
    ]
}

/// Receipts that came by.
private final class Remembered: Sendable {
    private let seen = Locked<Set<Receipt>>([])

    /// Whether all are new.
    func insertAll(_ receipts: [Receipt]) -> Bool {
        self.seen.withLock { seen in receipts.allSatisfy { seen.insert($0).inserted } }
    }
}
