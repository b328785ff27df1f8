internal import StalkCore

extension ConformanceTrial {
    func expiredLeaseComesAgain() async throws {
        try await self.collector.wake()
        try await self.collector.publish(Message("work"))
        let first = try await self.takeOne(lease: self.short)
        try await self.expectNothing("at once, although it is leased")
        try await self.pass(self.short, "its lease of \(self.short) was over")
        let second = try await self.takeOne()
        try self.expect(second.id == first.id, "\(first.id) came again as \(second.id)")
        try self.expect(second.attempt == 2, "the second delivery was attempt \(second.attempt)")
        try self.expect(second.receipt != first.receipt, "both deliveries have the receipt \(first.receipt)")
    }

    func staleReceiptIsRefused() async throws {
        try await self.collector.wake()
        try await self.collector.publish(Message("work"))
        let first = try await self.takeOne(lease: self.short)
        try await self.harness.advance(by: self.short + self.timing.tolerance)
        let second = try await self.takeOne()
        let dispositions: [Disposition] = [
            .acknowledge, .retry(after: .zero, reason: "late"), .deadLetter(reason: "late"), .release,
        ]
        for disposition in dispositions {
            try await self.expectRefusal(.staleReceipt, of: "\(disposition) with the receipt of an expired lease") {
                try await self.collector.finish(first, disposition)
            }
        }
        if self.capabilities.leaseExtension {
            try await self.expectRefusal(.staleReceipt, of: "an extension with the receipt of an expired lease") {
                try await self.collector.extend(first, lease: self.long)
            }
        }
        try await self.expectNothing("although its second lease runs")
        try await self.collector.acknowledge(second)
    }

    func finishedReceiptIsStale() async throws {
        try await self.collector.wake()
        try await self.collector.publish(Message("work"))
        let first = try await self.takeOne()
        try await self.collector.finish(first, .retry(after: .zero, reason: "once more"))
        try await self.expectRefusal(.staleReceipt, of: "an acknowledge after a retry with the same receipt") {
            try await self.collector.acknowledge(first)
        }
        let second = try await self.takeOne()
        try await self.collector.acknowledge(second)
        try await self.expectRefusal(.staleReceipt, of: "a retry after an acknowledge with the same receipt") {
            try await self.collector.finish(second, .retry(after: .zero, reason: "too late"))
        }
        try await self.expectNothing("after it was acknowledged")
    }

    func secondAcknowledgeIsHarmless() async throws {
        try await self.collector.wake()
        try await self.publish("one", "two")
        let deliveries = try await self.take(2)
        try await self.collector.acknowledge(deliveries[0])
        do {
            try await self.collector.acknowledge(deliveries[0])
        } catch {
            throw self.failure("the second acknowledge with the same receipt was refused: \(error)")
        }
        try await self.collector.acknowledge(deliveries[1])
        try await self.expectNothing("after it was acknowledged")
    }

    func foreignReceiptIsRefused() async throws {
        let other = try await self.harness.makeCollector()
        let result: Result<Void, any Error>
        do {
            result = .success(try await self.foreignReceiptIsRefused(of: other))
        } catch {
            result = .failure(error)
        }
        try await self.harness.finishUp(other)
        try result.get()
    }

    private func foreignReceiptIsRefused(of other: Harness.Subject) async throws {
        try await self.collector.wake()
        try await other.wake()
        try await self.collector.publish(Message("ours"))
        try await other.publish(Message("theirs"))
        let ours = try await self.takeOne()
        let request = TakeRequest(max: 1, wait: self.timing.patience, lease: self.long)
        let taken = try await self.withPatience("the other queue's message did not come") {
            try await other.take(request)
        }
        guard let theirs = taken.first else { throw self.failure("the other queue's message did not come") }
        try await self.expectRefusal(.foreignReceipt, of: "an acknowledge with another queue's receipt") {
            try await self.collector.acknowledge(theirs)
        }
        if self.capabilities.leaseExtension {
            try await self.expectRefusal(.foreignReceipt, of: "an extension with another queue's receipt") {
                try await self.collector.extend(theirs, lease: self.long)
            }
        }
        try await self.collector.acknowledge(ours)
        try await other.acknowledge(theirs)
    }

    func extensionKeepsLease() async throws {
        try self.applies(self.capabilities.leaseExtension, otherwise: "it can't extend leases")
        try await self.collector.wake()
        try await self.collector.publish(Message("long work"))
        let first = try await self.takeOne(lease: self.short)
        try await self.harness.advance(by: self.timing.unit)
        try await self.collector.extend(first, lease: self.short)
        // The first lease would have ended one unit from here; the extended one ends two units from here.
        try await self.pass(self.short, "its extended lease was over")
        let second = try await self.takeOne()
        try self.expect(second.attempt == 2, "the delivery after the extended lease was attempt \(second.attempt)")
        try await self.collector.extend(second, lease: self.long)
        try await self.collector.acknowledge(second)
    }

    func extensionOutOfRangeIsRefused() async throws {
        try self.applies(self.capabilities.leaseExtension, otherwise: "it can't extend leases")
        try await self.collector.wake()
        try await self.collector.publish(Message("work"))
        let delivery = try await self.takeOne()
        for lease in [.zero, .seconds(-1), self.capabilities.maxLease + .milliseconds(1)] {
            try await self.expectRefusal(.invalidArgument, of: "an extension by \(lease)") {
                try await self.collector.extend(delivery, lease: lease)
            }
        }
        try await self.expectNothing("although its lease runs")
        try await self.collector.acknowledge(delivery)
    }

    func missingExtensionIsRefused() async throws {
        try self.applies(!self.capabilities.leaseExtension, otherwise: "it can extend leases")
        try await self.collector.wake()
        try await self.collector.publish(Message("work"))
        let delivery = try await self.takeOne()
        try await self.expectRefusal(.unsupported, of: "an extension") {
            try await self.collector.extend(delivery, lease: self.long)
        }
        try await self.collector.acknowledge(delivery)
    }
}
