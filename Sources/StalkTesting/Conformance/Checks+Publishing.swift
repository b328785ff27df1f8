internal import StalkCore

extension ConformanceTrial {
    /// Bodies above this size are not tried: the suite is to run beside others on a small machine.
    private var largestTriedBody: Int { 64 << 20 }

    func publishTakeAcknowledge() async throws {
        let headers: Headers = ["Colour": "green", "x-trace": "1"]
        try await self.collector.wake()
        let id = try await self.collector.publish(Message("hello", headers: headers))
        let delivery = try await self.takeOne(lease: self.short)
        try self.expect(delivery.id == id, "published as \(id), delivered as \(delivery.id)")
        try self.expect(delivery.queue == self.collector.queue, "delivered from \(delivery.queue)")
        try self.expect(delivery.body == Array("hello".utf8), "published \"hello\", delivered \(delivery.text)")
        try self.expectHeaders(headers, in: delivery)
        try self.expect(delivery.attempt == 1, "the first delivery was attempt \(delivery.attempt)")
        try await self.collector.acknowledge(delivery)
        try await self.expectNothing("after it was acknowledged")
        try await self.harness.advance(by: self.short + self.timing.tolerance)
        try await self.expectNothing("after the end of the lease that it was acknowledged under")
    }

    func expectHeaders(_ headers: Headers, in delivery: Delivery, file: String = #fileID, line: Int = #line) throws {
        for field in headers {
            let value = delivery.headers[field.name]
            try self.expect(
                value == field.value,
                "the header \(field.name) was published as \(quoted(field.value)), "
                    + "delivered as \(value.map { quoted($0) } ?? "nothing")",
                file: file,
                line: line
            )
        }
        let (count, delivered) = (headers.fields.count, delivery.headers.fields.count)
        try self.expect(count == delivered, "\(count) headers became \(delivered)", file: file, line: line)
    }

    func batchPublishesEach() async throws {
        try await self.collector.wake()
        let count = min(5, self.capabilities.maxBatch)
        let texts = (0..<count).map { "message \($0)" }
        let results = try await self.collector.publish(texts.map { Message($0) }, durability: .written)
        try self.expect(results.count == count, "\(count) messages got \(results.count) results")
        let ids = try results.map { try $0.get() }
        try self.expect(Set(ids).count == count, "the ids repeat: \(ids)")
        let deliveries = try await self.take(count)
        let expected = Dictionary(uniqueKeysWithValues: zip(ids, texts))
        for delivery in deliveries {
            let text = expected[delivery.id] ?? "nothing"
            try self.expect(delivery.text == text, "\(delivery.id) was \(text), delivered as \(delivery.text)")
        }
        try await self.expectNothing("besides the batch")
    }

    func badItemAloneIsRefused() async throws {
        try self.applies(self.capabilities.maxBatch >= 3, otherwise: "it takes no batch of three")
        try await self.collector.wake()
        let bad = Message("bad", headers: ["not a name": "x"])
        let results = try await self.collector.publish([Message("first"), bad, Message("third")])
        try self.expect(results.count == 3, "3 messages got \(results.count) results")
        _ = try results[0].get()
        try await self.expectRefusal(.invalidArgument, of: "a header with a space in its name") { try results[1].get() }
        _ = try results[2].get()
        let texts = Set(try await self.take(2).map(\.text))
        try self.expect(texts == ["first", "third"], "of first, bad, third these came: \(texts)")
        try await self.expectNothing("although it was refused")
    }

    func emptyBatchesAreFine() async throws {
        let published = try await self.collector.publish([])
        try self.expect(published.isEmpty, "an empty publish has \(published.count) results")
        let finished = try await self.collector.finish([])
        try self.expect(finished.isEmpty, "an empty finish has \(finished.count) results")
        if self.capabilities.leaseExtension {
            let extended = try await self.collector.extend([], lease: self.long)
            try self.expect(extended.isEmpty, "an empty extend has \(extended.count) results")
        }
    }

    func oversizeBatchIsRefused() async throws {
        let limit = self.capabilities.maxBatch
        try self.applies(limit <= 100_000, otherwise: "batches of \(limit) are too large to try")
        try await self.collector.wake()
        let batch = Array(repeating: Message("x"), count: limit + 1)
        try await self.expectRefusal(.invalidArgument, of: "a publish of \(limit + 1) messages") {
            for result in try await self.collector.publish(batch) { _ = try result.get() }
        }
        try await self.expectNothing("of a batch that was refused")
        try await self.collector.publish(Message("one"))
        let completion = Completion(try await self.takeOne().receipt, .acknowledge)
        try await self.expectRefusal(.invalidArgument, of: "a finish of \(limit + 1) completions") {
            let results = try await self.collector.finish(Array(repeating: completion, count: limit + 1))
            for result in results { try result.get() }
        }
    }

    func emptyBodyIsValid() async throws { try await self.expectRoundTrip([], "an empty body") }

    func anyBytesAreABody() async throws {
        try await self.expectRoundTrip(
            [0xFF, 0xFE, 0x00, 0xC3, 0x28, 0x0A, 0x0D, 0xED, 0xA0, 0x80],
            "a body that is no text"
        )
        try await self.expectRoundTrip(Array(0...255), "a body of all bytes")
    }

    func bodyAtLimitIsValid() async throws {
        let limit = self.capabilities.maxBodyBytes
        try self.applies(limit <= self.largestTriedBody, otherwise: "bodies of \(limit) bytes are too large to try")
        try await self.expectRoundTrip((0..<limit).map { UInt8(truncatingIfNeeded: $0) }, "a body of \(limit) bytes")
    }

    func bodyOverLimitIsRefused() async throws {
        let limit = self.capabilities.maxBodyBytes
        try self.applies(limit <= self.largestTriedBody, otherwise: "bodies of \(limit) bytes are too large to try")
        try await self.collector.wake()
        try await self.publish("small")
        let results = try await self.collector.publish([Message([UInt8](repeating: 0, count: limit + 1))])
        guard case .failure(let error) = results[0] else { throw self.failure("\(limit + 1) bytes were accepted") }
        try self.expect(error.code == .bodyTooLarge, "\(limit + 1) bytes were refused as \(error), not as bodyTooLarge")
        try self.expect(
            error.message.contains("\(limit)") && error.message.contains("\(limit + 1)"),
            "the refusal does not name both sizes: \(error.message)"
        )
        let delivery = try await self.takeOne()
        try self.expect(delivery.text == "small", "a body of \(delivery.body.count) bytes came")
        try await self.expectNothing("although it was refused")
    }

    private func expectRoundTrip(_ body: [UInt8], _ what: String) async throws {
        try await self.collector.wake()
        try await self.collector.publish(Message(body))
        let delivery = try await self.takeOne()
        try self.expect(
            delivery.body == body,
            "\(what) came back as \(delivery.body.count) bytes: \(delivery.body.prefix(20))"
        )
        try await self.collector.acknowledge(delivery)
    }

    func anyTextIsAHeaderValue() async throws {
        let headers: Headers = [
            "lines": "one\ntwo\r\nthree\n", "unicode": "Grüße, 世界 👋🏽 e\u{301}", "empty": "", "quotes": "\"a\\b\" \t'c'",
        ]
        try await self.collector.wake()
        try await self.collector.publish(Message("x", headers: headers))
        try self.expectHeaders(headers, in: try await self.takeOne())
    }

    func delayIsKept() async throws {
        let delay = min(self.short, self.capabilities.maxDelay)
        try self.applies(delay > self.timing.tolerance * 2, otherwise: "it keeps no delay")
        try await self.collector.wake()
        try await self.collector.publish(Message("later", delay: delay))
        try await self.expectNothing("at once, with a delay of \(delay)")
        try await self.pass(delay, "its delay of \(delay) was over")
        let delivery = try await self.takeOne()
        try self.expect(delivery.attempt == 1, "the first delivery was attempt \(delivery.attempt)")
    }

    func delayOutOfRangeIsRefused() async throws {
        try await self.collector.wake()
        let tooLong = self.capabilities.maxDelay + .milliseconds(1)
        for delay in [.milliseconds(-1), tooLong] {
            try await self.expectRefusal(.delayOutOfRange, of: "a delay of \(delay)") {
                try await self.collector.publish(Message("x", delay: delay))
            }
        }
        try await self.collector.publish(Message("longest", delay: self.capabilities.maxDelay))
        if self.capabilities.maxDelay > self.short {
            try await self.expectNothing("although it was refused or delayed")
        }
    }
}
