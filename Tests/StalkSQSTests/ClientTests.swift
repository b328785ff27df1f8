import StalkCore
import StalkTesting
import Synchronization
import Testing

@testable import StalkSQS

/// Gives one scripted answer after the other and remembers what was asked.
final class ScriptedTransport: Transport {
    typealias Step = @Sendable (HTTPCall) throws -> HTTPAnswer

    private let steps: Mutex<[Step]>
    private let asked = Mutex<[HTTPCall]>([])

    init(_ steps: [Step]) {
        self.steps = Mutex(steps)
    }

    var calls: [HTTPCall] { self.asked.withLock { $0 } }

    func send(_ call: HTTPCall) async throws -> HTTPAnswer {
        self.asked.withLock { $0.append(call) }
        let step = self.steps.withLock { $0.isEmpty ? nil : $0.removeFirst() }
        guard let step else { throw TransportFailure.notSent("the script is over") }
        return try step(call)
    }

    func close() async {}

    static func answer(_ status: Int, _ body: String, _ headers: [String: String] = [:]) -> Step {
        { _ in HTTPAnswer(status: status, headers: headers, body: Array(body.utf8)) }
    }

    static func failure(_ failure: TransportFailure) -> Step { { _ in throw failure } }
}

@Suite struct RetryTests {
    @Test func threeTriesWithGrowingWaits() {
        var budget = RetryBudget()
        var generator = SeededGenerator(seed: 1)
        for _ in 0..<200 {
            budget = RetryBudget()
            var retry = RetryState(maxAttempts: 3, isLongPoll: false)
            for cap in [50, 100] {
                guard case .retry(let delay) = retry.failed(.transient, &budget, using: &generator) else {
                    Issue.record("no retry")
                    return
                }
                #expect(delay >= .zero && delay <= .milliseconds(cap))
            }
            #expect(retry.failed(.transient, &budget, using: &generator) == .giveUp(after: .zero))
            #expect(budget.tokens == RetryBudget.capacity - 28)
        }
    }

    @Test func throttlingWaitsLongerAndHeedsTheService() {
        var budget = RetryBudget()
        var generator = SeededGenerator(seed: 2)
        for (asked, most, least) in [(nil, 1.0, 0.0), (.seconds(3), 4, 3), (.seconds(60), 6, 5)] as [(Duration?, _, _)]
        {
            var retry = RetryState(maxAttempts: 3, isLongPoll: false)
            guard case .retry(let delay) = retry.failed(.throttle(after: asked), &budget, using: &generator) else {
                Issue.record("no retry")
                return
            }
            #expect(delay <= .seconds(most) && delay >= .seconds(least), "\(delay)")
        }
        #expect(budget.tokens == RetryBudget.capacity - 15)
    }

    @Test func anEmptyBucketStopsRetriesAndSlowsPolls() {
        var budget = RetryBudget()
        var generator = SeededGenerator(seed: 3)
        while budget.take(14) {}
        var call = RetryState(maxAttempts: 3, isLongPoll: false)
        #expect(call.failed(.transient, &budget, using: &generator) == .giveUp(after: .zero))
        var poll = RetryState(maxAttempts: 3, isLongPoll: true)
        guard case .giveUp(let delay) = poll.failed(.transient, &budget, using: &generator) else {
            Issue.record("the poll was tried again")
            return
        }
        #expect(delay > .zero)
        for _ in 0..<1000 { budget.put(nil) }
        #expect(budget.tokens == RetryBudget.capacity)
    }
}

@Suite struct SettingsTests {
    private func settings(
        _ queue: String,
        _ configuration: SQSConfiguration = SQSConfiguration(),
        _ variables: [String: String] = [:],
        config: String = ""
    ) throws -> Settings {
        try Settings(
            queue: queue,
            configuration: configuration,
            profiles: Profiles(config: ProfileFile(config)),
            surroundings: FakeWorld(variables).surroundings
        )
    }

    @Test func regions() throws {
        let variables = ["AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "us-east-2"]
        #expect(try self.settings("q", SQSConfiguration(region: "ap-south-1"), variables).region == "ap-south-1")
        #expect(try self.settings("q", SQSConfiguration(), variables).region == "eu-north-1")
        let url = "https://sqs.eu-west-3.amazonaws.com/1/q"
        let byURL = try self.settings(url, SQSConfiguration(), variables)
        #expect(byURL.region == "eu-west-3")
        #expect(byURL.queueURL == url)
        #expect(byURL.queueName == "q")
        #expect(byURL.endpoint.description == "https://sqs.eu-west-3.amazonaws.com/")
        #expect(try self.settings("q", config: "[default]\nregion = sa-east-1").region == "sa-east-1")
        #expect(throws: StalkError.self) { try self.settings("q") }
        #expect(try self.settings("http://127.0.0.1:99/1/q").endpoint.description == "http://127.0.0.1:99/")
    }

    @Test func endpoints() throws {
        let config = """
            [default]
            services = local
            endpoint_url = http://general:1
            [services local]
            sqs =
              endpoint_url = http://own:1
            """
        let variables = [
            "AWS_ENDPOINT_URL_SQS": "http://a:1", "AWS_ENDPOINT_URL": "http://b:1", "AWS_ENDPOINT": "http://c:1",
        ]
        func host(_ configuration: SQSConfiguration, _ names: [String]) throws -> String {
            try self.settings("q", configuration, variables.filter { names.contains($0.key) }, config: config).endpoint
                .host
        }
        #expect(try host(SQSConfiguration(endpoint: "http://me:1"), Array(variables.keys)) == "me")
        #expect(try host(SQSConfiguration(), Array(variables.keys)) == "a")
        #expect(try host(SQSConfiguration(), ["AWS_ENDPOINT_URL", "AWS_ENDPOINT"]) == "b")
        #expect(try host(SQSConfiguration(), ["AWS_ENDPOINT"]) == "c")
        #expect(try host(SQSConfiguration(), []) == "own")
        let ignoring = ["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true", "AWS_REGION": "eu-west-1"]
        let settings = try self.settings("q", SQSConfiguration(), ignoring, config: config)
        #expect(settings.endpoint.host == "sqs.eu-west-1.amazonaws.com")
    }
}

@Suite struct ClientTests {
    private static let skewed = """
        {"__type":"InvalidSignatureException","message":"Signature expired: 1 is now earlier than 2"}
        """

    private func client(_ steps: [ScriptedTransport.Step]) throws -> (SQSClient, ScriptedTransport, Atomic64) {
        let transport = ScriptedTransport(steps)
        let loads = Atomic64()
        let settings = try Settings(
            queue: "q",
            configuration: SQSConfiguration(region: "eu-west-1"),
            profiles: Profiles(),
            surroundings: FakeWorld().surroundings
        )
        let credentials = CredentialCache(now: { Timestamp(millisecondsSince1970: 0) }) {
            Credentials(accessKeyID: "KEY\(loads.increment())", secretAccessKey: "s")
        }
        let client = SQSClient(
            settings: settings,
            transport: transport,
            credentials: credentials,
            callTimeout: .seconds(5),
            clock: ElapsedClock(ContinuousClock()),
            wallTime: { Timestamp(millisecondsSince1970: 1_440_938_160_000) }
        )
        return (client, transport, loads)
    }

    @Test func transientFailuresAreTriedAgain() async throws {
        let (client, transport, _) = try self.client([
            ScriptedTransport.answer(500, "<html>oops</html>"), ScriptedTransport.failure(.ambiguous("reset")),
            ScriptedTransport.answer(200, #"{"ok":true}"#),
        ])
        #expect(try await client.call(.receiveMessage, [], queue: "q")["ok"] == .bool(true))
        let headers = transport.calls.map { call in
            Dictionary(uniqueKeysWithValues: call.headers.map { ($0.name, $0.value) })
        }
        #expect(headers.map { $0["Amz-Sdk-Request"] } == ["attempt=1; max=3", "attempt=2; max=3", "attempt=3; max=3"])
        #expect(Set(headers.map { $0["Amz-Sdk-Invocation-Id"] }).count == 1)
        #expect(client.requests == [.receiveMessage: 3])
    }

    @Test func permanentOnesAreNot() async throws {
        let (client, transport, _) = try self.client([ScriptedTransport.answer(400, #"{"__type":"AccessDenied"}"#)])
        let error = try await #require(throws: StalkError.self) { try await client.call(.getQueueURL, [], queue: "q") }
        #expect(error.code == .permissionDenied)
        #expect(error.message.contains("sqs:GetQueueUrl") && error.message.contains("\"q\""))
        #expect(transport.calls.count == 1)
    }

    @Test func expiredCredentialsAreRenewedOnce() async throws {
        let expired = ScriptedTransport.answer(403, #"{"__type":"ExpiredToken"}"#)
        let (client, _, loads) = try self.client([expired, ScriptedTransport.answer(200, "{}")])
        _ = try await client.call(.receiveMessage, [], queue: "q")
        #expect(loads.value == 2)
        let (other, transport, _) = try self.client([expired, expired, expired])
        await #expect(throws: StalkError.self) { try await other.call(.receiveMessage, [], queue: "q") }
        #expect(transport.calls.count == 2)
    }

    @Test func theServersClockIsTaken() async throws {
        let (client, transport, _) = try self.client([
            ScriptedTransport.answer(403, Self.skewed, ["date": "Sun, 30 Aug 2015 13:06:00 GMT"]),
            ScriptedTransport.answer(200, "{}"), ScriptedTransport.answer(200, "{}"),
        ])
        for _ in 0..<2 { _ = try await client.call(.receiveMessage, [], queue: "q") }
        let dates = transport.calls.map { call in call.headers.first { $0.name == "X-Amz-Date" }?.value }
        #expect(dates == ["20150830T123600Z", "20150830T130600Z", "20150830T130600Z"])
        #expect(client.serverClock.offset == .seconds(1800))
    }

    @Test func aDoubtOutlivesTheNextTries() async throws {
        let steps = [TransportFailure.ambiguous("reset"), .notSent("refused"), .notSent("refused")]
        let (client, _, _) = try self.client(steps.map { ScriptedTransport.failure($0) })
        let error = try await #require(throws: StalkError.self) {
            try await client.call(.sendMessageBatch, [], queue: "q")
        }
        #expect(error.code == .interrupted)
        // Asking twice does no harm.
        let (other, _, _) = try self.client(steps.map { ScriptedTransport.failure($0) })
        let harmless = try await #require(throws: StalkError.self) {
            try await other.call(.receiveMessage, [], queue: "q")
        }
        #expect(harmless.code == .unavailable)
    }

    @Test func whatWasNotSentIsToldFromWhatIsInDoubt() async throws {
        for (failure, isDoubt) in [(TransportFailure.notSent("refused"), false), (.ambiguous("reset"), true)] {
            let steps = (0..<3).map { _ in ScriptedTransport.failure(failure) }
            let (client, _, _) = try self.client(steps)
            let error = try await #require(throws: StalkError.self) {
                try await client.call(.sendMessageBatch, [], queue: "q")
            }
            #expect(error.code == (isDoubt ? .interrupted : .unavailable))
            #expect(error.message.contains("may have arrived") == isDoubt, "\(error.message)")
        }
    }
}

/// A counter that tests share.
final class Atomic64: Sendable {
    private let count = Atomic(0)
    @discardableResult func increment() -> Int { self.count.add(1, ordering: .relaxed).newValue }
    var value: Int { self.count.load(ordering: .relaxed) }
}
