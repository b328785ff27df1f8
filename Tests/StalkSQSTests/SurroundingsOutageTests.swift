// Outages that are not of the network between a spool and a real SQS server: names, certificates, keys and clocks.
//
// The collector lives on through them. Its way out is a switch of the tests: a transport that sends requests to another
// place while an outage lasts, over real sockets, and surroundings whose agents and clock are told what to do.

import Foundation
import StalkCore
import StalkFailover
import StalkTesting
import Testing

@testable import StalkSQS

/// What can be wrong around a server that is well.
enum SurroundingsOutage: String, CaseIterable, Sendable {
    case nameUnknown, strangeCertificate, handshakeCut
    case keyExpired, keyUnknown
    case containerAgentDown, instanceServiceDown, tokenServiceDown
    case clockJumps

    /// Whether it keeps a collector from having credentials.
    var isOfItsKeys: Bool {
        switch self {
        case .keyUnknown, .containerAgentDown, .instanceServiceDown, .tokenServiceDown: true
        default: false
        }
    }

    /// Whether it can be known that nothing was sent in it, so that nothing may be in doubt.
    ///
    /// Where a connection is reset, be it an idle one or one that is being made, that can't be told.
    var sendsNothing: Bool {
        switch self {
        case .handshakeCut, .keyExpired, .clockJumps: false
        default: true
        }
    }
}

/// Where requests go, who gives out keys, and what the clock shows.
private final class World: Sendable {
    private struct State {
        var place: String?
        var isAgentDown = false
        var key: Credentials
        var expiration = Timestamp(millisecondsSince1970: 0)
        var clockOffset: Int64 = 0
        var refusals: [String: Int] = [:]
    }

    private let state: Locked<State>
    private let outage: SurroundingsOutage
    private let good: Credentials

    init(_ outage: SurroundingsOutage, key: Credentials) {
        self.outage = outage
        self.good = key
        self.state = Locked(State(key: key))
    }

    /// Sends requests elsewhere; `nil` for where they belong.
    func redirect(to place: String?) { self.state.withLock { $0.place = place } }
    func stopAgent(_ isDown: Bool) { self.state.withLock { $0.isAgentDown = isDown } }
    func shiftClock(minutes: Int64) { self.state.withLock { $0.clockOffset = minutes * 60_000 } }

    /// Whether the key that is given out is one that the server knows.
    func giveOut(known: Bool) {
        let stranger = Credentials(accessKeyID: "AKIAUNKNOWNTOALL0000", secretAccessKey: "s")
        self.state.withLock { $0.key = known ? self.good : stranger }
    }

    /// How often the server refused a request with a word in its answer.
    func refusals(_ word: String) -> Int {
        self.state.withLock { $0.refusals.filter { $0.key.contains(word) }.reduce(0) { $0 + $1.value } }
    }

    /// Returns once what was given out last holds no more.
    func keysHaveExpired() async throws {
        while self.now <= self.state.withLock({ $0.expiration }) {
            try await ContinuousClock().sleep(for: .milliseconds(20))
        }
    }

    private var now: Timestamp {
        let offset = self.state.withLock { $0.clockOffset }
        return Timestamp(millisecondsSince1970: Timestamp.system().millisecondsSince1970 + offset)
    }

    /// Requests on their way to another place, if there is one now.
    struct Switch: Transport {
        let world: World
        let base = HTTPTransport()

        func send(_ call: HTTPCall) async throws -> HTTPAnswer {
            var call = call
            if let place = self.world.state.withLock({ $0.place }) { call.url = place }
            let answer = try await self.base.send(call)
            if answer.status != 200 {
                let text = String(decoding: answer.body, as: UTF8.self)
                self.world.state.withLock { $0.refusals[text, default: 0] += 1 }
            }
            return answer
        }

        func close() async { await self.base.close() }
    }

    var surroundings: Surroundings {
        let variables: [String: String] =
            switch self.outage {
            case .keyUnknown, .containerAgentDown:
                ["AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/keys"]
            case .tokenServiceDown:
                ["AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"]
            default: [:]
            }
        return Surroundings(
            variable: { variables[$0] },
            readFile: { $0 == "/token" ? Array("token".utf8) : nil },
            fetch: { try self.answer($0) },
            run: { _ in throw StalkError(.permissionDenied, "there is no such program.") },
            now: { self.now }
        )
    }

    /// What the agents of a container and of a machine, and the token service, say.
    private func answer(_ fetch: HTTPFetch) throws -> (status: Int, body: [UInt8]) {
        let soon = Timestamp(millisecondsSince1970: (self.now.millisecondsSince1970 + 1500) / 1000 * 1000)
        let (key, isDown) = self.state.withLock { state in
            if !state.isAgentDown { state.expiration = soon }
            return (state.key, state.isAgentDown)
        }
        guard !isDown else {
            // Away altogether, or there and of no use.
            let isThere = self.outage != .instanceServiceDown && Bool.random()
            guard isThere else { throw TransportFailure.notSent("nobody is there") }
            return (503, Array("busy".utf8))
        }
        if fetch.method == "PUT" { return (200, Array("token".utf8)) }
        if fetch.url.hasSuffix("/security-credentials/") { return (200, Array("role".utf8)) }
        if fetch.method == "POST" {
            let answer =
                "<R><AccessKeyId>\(key.accessKeyID)</AccessKeyId><SecretAccessKey>\(key.secretAccessKey)"
                + "</SecretAccessKey><Expiration>\(soon)</Expiration></R>"
            return (200, Array(answer.utf8))
        }
        let members: [String: JSON] = [
            "AccessKeyId": .string(key.accessKeyID), "SecretAccessKey": .string(key.secretAccessKey),
            "Expiration": .string("\(soon)"),
        ]
        return (200, JSON.object(members).written)
    }
}

extension FailoverTests {
    @Test(
        .enabled(if: RealServer.present.contains(.ministack), "no MiniStack: see tools/lib/requirements.sh"),
        .timeLimit(.minutes(30))
    )
    func outagesAroundARealServerLoseNothing() async throws {
        let server = try RealServer(.ministack)
        defer { server.stop() }
        // One that any client must refuse: it shows a certificate that nobody signed.
        let stranger = try await FakeHTTPServer(FakeSQS(), isSecure: true)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for outage in SurroundingsOutage.allCases {
                for queue in ["\(outage)", "\(outage).fifo"] {
                    group.addTask { try await self.endure(outage, queue, server, stranger) }
                }
            }
            try await group.waitForAll()
        }
        await stranger.stop()
    }

    private func endure(
        _ outage: SurroundingsOutage,
        _ queue: String,
        _ server: RealServer,
        _ stranger: FakeHTTPServer
    ) async throws {
        try await server.createQueue(queue, queue.hasSuffix(".fifo") ? ["FifoQueue": "true"] : [:])
        let fault = SharedFault(.none)
        let upstream = try #require(try Endpoint(server.configuration.endpoint ?? "").port)
        let proxy = try await FaultProxy(to: upstream) { _ in fault.value }
        let cutter = try await FaultProxy(to: upstream) { _ in .resetAfterRequest(bytes: 0) }
        var configuration = self.configuration(server, proxy)
        let world = World(outage, key: try #require(configuration.credentials))
        if outage.isOfItsKeys { configuration.credentials = nil }
        let settings = configuration
        let remote = try await self.patiently {
            try await SQSCollector.open(
                queue,
                configuration: settings,
                transport: World.Switch(world: world),
                surroundings: world.surroundings,
                clock: ElapsedClock(ContinuousClock())
            )
        }
        let counters = try await self.count(queue, server, remote) { number in
            switch outage {
            case .nameUnknown: world.redirect(to: "http://sqs.stalk.invalid:\(upstream)/")
            case .strangeCertificate: world.redirect(to: "https://127.0.0.1:\(stranger.port)/")
            case .handshakeCut: world.redirect(to: "https://127.0.0.1:\(cutter.port)/")
            case .keyExpired:
                fault.value = .answer(status: 400, body: #"{"__type":"ExpiredTokenException","message":"old"}"#)
                proxy.hangUp()
            case .keyUnknown:
                world.giveOut(known: false)
                try await world.keysHaveExpired()
            case .containerAgentDown, .instanceServiceDown, .tokenServiceDown:
                world.stopAgent(true)
                try await world.keysHaveExpired()
            case .clockJumps:
                // The clock goes wrong while nobody answers: the server is the first to say so afterwards.
                world.shiftClock(minutes: number % 2 == 0 ? 20 : -20)
                await proxy.refuse()
                proxy.hangUp()
            }
        } ends: { _ in
            switch outage {
            case .nameUnknown, .strangeCertificate, .handshakeCut: world.redirect(to: nil)
            case .keyUnknown: world.giveOut(known: true)
            case .containerAgentDown, .instanceServiceDown, .tokenServiceDown: world.stopAgent(false)
            case .keyExpired:
                fault.value = .none
                proxy.hangUp()
            case .clockJumps: try await proxy.listen()
            }
        }
        if outage.sendsNothing { #expect(counters.ambiguous == 0, "\(queue)") }
        // The server said what was wrong, in each outage: else this was another one than its name says.
        switch outage {
        case .keyExpired: #expect(world.refusals("ExpiredToken") >= Self.count, "\(queue)")
        case .keyUnknown: #expect(world.refusals("InvalidClientTokenId") >= Self.count, "\(queue)")
        case .clockJumps: #expect(world.refusals("Signature") >= Self.count, "\(queue)")
        default: break
        }
        await cutter.stop()
        await proxy.stop()
    }
}
