import StalkCore
import StalkTesting
import Synchronization
import Testing

@testable import StalkSQS

/// What goes wrong between a collector and SQS, one thing at a time, with exact books.
@Suite(.timeLimit(.minutes(10))) struct FaultTests {
    private static let html = "<html><body>503 Service Unavailable</body></html>"
    private static let xml = "<ErrorResponse><Error><Code>InternalError</Code></Error></ErrorResponse>"

    private func open(_ configure: (inout SQSConfiguration) -> Void = { _ in }) async throws -> (FakeSQS, SQSCollector)
    {
        let server = FakeSQS()
        server.createQueue("q")
        server.createQueue("errors")
        var configuration = SQSConfiguration.test
        configure(&configuration)
        let collector = try await server.open("q", configuration)
        try await collector.wake()
        return (server, collector)
    }

    private func take(
        _ collector: SQSCollector,
        _ count: Int,
        lease: Duration = .seconds(30)
    ) async throws -> [Delivery] {
        var taken: [Delivery] = []
        while taken.count < count {
            let more = try await collector.take(TakeRequest(max: count - taken.count, wait: .seconds(5), lease: lease))
            try #require(!more.isEmpty, "\(count - taken.count) of \(count) did not come")
            taken += more
        }
        return taken
    }

    @Test(arguments: [
        FakeFault.answer(500, Self.html), .answer(503, Self.xml), .answer(502, ""), .notSent,
        .answer(400, #"{"__type":"RequestThrottled"}"#, headers: ["x-amz-retry-after": "5"]),
        .answer(403, #"{"__type":"ExpiredToken"}"#), .garbled("{\"half"), .lost,
    ])
    func aFaultOfOneRequestLosesNothing(fault: FakeFault) async throws {
        let (server, collector) = try await self.open()
        for operation in [
            Operation.sendMessageBatch, .receiveMessage, .changeMessageVisibilityBatch, .deleteMessageBatch,
        ] { server.fail(operation, fault) }
        try await collector.publish(Message("work"))
        let isDone =
            switch fault {
            case .lost, .garbled: true;
            default: false
            }
        // Only a send whose answer was lost makes a second copy; a poll's messages hide until their lease is over.
        #expect(server.messages("q").count == (isDone ? 2 : 1))
        let delivery = try await self.take(collector, 1, lease: .seconds(2))[0]
        try await collector.extend(delivery, lease: .seconds(60))
        try await collector.acknowledge(delivery)
        #expect(server.messages("q").count == (isDone ? 1 : 0))
        await collector.close()
    }

    @Test func entriesThatFailOnTheServersSideAreSentAgain() async throws {
        let (server, collector) = try await self.open()
        server.fail(.sendMessageBatch, .failEntries([1, 3], senderFault: false, code: "InternalError"))
        let results = try await collector.publish((0..<5).map { Message("\($0)") })
        #expect(results.allSatisfy { (try? $0.get()) != nil })
        #expect(server.messages("q").map(\.body).sorted() == ["0", "1", "2", "3", "4"])
        #expect(server.requests(.sendMessageBatch).map { $0["Entries"]?.elements.count } == [5, 2])
        await collector.close()
    }

    @Test func entriesOfTheSendersFaultAreNot() async throws {
        let (server, collector) = try await self.open()
        server.fail(.sendMessageBatch, .failEntries([1], senderFault: true, code: "InvalidMessageContents"))
        let results = try await collector.publish((0..<3).map { Message("\($0)") })
        #expect(results.map { (try? $0.get()) != nil } == [true, false, true])
        #expect(server.requests(.sendMessageBatch).count == 1)
        await collector.close()
    }

    @Test func anEntryInNeitherListIsInDoubt() async throws {
        let (server, collector) = try await self.open()
        server.fail(.sendMessageBatch, .omitEntry(1), .unknownEntry)
        let results = try await collector.publish((0..<3).map { Message("\($0)") })
        #expect(results.allSatisfy { (try? $0.get()) != nil })
        // It was done both times: a copy is the price of not losing it.
        #expect(server.messages("q").map(\.body).sorted() == ["0", "1", "1", "2"])
        server.fail(.sendMessageBatch, .omitEntry(0), .omitEntry(0), .omitEntry(0))
        let error = try await #require(throws: StalkError.self) { try await collector.publish(Message("x")) }
        #expect(error.code == .interrupted)
        await collector.close()
    }

    @Test func aBatchThatIsRefusedForOneEntryIsSentOneByOne() async throws {
        let (server, collector) = try await self.open()
        server.fail(.sendMessageBatch, .answer(400, #"{"__type":"InvalidParameterValue","message":"one is bad"}"#))
        let results = try await collector.publish((0..<3).map { Message("\($0)") })
        #expect(results.allSatisfy { (try? $0.get()) != nil })
        #expect(server.requests(.sendMessageBatch).map { $0["Entries"]?.elements.count } == [3, 1, 1, 1])
        await collector.close()
    }

    @Test func wrongSumsAreSeen() async throws {
        let (server, collector) = try await self.open()
        server.fail(.sendMessageBatch, .wrongSum)
        let error = try await #require(throws: StalkError.self) { try await collector.publish(Message("x")) }
        #expect(error.message.contains("something else"))
        server.fail(.receiveMessage, .wrongSum)
        // What came damaged is never handed out; it comes again whole when its lease is over.
        let taken = try await collector.take(TakeRequest(max: 1, wait: .seconds(4), lease: .seconds(1)))
        #expect(taken.map(\.attempt) == [2])
        await collector.close()
    }

    @Test func aDuplicateTakesThePlaceOfWhatItRepeats() async throws {
        let (server, collector) = try await self.open()
        try await collector.publish(Message("x"))
        server.fail(.receiveMessage, .duplicate)
        let first = try await self.take(collector, 1)[0]
        let second = try await self.take(collector, 1)[0]
        #expect(first.id == second.id && second.attempt == 2)
        let error = try await #require(throws: StalkError.self) { try await collector.acknowledge(first) }
        #expect(error.code == .staleReceipt)
        try await collector.acknowledge(second)
        #expect(server.messages("q").isEmpty)
        #expect(try await collector.status.inFlight == 0)
        await collector.close()
    }

    @Test func anyOrderIsTheOrderOfAStandardQueue() async throws {
        let (server, collector) = try await self.open()
        server.shuffle(seed: 5)
        _ = try await collector.publish((0..<300).map { Message("\($0)") })
        var seen: [String] = []
        while seen.count < 300 {
            let deliveries = try await self.take(collector, 10)
            seen += deliveries.map(\.text)
            let results = try await collector.finish(deliveries.map { Completion($0.receipt, .acknowledge) })
            for result in results { try result.get() }
        }
        #expect(Set(seen).count == 300 && seen != seen.sorted())
        #expect(server.messages("q").isEmpty)
        await collector.close()
    }

    /// A call of thirty is three requests: what follows the one that failed must not arrive before its next try.
    @Test(arguments: [FakeFault.notSent, .lost, .answer(503, Self.html)])
    func nothingOvertakesWhatFailedInAFifoQueue(fault: FakeFault) async throws {
        let server = FakeSQS()
        server.createQueue("q.fifo", ["FifoQueue": "true"])
        server.fail(.sendMessageBatch, fault)
        var configuration = SQSConfiguration(region: "eu-west-1", linger: .zero)
        configuration.maxAttempts = 1
        let collector = try await server.open("q.fifo", configuration)
        let messages = (0..<30).map { Message("\($0)", headers: ["Stalk-Deduplication-Id": "id-\($0)"]) }
        let failed = try await collector.publish(messages).map { (try? $0.get()) == nil }
        #expect(!failed.contains(false), "\(failed)")
        for result in try await collector.publish(messages) { _ = try result.get() }
        #expect(server.messages("q.fifo").map(\.body) == (0..<30).map(String.init))
        await collector.close()
    }

    @Test func deadLettersAreDeletedOnlyWhenTheyAreSafe() async throws {
        let (server, collector) = try await self.open()
        try await collector.publish(Message("poison", headers: ["Colour": "red"]))
        let delivery = try await self.take(collector, 1)[0]
        server.fail(.sendMessageBatch, .answer(400, #"{"__type":"AccessDenied"}"#))
        let error = try await #require(throws: StalkError.self) {
            try await collector.finish(delivery, .deadLetter(reason: "no use"))
        }
        #expect(error.code == .permissionDenied)
        #expect(server.messages("q").count == 1)
        #expect(server.requests(.deleteMessageBatch).isEmpty)
        try await collector.finish(delivery, .deadLetter(reason: "no use"))
        #expect(server.messages("q").isEmpty)
        let dead = try #require(server.messages("errors").first)
        #expect(dead.body == "poison")
        #expect(dead.attributes?["Stalk-Reason"]?["StringValue"]?.text == "no use")
        #expect(dead.attributes?["Colour"]?["StringValue"]?.text == "red")
        await collector.close()
    }

    @Test func theRedrivePolicyNamesTheErrorQueue() async throws {
        let server = FakeSQS()
        server.createQueue(
            "q",
            ["RedrivePolicy": #"{"deadLetterTargetArn":"arn:aws:sqs:eu-west-1:1:dlq","maxReceiveCount":3}"#]
        )
        server.createQueue("dlq")
        let collector = try await server.open("q", SQSConfiguration(region: "eu-west-1", linger: .zero))
        #expect(collector.hasErrorQueue)
        server.createQueue("plain")
        let plain = try await server.open("plain", SQSConfiguration(region: "eu-west-1", linger: .zero))
        try await plain.wake()
        try await plain.publish(Message("x"))
        let delivery = try await self.take(plain, 1)[0]
        let error = try await #require(throws: StalkError.self) {
            try await plain.finish(delivery, .deadLetter(reason: "no"))
        }
        #expect(error.code == .unsupported)
        #expect(server.messages("plain").count == 1)
    }

    @Test func aFifoQueueKeepsItsGroupsInOrder() async throws {
        let server = FakeSQS()
        server.createQueue("q.fifo", ["FifoQueue": "true"])
        let collector = try await server.open("q.fifo", SQSConfiguration(region: "eu-west-1", linger: .zero))
        #expect(collector.capabilities.maxDelay == .zero)
        try await collector.wake()
        let groups = ["a", "a", "b", "a"]
        // A lost answer makes no copy: the same deduplication ids go out again.
        server.fail(.sendMessageBatch, .lost)
        _ = try await collector.publish(
            groups.enumerated().map { Message("\($0.offset)", headers: ["Stalk-Group": $0.element]) }
        )
        #expect(server.messages("q.fifo").count == 4)
        // Nor does a lost poll hide messages: the same attempt gets the same answer.
        server.fail(.receiveMessage, .lost)
        let first = try await self.take(collector, 2)
        #expect(first.map(\.text) == ["0", "2"])
        #expect(try await collector.take(TakeRequest(max: 5)).isEmpty)
        try await collector.finish(first[0], .retry(after: .zero, reason: "again"))
        let again = try await self.take(collector, 1)[0]
        #expect(again.text == "0" && again.attempt == 2)
        for expected in ["1", "3"] {
            if expected == "1" { try await collector.acknowledge(again) }
            let next = try await self.take(collector, 1)[0]
            #expect(next.text == expected)
            try await collector.acknowledge(next)
        }
        try await collector.acknowledge(first[1])
        #expect(server.messages("q.fifo").isEmpty)
        await collector.close()
    }

    @Test func sleepGivesBackWhatWasReceivedAhead() async throws {
        let (server, collector) = try await self.open()
        _ = try await collector.publish((0..<10).map { Message("\($0)") })
        let taken = try await self.take(collector, 1)
        let now = { server.clock.elapsed() }
        #expect(server.messages("q").count { $0.visibleAt > now() } == 10)
        try await collector.sleep()
        // A poll that was under way may bring them once more, and gives them back as well.
        while server.messages("q").count(where: { $0.visibleAt > now() }) > 1 { await Task.yield() }
        #expect(server.messages("q").count { $0.visibleAt > now() } == 1)
        #expect(try await collector.status.inFlight == 1)
        try await collector.acknowledge(taken[0])
        try await collector.wake()
        #expect(try await self.take(collector, 9).count == 9)
        await collector.close()
    }

    @Test func whatIsHeldStaysHeld() async throws {
        let clock = ManualClock()
        let server = FakeSQS(clock: clock)
        server.createQueue("q")
        let collector = try await server.open("q", SQSConfiguration(region: "eu-west-1", linger: .zero))
        try await collector.wake()
        _ = try await collector.publish((0..<10).map { Message("\($0)") })
        let taken = try await collector.take(TakeRequest(max: 1, wait: .zero, lease: .seconds(30)))
        #expect(taken.count == 1)
        // Prefetched for five minutes, while somebody waits for room: none comes a second time.
        for _ in 0..<60 {
            clock.advance(by: .seconds(5))
            // Whatever else the machine does: the heartbeat has its turn before the next five seconds are over.
            let next = server.clock.elapsed() + .seconds(5)
            while server.messages("q").contains(where: { $0.visibleAt <= next }) { await Task.yield() }
            let more = try await collector.take(TakeRequest(max: 1, wait: .zero, lease: .seconds(30)))
            for delivery in more {
                #expect(delivery.attempt == 1)
                try await collector.acknowledge(delivery)
            }
            try await collector.extend(taken[0], lease: .seconds(30))
        }
        #expect(server.messages("q").map(\.receiveCount) == [1])
        // Beyond twelve hours SQS keeps nothing for anybody.
        for _ in 0..<(12 * 120) {
            clock.advance(by: .seconds(29))
            _ = try await collector.extend([taken[0].receipt], lease: .seconds(30))
        }
        clock.advance(by: .seconds(3600))
        let error = try await #require(throws: StalkError.self) {
            try await collector.extend(taken[0], lease: .seconds(30))
        }
        #expect(error.code == .staleReceipt)
        await collector.close()
    }

    @Test func aQueueThatIsGoneEndsATake() async throws {
        let (server, collector) = try await self.open()
        server.fail(.receiveMessage, .answer(400, #"{"__type":"QueueDoesNotExist"}"#))
        let error = try await #require(throws: StalkError.self) {
            try await collector.take(TakeRequest(max: 1, wait: .seconds(5)))
        }
        #expect(error.code == .noSuchQueue)
        await collector.close()
        let closed = try await #require(throws: StalkError.self) { try await collector.take(TakeRequest()) }
        #expect(closed.code == .closed)
    }

    @Test func idleCostsOnePollAtATime() async throws {
        let clock = ManualClock()
        let server = FakeSQS(clock: clock)
        server.createQueue("q")
        let collector = try await server.open("q", SQSConfiguration(region: "eu-west-1", linger: .zero))
        try await collector.wake()
        async let taken = collector.take(TakeRequest(max: 100, wait: .seconds(200)))
        for poll in 1...10 {
            while server.requests(.receiveMessage).count < poll || server.waitingPolls == 0 { await Task.yield() }
            #expect(server.waitingPolls == 1)
            clock.advance(by: .seconds(20))
        }
        #expect(try await taken.isEmpty)
        #expect((10...11).contains(server.requests(.receiveMessage).count))
        await collector.close()
    }

    @Test func underLoadAMessageCostsLessThanAThirdOfARequest() async throws {
        let (server, collector) = try await self.open { $0.linger = .milliseconds(20) }
        let count = 5000
        try await withThrowingTaskGroup(of: Void.self) { group in
            for publisher in 0..<50 {
                group.addTask {
                    for number in 0..<(count / 50) { try await collector.publish(Message("\(publisher)-\(number)")) }
                }
            }
            try await group.waitForAll()
        }
        #expect(server.messages("q").count == count)
        let seen = Seen()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<60 {
                group.addTask {
                    while seen.count < count {
                        for delivery in try await collector.take(TakeRequest(max: 1, wait: .seconds(1))) {
                            try await collector.acknowledge(delivery)
                            seen.insert(delivery.text)
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(server.messages("q").isEmpty)
        let counters = collector.counters
        #expect(counters.requestsPerMessage <= 0.31, "\(counters)")
        #expect(counters.sent == count && counters.deleted == count)
        await collector.close()
    }
}

/// The texts that came so far.
final class Seen: Sendable {
    private let texts = Mutex<[String: Int]>([:])

    /// How many different ones came.
    var count: Int { self.texts.withLock { $0.count } }
    /// How many came more than once.
    var duplicates: Int { self.texts.withLock { $0.values.count { $0 > 1 } } }

    func insert(_ text: String) { self.texts.withLock { $0[text, default: 0] += 1 } }
}
