import Foundation
import StalkCore
import StalkTesting
import StalkWorker
import Testing

@testable import StalkSQS

/// Real sockets between the collector and the server in memory.
@Suite(.timeLimit(.minutes(2))) struct NetworkTests {
    private static func configuration(port: Int) -> SQSConfiguration {
        SQSConfiguration(
            region: "eu-west-1",
            endpoint: "http://127.0.0.1:\(port)",
            credentials: Credentials(accessKeyID: "AKID", secretAccessKey: "s"),
            errorQueue: "errors"
        )
    }

    private func withServer(
        _ fault: @escaping @Sendable (Int) -> FaultProxy.Fault,
        _ body: (FakeSQS, SQSConfiguration) async throws -> Void
    ) async throws {
        let fake = FakeSQS()
        fake.createQueue("q")
        fake.createQueue("errors")
        let server = try await FakeHTTPServer(fake)
        let proxy = try await FaultProxy(to: server.port, fault: fault)
        try await body(fake, Self.configuration(port: proxy.port))
        await proxy.stop()
        await server.stop()
    }

    @Test func aRefusedConnectionIsToldAtOnce() async throws {
        // A port that was just given up has nobody behind it.
        let fake = try await FakeHTTPServer(FakeSQS())
        await fake.stop()
        let clock = ContinuousClock()
        let begun = clock.now
        let error = try await #require(throws: StalkError.self) {
            try await SQSCollector.open("q", configuration: Self.configuration(port: fake.port))
        }
        #expect(error.code == .unavailable)
        #expect(error.message.contains("connection refused"), "\(error.message)")
        // The HTTP client alone would try for ten seconds; a busy machine takes some of its own.
        #expect(clock.now - begun < .seconds(8))
    }

    @Test(arguments: [
        FaultProxy.Fault.resetAfterRequest(bytes: 10), .cutAnswer(bytes: 0), .cutAnswer(bytes: 40),
        .swallowAnswer(after: 0, holdFor: .milliseconds(50)), .dripAnswer(bytes: 7, pause: .milliseconds(1)),
    ])
    func aBrokenConnectionIsTriedAgain(fault: FaultProxy.Fault) async throws {
        // Every second connection breaks.
        try await self.withServer({ $0 % 2 == 1 ? fault : .none }) { fake, configuration in
            let collector = try await SQSCollector.open("q", configuration: configuration)
            try await collector.publish(Message("x"))
            try await collector.wake()
            // What a broken poll had in its hands hides until its lease is over.
            let request = TakeRequest(wait: .seconds(20), lease: .seconds(2))
            let delivery = try #require(try await collector.take(request).first)
            try await collector.acknowledge(delivery)
            await collector.close()
            #expect(fake.messages("q").allSatisfy { $0.body == "x" })
        }
    }

    @Test func aNameThatNobodyKnowsIsTold() async throws {
        var configuration = Self.configuration(port: 80)
        configuration.endpoint = "http://sqs.stalk.invalid"
        let error = try await #require(throws: StalkError.self) {
            try await SQSCollector.open("q", configuration: configuration)
        }
        #expect(error.code == .unavailable)
        #expect(error.message.contains("sqs.stalk.invalid"), "\(error.message)")
        #expect(error.message.contains("resolved"), "\(error.message)")
    }

    /// One server speaks no TLS, one hangs up in the handshake, and one shows a certificate that nobody signed: nothing
    /// is sent to any of them.
    @Test(arguments: ["no TLS", "hangs up", "strange certificate"])
    func whoCannotBeTrustedGetsNothing(server kind: String) async throws {
        let fake = FakeSQS()
        fake.createQueue("q")
        let server = try await FakeHTTPServer(fake, isSecure: kind == "strange certificate")
        let proxy = try await FaultProxy(to: server.port) { _ in
            kind == "hangs up" ? .resetAfterRequest(bytes: 0) : .none
        }
        var configuration = Self.configuration(port: proxy.port)
        configuration.endpoint = "https://127.0.0.1:\(proxy.port)"
        let error = try await #require(throws: StalkError.self) {
            try await SQSCollector.open("q", configuration: configuration)
        }
        #expect(error.code == .unavailable, "\(error.message)")
        if kind != "hangs up" { #expect(error.message.contains("no secure connection"), "\(error.message)") }
        #expect(fake.requestCount == 0)
        await proxy.stop()
        await server.stop()
    }

    @Test func aBlackHoleEndsWithTheDeadline() async throws {
        try await self.withServer({ _ in .blackHole }) { _, configuration in
            var configuration = configuration
            configuration.callTimeout = .seconds(2)
            let clock = ContinuousClock()
            let begun = clock.now
            let error = try await #require(throws: StalkError.self) {
                try await SQSCollector.open("q", configuration: configuration)
            }
            #expect(error.code == .unavailable)
            // Without the deadline it would be three tries of ten seconds.
            #expect(clock.now - begun < .seconds(9))
        }
    }

    /// The server has handed out a message, and its answer is on the way, when the collector is closed.
    @Test func whatIsOnItsWayToAClosedCollectorGoesBack() async throws {
        try await self.withServer({ _ in .stallAnswer(bytes: 0, holdFor: .milliseconds(100)) }) { fake, configuration in
            let collector = try await SQSCollector.open("q", configuration: configuration)
            try await collector.wake()
            let nothing = Task { try await collector.take(TakeRequest(wait: .seconds(20))) }
            while fake.waitingPolls == 0 { await Task.yield() }
            fake.put("q", body: "x")
            while fake.messages("q")[0].receiveCount == 0 { await Task.yield() }
            await collector.close()
            await #expect(throws: StalkError.self) { try await nothing.value }
            #expect(fake.messages("q")[0].visibleAt <= fake.clock.elapsed())
        }
    }

    @Test func longPollsHoldUpNothing() async throws {
        try await self.withServer({ _ in .none }) { fake, configuration in
            let collector = try await SQSCollector.open("q", configuration: configuration)
            try await collector.wake()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<20 {
                    group.addTask { _ = try await collector.take(TakeRequest(max: 10, wait: .seconds(20))) }
                }
                while fake.waitingPolls == 0 { await Task.yield() }
                let clock = ContinuousClock()
                let begun = clock.now
                _ = try await collector.publish((0..<100).map { Message("\($0)", delay: .seconds(60)) })
                #expect(clock.now - begun < .seconds(10))
                group.cancelAll()
                while let result = await group.nextResult() {
                    if case .failure(let error) = result { #expect(error is CancellationError) }
                }
            }
            await collector.close()
        }
    }

    /// Puts, works and dead-letters while connections are cut, stalled and reset at random.
    @Test(arguments: [1, 2] as [UInt64])
    func nothingIsLostWhileConnectionsBreak(seed: UInt64) async throws {
        try await self.withServer(FaultProxy.random(seed: seed, oneIn: 2)) { fake, configuration in
            let run = ChaosRun(configuration: configuration, queue: "q", messages: 600, concurrency: 20)
            let books = try await run()
            #expect(books.handled.count == 600)
            #expect(fake.messages("q").isEmpty)
            let dead = Set(fake.messages("errors").map(\.body))
            #expect(dead == Set((0..<600).filter { $0 % 10 == 0 }.map { "\($0)" }))
        }
    }
}

/// The same on a server of somebody else, in the number that is asked for.
@Suite struct ChaosTests {
    private static let asked = ProcessInfo.processInfo.environment["STALK_SQS_MESSAGES"].flatMap { Int($0) }
    private static let isPossible = RealServer.present.contains(.ministack) && Self.asked != nil

    @Test(.enabled(if: Self.isPossible, "runs with MiniStack and STALK_SQS_MESSAGES, for instance 100000"))
    func nothingIsLostOnMiniStack() async throws {
        let count = try #require(Self.asked)
        let server = try RealServer(.ministack)
        defer { server.stop() }
        try await server.createQueue("q")
        try await server.createQueue("errors")
        let upstream = try #require(try Endpoint(server.configuration.endpoint ?? "").port)
        let proxy = try await FaultProxy(to: upstream, fault: FaultProxy.random(seed: 42, oneIn: 4))
        var configuration = server.configuration
        configuration.endpoint = "http://127.0.0.1:\(proxy.port)"
        configuration.errorQueue = "errors"
        let clock = ContinuousClock()
        let begun = clock.now
        let run = ChaosRun(configuration: configuration, queue: "q", messages: count, concurrency: 200, window: 3000)
        let (handled, counters) = try await run()
        await proxy.stop()
        print("\(count) messages in \(clock.now - begun), \(handled.duplicates) came twice: \(counters)")
        #expect(handled.count == count)
        configuration = server.configuration
        configuration.prefetch = 0
        let errors = try await SQSCollector.open("errors", configuration: configuration)
        try await errors.wake()
        var dead: Set<String> = []
        while true {
            let deliveries = try await errors.take(TakeRequest(max: 1000, wait: .seconds(2)))
            if deliveries.isEmpty { break }
            dead.formUnion(deliveries.map(\.text))
            try await errors.finish(deliveries.map { Completion($0.receipt, .acknowledge) })
        }
        await errors.close()
        #expect(dead == Set((0..<count).filter { $0 % 10 == 0 }.map { "\($0)" }))
    }
}

/// Messages on their way through a queue, with books of what came of each.
struct ChaosRun: Sendable {
    var configuration: SQSConfiguration
    var queue: String
    var messages: Int
    var concurrency: Int
    /// How far the publisher may run ahead: some servers search their whole backlog for each poll.
    var window = 500

    /// Publishes, and works until every message was handled; every tenth one goes to the error queue.
    func callAsFunction() async throws -> (handled: Seen, counters: SQSCollector.Counters) {
        let collector = try await self.patiently {
            try await SQSCollector.open(self.queue, configuration: self.configuration)
        }
        let (handled, published) = (Seen(), Atomic64())
        let worker = Worker(
            collector: collector,
            options: WorkerOptions(
                concurrency: self.concurrency,
                lease: .seconds(5),
                pollWait: .seconds(2),
                backoff: WorkerBackoff(from: .milliseconds(20), cap: .milliseconds(200))
            ),
            until: {
                while handled.count < self.messages { try await ContinuousClock().sleep(for: .milliseconds(50)) }
                // What came twice is worked off as well.
                try await self.patiently { try await collector.drained() }
            },
            handler: { delivery in
                handled.insert(delivery.text)
                guard (Int(delivery.text) ?? 0) % 10 != 0 else { throw DeadLetter("a tenth fails") }
                return .acknowledge
            }
        )
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await worker.run() }
            group.addTask {
                for start in stride(from: 0, to: self.messages, by: 100) {
                    while start - handled.count > self.window {
                        try await ContinuousClock().sleep(for: .milliseconds(5))
                    }
                    try await self.publish(start..<min(start + 100, self.messages), with: collector)
                    published.increment()
                }
            }
            try await group.waitForAll()
        }
        let counters = collector.counters
        await collector.close()
        return (handled, counters)
    }

    /// Publishes until each message is safe; what is in doubt is published again.
    private func publish(_ numbers: Range<Int>, with collector: SQSCollector) async throws {
        var open = Array(numbers)
        while !open.isEmpty {
            let results = try await collector.publish(open.map { Message("\($0)") })
            open = zip(open, results).filter { (try? $0.1.get()) == nil }.map(\.0)
        }
    }

    private func patiently<Value: Sendable>(_ body: @Sendable () async throws -> Value) async throws -> Value {
        while true {
            do {
                return try await body()
            } catch let error as StalkError where error.code == .unavailable {
                try await ContinuousClock().sleep(for: .milliseconds(50))
            }
        }
    }
}
