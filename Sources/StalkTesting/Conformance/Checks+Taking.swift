internal import StalkCore

extension ConformanceTrial {
    // MARK: Order

    func readyMessagesLeaveInOrder() async throws {
        try self.applies(self.capabilities.ordering == .firstInFirstOut, otherwise: "it promises no order")
        try await self.collector.wake()
        let texts = (0..<12).map { "message \($0)" }
        let half = min(6, self.capabilities.maxBatch)
        try await self.collector.publish(texts[..<half].map { Message($0) })
        for text in texts[half...] { try await self.collector.publish(Message(text)) }
        var seen: [String] = []
        for count in [1, 3, 1, 7] { seen += try await self.take(count).map(\.text) }
        try self.expect(seen == texts, "published in order, delivered as \(seen)")
    }

    func retriedMessageTakesPlaceByDueTime() async throws {
        try self.applies(self.capabilities.ordering == .firstInFirstOut, otherwise: "it promises no order")
        let unit = self.timing.unit
        try self.applies(self.capabilities.maxDelay >= unit * 3, otherwise: "its delays are too short to try")
        try await self.collector.wake()
        try await self.collector.publish(Message("retried"))
        try await self.collector.finish(try await self.takeOne(), .retry(after: unit * 2, reason: "later"))
        try await self.collector.publish(Message("after", delay: unit * 3))
        try await self.collector.publish(Message("before", delay: unit))
        try await self.harness.advance(by: unit * 3 + self.timing.tolerance)
        let texts = try await self.take(3).map(\.text)
        try self.expect(
            texts == ["before", "retried", "after"],
            "due in the order before, retried, after; came as \(texts)"
        )
    }

    func releasedMessageReturnsToFront() async throws {
        try self.applies(self.capabilities.ordering == .firstInFirstOut, otherwise: "it promises no order")
        try await self.collector.wake()
        try await self.publish("first", "second", "third")
        try await self.harness.advance(by: self.timing.unit)
        let taken = try await self.take(2)
        try await self.collector.finish(taken[0], .release)
        let texts = try await self.take(2).map(\.text)
        try self.expect(texts == ["first", "third"], "first was released, third was left; they came as \(texts)")
    }

    // MARK: Arguments

    func takeKeepsToMax() async throws {
        try await self.collector.wake()
        try await self.publish("one", "two", "three")
        let request = TakeRequest(max: 2, wait: self.timing.patience, lease: self.long)
        let first = try await self.withPatience("nothing came") { try await self.collector.take(request) }
        try self.expect((1...2).contains(first.count), "asked for at most 2, got \(first.count)")
        let rest = try await self.take(3 - first.count)
        try self.expect(
            Set((first + rest).map(\.id)).count == 3,
            "three messages came as \((first + rest).map(\.text))"
        )
    }

    func takeArgumentsAreChecked() async throws {
        try await self.collector.wake()
        try await self.collector.publish(Message("bait"))
        let refused = [
            TakeRequest(max: 0, lease: self.long),
            TakeRequest(max: -1, lease: self.long),
            TakeRequest(max: 1, wait: .milliseconds(-1), lease: self.long),
            TakeRequest(max: 1, lease: .zero),
            TakeRequest(max: 1, lease: .seconds(-1)),
            TakeRequest(max: 1, lease: self.capabilities.maxLease + .milliseconds(1)),
        ]
        for request in refused {
            try await self.expectRefusal(.invalidArgument, of: "\(request)") { try await self.collector.take(request) }
        }
        let delivery = try await self.takeOne()
        try self.expect(delivery.attempt == 1, "refused takes were counted as attempts: this is \(delivery.attempt)")
    }

    func takersShareWithoutDuplicates() async throws {
        try await self.collector.wake()
        let count = 40
        for number in 0..<count { try await self.collector.publish(Message("\(number)")) }
        let taken = try await self.withPatience("the takers did not come to an end") {
            try await withThrowingTaskGroup(of: [MessageID].self) { group in
                for _ in 0..<8 {
                    group.addTask {
                        var ids: [MessageID] = []
                        while true {
                            let deliveries = try await self.takeNow(max: 3)
                            if deliveries.isEmpty { return ids }
                            ids += deliveries.map(\.id)
                        }
                    }
                }
                return try await group.reduce(into: []) { $0 += $1 }
            }
        }
        try self.expect(
            Set(taken).count == taken.count,
            "\(taken.count - Set(taken).count) messages went to two takers"
        )
        // A backend may show a taker nothing while others hold everything; what is left must come now.
        let rest = try await self.take(count - taken.count).map(\.id)
        try self.expect(Set(taken + rest).count == count, "\(count) messages came as \(Set(taken + rest).count)")
    }

    // MARK: Waiting

    func waitingTakeGetsLaterMessage() async throws {
        try await self.collector.wake()
        let taken = try await self.whileTakeWaits { try await self.collector.publish(Message("news")) }
        try self.expect(taken.map(\.text) == ["news"], "the waiting take got \(taken.map(\.text))")
    }

    func waitingTakeGetsDueMessage() async throws {
        try self.applies(self.capabilities.maxDelay >= self.short, otherwise: "its delays are too short to try")
        try await self.collector.wake()
        try await self.collector.publish(Message("last", delay: min(self.short * 2, self.capabilities.maxDelay)))
        let taken = try await self.whileTakeWaits {
            // Due earlier than what the take waits for already.
            try await self.collector.publish(Message("due", delay: self.timing.unit))
            try await self.harness.advance(by: self.timing.unit + self.timing.tolerance)
        }
        try self.expect(taken.map(\.text) == ["due"], "the waiting take got \(taken.map(\.text))")
    }

    func waitingTakeGetsExpiredLease() async throws {
        try await self.collector.wake()
        try await self.collector.publish(Message("dropped"))
        _ = try await self.takeOne(lease: self.short)
        let taken = try await self.whileTakeWaits {
            try await self.harness.advance(by: self.short + self.timing.tolerance)
        }
        try self.expect(taken.map(\.attempt) == [2], "the waiting take got attempts \(taken.map(\.attempt))")
    }

    func waitRunsOut() async throws {
        try await self.collector.wake()
        let taken = try await self.whileTakeWaits(wait: self.timing.unit) {
            try await self.harness.advance(by: self.timing.unit + self.timing.tolerance)
        }
        try self.expect(taken.isEmpty, "an empty queue delivered \(taken.map(\.text))")
    }

    func cancelledTakeLosesNothing() async throws {
        try await self.collector.wake()
        let request = TakeRequest(max: 1, wait: self.long, lease: self.long)
        try await self.withPatience("the cancelled take did not return") {
            try await withThrowingTaskGroup(of: [Delivery].self) { group in
                group.addTask { try await self.collector.take(request) }
                try await self.harness.takeIsWaiting()
                group.cancelAll()
                do {
                    let taken = try await group.next() ?? []
                    throw self.failure("a cancelled take returned \(taken.count) deliveries, not CancellationError")
                } catch is CancellationError {}
            }
        }
        try await self.collector.publish(Message("after"))
        let delivery = try await self.takeOne()
        try self.expect(delivery.attempt == 1, "the cancelled take was counted: this is attempt \(delivery.attempt)")
    }
}
