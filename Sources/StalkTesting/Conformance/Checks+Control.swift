internal import StalkCore

extension ConformanceTrial {
    private func expectAsleep(_ isAsleep: Bool, _ when: String, file: String = #fileID, line: Int = #line) async throws
    {
        let status = try await self.collector.status
        try self.expect(
            status.isAsleep == isAsleep,
            "the collector says that it \(status.isAsleep ? "sleeps" : "is awake") \(when)",
            file: file,
            line: line
        )
    }

    func startsAsleep() async throws {
        try await self.expectAsleep(true, "when it is made")
        try await self.collector.publish(Message("early"))
        try await self.expectNothing("although the collector sleeps")
        try await self.collector.wake()
        try await self.expectAsleep(false, "after wake")
        let delivery = try await self.takeOne()
        try self.expect(delivery.text == "early", "\(delivery.text) came")
    }

    func sleepAndWakeAreIdempotent() async throws {
        for _ in 0..<2 {
            for _ in 0..<2 {
                let status = try await self.collector.wake()
                try self.expect(!status.isAsleep, "wake answers that the collector sleeps")
            }
            try await self.collector.publish(Message("work"))
            try await self.collector.acknowledge(try await self.takeOne())
            for _ in 0..<2 {
                let status = try await self.collector.sleep()
                try self.expect(status.isAsleep, "sleep answers that the collector is awake")
            }
            try await self.collector.publish(Message("night"))
            try await self.expectNothing("although the collector sleeps")
            try await self.collector.wake()
            try await self.collector.acknowledge(try await self.takeOne())
        }
    }

    func sleepLeavesDeliveriesAlone() async throws {
        try await self.collector.wake()
        try await self.publish("one", "two")
        let deliveries = try await self.take(2)
        try await self.collector.sleep()
        if self.capabilities.leaseExtension { try await self.collector.extend(deliveries[0], lease: self.long) }
        try await self.collector.acknowledge(deliveries[0])
        try await self.collector.finish(deliveries[1], .retry(after: .zero, reason: "again"))
        try await self.expectNothing("although the collector sleeps")
        try await self.collector.wake()
        let second = try await self.takeOne()
        try self.expect(second.id == deliveries[1].id, "\(second.text) came, not \(deliveries[1].text)")
        try self.expect(second.attempt == 2, "the second delivery was attempt \(second.attempt)")
    }

    func wakingReachesWaitingTake() async throws {
        try await self.collector.publish(Message("early"))
        let taken = try await self.whileTakeWaits { try await self.collector.wake() }
        try self.expect(taken.map(\.text) == ["early"], "the waiting take got \(taken.map(\.text))")
    }

    func scaleLimitsDeliveries() async throws {
        try await self.collector.wake()
        let status = try await self.collector.scale(to: 2)
        try self.expect(status.maxInFlight == 2, "scaled to 2, the limit is \(String(describing: status.maxInFlight))")
        try await self.publish("one", "two", "three", "four")
        let first = try await self.takeNow()
        try self.expect(first.count <= 2, "scaled to 2, one take got \(first.count)")
        let held = first + (try await self.take(2 - first.count))
        try await self.expectNothing("although 2 of 2 are unfinished")
        try await self.collector.acknowledge(held[0])
        let third = try await self.takeOne()
        try await self.expectNothing("although 2 of 2 are unfinished again")
        try await self.collector.scale(to: 1)
        try await self.collector.acknowledge(third)
        try await self.expectNothing("although 1 of 1 is unfinished")
        try await self.collector.acknowledge(held[1])
        _ = try await self.takeOne()
    }

    func scaleZeroDeliversNothing() async throws {
        try await self.collector.wake()
        try await self.publish("one", "two")
        let running = try await self.takeOne()
        try await self.collector.scale(to: 0)
        try await self.expectNothing("although the collector is scaled to 0")
        try await self.collector.acknowledge(running)
        try await self.expectNothing("although the collector is scaled to 0")
        try await self.expectAsleep(false, "after it was scaled to 0")
        let taken = try await self.whileTakeWaits { try await self.collector.scale(to: 1) }
        try self.expect(taken.count == 1, "a waiting take got \(taken.count) when the collector was scaled up")
    }

    func scaleNeverWakes() async throws {
        try await self.collector.publish(Message("early"))
        let status = try await self.collector.scale(to: 5)
        try self.expect(status.isAsleep, "scale answers that the collector is awake")
        try await self.expectAsleep(true, "after scale")
        try await self.expectNothing("although the collector sleeps")
    }

    func negativeScaleIsRefused() async throws {
        try await self.collector.wake()
        try await self.collector.scale(to: 1)
        try await self.expectRefusal(.invalidArgument, of: "a scale of -1") { try await self.collector.scale(to: -1) }
        let status = try await self.collector.status
        try self.expect(
            status.maxInFlight == 1,
            "a refused scale left the limit \(String(describing: status.maxInFlight))"
        )
    }

    func statusCountsDeliveries() async throws {
        try await self.collector.wake()
        try await self.publish("one", "two")
        try await self.expectInFlight(0, "before the first take")
        let deliveries = try await self.take(2)
        try await self.expectInFlight(2, "after 2 were taken")
        try await self.collector.acknowledge(deliveries[0])
        try await self.expectInFlight(1, "after 1 of 2 was acknowledged")
        try await self.collector.finish(deliveries[1], .retry(after: .zero, reason: "again"))
        try await self.expectInFlight(0, "after the other was retried")
    }

    private func expectInFlight(_ count: Int, _ when: String, file: String = #fileID, line: Int = #line) async throws {
        let inFlight = try await self.collector.status.inFlight
        try self.expect(inFlight == count, "\(inFlight) deliveries are unfinished \(when)", file: file, line: line)
    }
}
