import StalkCore
import StalkJSON
import StalkTesting
import StalkWorker
import Testing

/// Typed payloads: what fits reaches the handler, what does not goes to the error queue with the reason.
@Suite(.timeLimit(.minutes(10))) struct JSONTests {
    struct Job: Codable, Hashable, Sendable {
        struct Address: Codable, Hashable, Sendable { var street: String }
        var name: String
        var count: Int
        var addresses: [Address] = []
    }

    @Test func payloadsComeAsTheyWere() async throws {
        let clock = ManualClock()
        let collector = InMemoryCollector(queue: try QueueName("jobs"), clock: clock)
        let jobs = (0..<10).map { Job(name: "job \($0)", count: $0, addresses: [.init(street: "Ä/\"\($0)")]) }
        for job in jobs { try await collector.publish(Message(json: job)) }
        let seen = Locked<[Job]>([])
        let worker = Worker(
            decoding: Job.self,
            from: collector,
            clock: clock,
            until: { try await collector.drained() },
            handler: { job, delivery in
                #expect(delivery.headers["content-type"] == "application/json")
                seen.withLock { $0.append(job) }
            }
        )
        try await worker.run()
        #expect(seen.withLock { $0 } == jobs)
    }

    @Test(arguments: [
        ("", "it is not JSON"), ("{", "it is not JSON"), ("\u{FFFD}", "it is not JSON"),
        (#"{"count":1,"addresses":[]}"#, "name is missing"),
        (#"{"name":"a","count":"one","addresses":[]}"#, "count is no Int"),
        (#"{"name":"a","count":null,"addresses":[]}"#, "count is null instead of Int"),
        (#"{"name":"a","count":1,"addresses":[{"street":1}]}"#, "addresses.[0].street is no String"),
        ("[]", "the whole is no"), ("[[[[[[[[[[", "it is not JSON"),
    ])
    func whatDoesNotFitIsDeadWithTheReason(body: String, reason: String) async throws {
        let clock = ManualClock()
        let collector = InMemoryCollector(queue: try QueueName("jobs"), clock: clock)
        try await collector.publish(Message(body))
        let worker = Worker(
            decoding: Job.self,
            from: collector,
            clock: clock,
            until: { try await collector.drained() },
            handler: { _, _ in Issue.record("the handler ran") }
        )
        try await worker.run()
        #expect(collector.deadLetters.count == 1)
        let found = collector.deadLetters.first?.reason ?? ""
        #expect(found.hasPrefix("the body is no Job: \(reason)"), "\(found)")
        #expect(worker.counters.deadLettered == 1)
    }

    @Test func bytesThatAreNoTextAreDeadToo() throws {
        let delivery = Delivery(
            id: MessageID("1"),
            queue: try QueueName("jobs"),
            body: [0xFF, 0xFE, 0x00, 0x22],
            headers: [:],
            attempt: 1,
            publishedAt: Timestamp(millisecondsSince1970: 0),
            receipt: Receipt("1")
        )
        #expect(throws: DeadLetter.self) { try delivery.decode(Job.self) }
    }

    @Test func whatJSONCannotHoldIsRefused() throws {
        let error = #expect(throws: StalkError.self) { try Message(json: [Double.infinity]) }
        #expect(error?.code == .invalidArgument)
        #expect(try Message(json: ["a": 1], headers: ["content-type": "text/x"]).headers["Content-Type"] == "text/x")
    }
}
