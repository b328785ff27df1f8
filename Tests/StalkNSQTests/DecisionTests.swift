// What the consumer decides, without a network: RDY, back-off, leases, nodes, the handshake.

internal import StalkCore
internal import StalkTesting
internal import Testing

@testable internal import StalkNSQ

@Suite struct ReadySharesTests {
    private typealias Connection = ReadyShares.Connection

    private static func fresh(_ count: Int, max: Int = 2500) -> [Connection] {
        Array(repeating: Connection(maxReady: max, unfinished: 0, sentReady: 0), count: count)
    }

    @Test func budgetIsSharedAndCapped() {
        let shares = ReadyShares()
        #expect(shares.counts(budget: 10, connections: Self.fresh(3)) == [4, 3, 3])
        #expect(shares.counts(budget: 0, connections: Self.fresh(3)) == [0, 0, 0])
        #expect(shares.counts(budget: 9000, connections: Self.fresh(2)) == [2500, 2500])
        #expect(shares.counts(budget: 10, connections: []) == [])
        let uneven = Self.fresh(1, max: 2) + Self.fresh(2)
        #expect(shares.counts(budget: 10, connections: uneven) == [2, 4, 4])
    }

    @Test func turnMovesOnWhereConnectionsOutnumberTheBudget() {
        var shares = ReadyShares()
        var seen: Set<Int> = []
        for _ in 0..<5 {
            let counts = shares.counts(budget: 2, connections: Self.fresh(5))
            #expect(counts.reduce(0, +) == 2)
            seen.formUnion(counts.indices.filter { counts[$0] > 0 })
            #expect(ReadyShares.rotates(budget: 2, connections: Self.fresh(5)))
            shares.rotate()
        }
        #expect(seen.count == 5)
    }

    /// All messages may be on one nsqd: what it has out does not use up its part of what is free.
    @Test func busyConnectionGetsItsPartOfWhatIsFree() {
        let connections = [
            Connection(maxReady: 2500, unfinished: 2, sentReady: 2),
            Connection(maxReady: 2500, unfinished: 0, sentReady: 2),
        ]
        #expect(ReadyShares().counts(budget: 4, connections: connections) == [3, 1])
    }

    @Test func randomSharesKeepTheBudget() {
        var generator = SeededGenerator(seed: 7)
        var shares = ReadyShares()
        for _ in 0..<5000 {
            let connections = (0..<Int.random(in: 1...6, using: &generator)).map { _ in
                let most = Int.random(in: 1...20, using: &generator)
                let unfinished = Int.random(in: 0...most, using: &generator)
                return Connection(
                    maxReady: most,
                    unfinished: unfinished,
                    sentReady: Int.random(in: 0...most, using: &generator)
                )
            }
            let out = connections.reduce(0) { $0 + $1.unfinished }
            let budget = Int.random(in: 0...60, using: &generator)
            let counts = shares.counts(budget: budget, connections: connections)
            if counts.reduce(0, +) > max(budget, out) { Issue.record("\(counts) for \(budget) over \(connections)") }
            if zip(counts, connections).contains(where: { $0 > $1.maxReady }) { Issue.record("\(counts)") }
            // Nothing free is left lying: it is used up, or each connection is at its limit.
            let usesAll = counts.reduce(0, +) >= budget || zip(counts, connections).allSatisfy { $0 == $1.maxReady }
            if budget > 0, !usesAll { Issue.record("\(counts) leaves some of \(budget) over \(connections)") }
            shares.rotate()
        }
    }
}

@Suite struct BackoffTests {
    private static let options = NSQBackoff(failures: 3, base: .seconds(2), cap: .seconds(120))

    /// Fails until it pauses; returns the serial to go on with.
    private static func paused() -> Backoff {
        var backoff = Backoff(Self.options)
        for serial in 1...3 { backoff.failed(UInt64(serial), now: .zero) }
        return backoff
    }

    @Test func onePoisonMessagePausesNobody() {
        var backoff = Backoff(Self.options)
        for serial in stride(from: UInt64(1), to: 100, by: 2) {
            backoff.failed(serial, now: .zero)
            backoff.succeeded(serial + 1, now: .zero)
        }
        #expect(backoff.budget == nil && backoff.room(leased: 5) == .max)
    }

    @Test func pausesDoubleUpToTheCap() {
        var backoff = Self.paused()
        var now = Duration.zero
        var pauses: [Duration] = []
        for serial in UInt64(10)..<20 {
            #expect(backoff.budget == 0 && backoff.room(leased: 0) == 0)
            let end = backoff.pauseEnd ?? .zero
            pauses.append(end - now)
            backoff.advance(to: end - .milliseconds(1))
            #expect(backoff.pauseEnd == end)
            backoff.advance(to: end)
            now = end
            // One probe at a time, and only when everything older is over.
            #expect(backoff.budget == 1 && backoff.room(leased: 1) == 0 && backoff.room(leased: 0) == 1)
            backoff.handedOut(serial)
            #expect(backoff.room(leased: 0) == 0)
            backoff.failed(999, now: now)
            #expect(backoff.pauseEnd == nil)
            backoff.failed(serial, now: now)
        }
        #expect(pauses == [2, 4, 8, 16, 32, 64, 120, 120, 120, 120].map { .seconds($0) })
    }

    /// From the longest pause: the pause itself, 8 s and 2 s, as documented.
    @Test func recoversWithinTheDocumentedTime() {
        var backoff = Self.paused()
        var now = Duration.zero
        for serial in UInt64(10)..<30 {
            now = backoff.pauseEnd ?? now
            backoff.advance(to: now)
            backoff.handedOut(serial)
            backoff.failed(serial, now: now)
        }
        let mended = now
        var serial = UInt64(100)
        while backoff.budget != nil {
            now = backoff.pauseEnd ?? now
            backoff.advance(to: now)
            backoff.handedOut(serial)
            backoff.succeeded(serial, now: now)
            serial += 1
        }
        #expect(now - mended == .seconds(120 + 8 + 2))
        #expect(serial == 103)
    }

    @Test func probeWithoutOutcomeIsFollowedByAnother() {
        var backoff = Self.paused()
        backoff.advance(to: .seconds(2))
        backoff.handedOut(10)
        backoff.ended(10)
        #expect(backoff.room(leased: 0) == 1)
    }
}

@Suite struct ConsumerStateMachineTests {
    private static func machine(_ change: (inout NSQConfiguration) -> Void = { _ in }) throws -> ConsumerStateMachine {
        var configuration = NSQConfiguration(topic: "t", nsqds: [NSQAddress(host: "h", port: 1)])
        change(&configuration)
        var machine = ConsumerStateMachine(queue: try QueueName("t"), identity: 1, configuration: configuration)
        _ = try machine.control(.wake, now: .zero)
        return machine
    }

    private static func id(_ number: UInt64) -> ConnectionID { ConnectionID(number: number) }

    private static func message(_ number: UInt64, attempts: UInt16 = 1) -> NSQMessage {
        NSQMessage(
            timestamp: 0,
            attempts: attempts,
            key: MessageKey(high: 0, low: number),
            body: [UInt8(number & 0xFF)]
        )
    }

    private static func sent(_ actions: [ConsumerAction]) -> [NSQCommand] {
        actions.compactMap { if case .send(_, let command) = $0 { command } else { nil } }
    }

    private static func delivered(_ actions: [ConsumerAction]) -> [Delivery] {
        actions.flatMap { action -> [Delivery] in
            if case .answer(_, let deliveries) = action { deliveries } else { [] }
        }
    }

    private static func take(
        _ machine: inout ConsumerStateMachine,
        _ id: UInt64,
        max: Int = 1,
        lease: Duration = .seconds(600)
    )
        -> [ConsumerAction]
    {
        let request = TakeRequest(max: max, wait: .seconds(3600), lease: lease)
        return machine.take(id, request, deadline: .seconds(3600), now: .zero)
    }

    @Test func readyIsWhatTakersAskFor() throws {
        var machine = try Self.machine()
        #expect(Self.sent(machine.connected(Self.id(1), ServerFeatures(), now: .zero)).isEmpty)
        #expect(Self.sent(Self.take(&machine, 1, max: 1)) == [.ready(1)])
        let actions = machine.received([Self.message(1)], from: Self.id(1), now: .zero)
        #expect(Self.delivered(actions).count == 1)
        #expect(Self.sent(Self.take(&machine, 2, max: 3)) == [.ready(4)])
        #expect(Self.sent(try machine.control(.scale(2), now: .zero).actions) == [.ready(2)])
    }

    /// Asleep stays asleep, whatever connects; what was under way goes back at once.
    @Test func sleepSurvivesReconnects() throws {
        var machine = try Self.machine()
        _ = machine.connected(Self.id(1), ServerFeatures(), now: .zero)
        _ = Self.take(&machine, 1, max: 5)
        #expect(Self.sent(try machine.control(.sleep, now: .zero).actions) == [.ready(0)])
        _ = machine.disconnected(Self.id(1), now: .zero)
        #expect(Self.sent(machine.connected(Self.id(2), ServerFeatures(), now: .zero)).isEmpty)
        let late = machine.received([Self.message(1)], from: Self.id(2), now: .zero)
        #expect(Self.sent(late) == [.requeue(Self.message(1).key, milliseconds: 0)])
        #expect(Self.sent(try machine.control(.wake, now: .zero).actions) == [.ready(5)])
    }

    @Test func backoffRecoversOverReconnect() throws {
        var machine = try Self.machine { $0.backoff = NSQBackoff(failures: 1, base: .seconds(2)) }
        _ = machine.connected(Self.id(1), ServerFeatures(), now: .zero)
        _ = Self.take(&machine, 1, max: 5)
        let delivery = try #require(
            Self.delivered(machine.received([Self.message(1)], from: Self.id(1), now: .zero)).first
        )
        let retry = Completion(delivery.receipt, .retry(after: .zero, reason: "down"))
        #expect(Self.sent(try machine.finish([retry], now: .zero).actions).contains(.ready(0)))
        _ = machine.disconnected(Self.id(1), now: .seconds(1))
        #expect(Self.sent(machine.connected(Self.id(2), ServerFeatures(), now: .seconds(1))).isEmpty)
        _ = Self.take(&machine, 2, max: 5)
        #expect(machine.nextMoment.map { $0 <= .seconds(2) } == true)
        #expect(Self.sent(machine.advance(to: .seconds(2))) == [.ready(1)])
        // The probe's connection is lost as well: there is another probe.
        _ = machine.received([Self.message(2)], from: Self.id(2), now: .seconds(2))
        _ = machine.disconnected(Self.id(2), now: .seconds(2))
        _ = Self.take(&machine, 3, max: 5)
        #expect(Self.sent(machine.connected(Self.id(3), ServerFeatures(), now: .seconds(3))) == [.ready(1)])
        let probe = try #require(
            Self.delivered(machine.received([Self.message(3)], from: Self.id(3), now: .seconds(3))).first
        )
        _ = Self.take(&machine, 4, max: 5)
        let sent = Self.sent(try machine.finish([Completion(probe.receipt, .acknowledge)], now: .seconds(4)).actions)
        #expect(sent == [.finish(Self.message(3).key), .ready(5)])
    }

    /// TOUCH at half the time-out while the lease lasts, to nsqd's limit; REQ when the lease is over.
    @Test func leaseIsKeptAliveAndEnded() throws {
        var machine = try Self.machine()
        var features = ServerFeatures()
        features.maxMessageTimeout = .seconds(150)
        _ = machine.connected(Self.id(1), features, now: .zero)
        _ = Self.take(&machine, 1, lease: .seconds(100))
        let key = Self.message(1).key
        let delivery = try #require(
            Self.delivered(machine.received([Self.message(1)], from: Self.id(1), now: .zero)).first
        )
        var touches: [Duration] = []
        var now = Duration.zero
        while now < .seconds(99) {
            now += .seconds(1)
            if Self.sent(machine.advance(to: now)).contains(.touch(key)) { touches.append(now) }
        }
        #expect(touches == [.seconds(30), .seconds(60)])
        // Longer than nsqd keeps it: refused, and the lease lasts as long as can be.
        let (results, _) = try machine.extend([delivery.receipt], lease: .seconds(60), now: now)
        #expect(throws: StalkError.self) { try results[0].get() }
        #expect(machine.status.inFlight == 1)
        var requeuedAt: Duration?
        while now < .seconds(200), requeuedAt == nil {
            now += .seconds(1)
            if Self.sent(machine.advance(to: now)).contains(.requeue(key, milliseconds: 0)) { requeuedAt = now }
        }
        #expect(requeuedAt == .seconds(150))
        let (outcomes, _) = try machine.finish([Completion(delivery.receipt, .acknowledge)], now: now)
        guard case .refused(let error) = outcomes[0] else { return #expect(Bool(false), "a lost lease was finished") }
        #expect(error.code == .staleReceipt)
    }

    @Test func whatNobodyTakesGoesBack() throws {
        var machine = try Self.machine()
        _ = machine.connected(Self.id(1), ServerFeatures(), now: .zero)
        _ = Self.take(&machine, 1, max: 2)
        let cancelled = machine.cancel(1, now: .zero)
        #expect(cancelled.map(Self.sent) == [.ready(0)])
        _ = machine.received([Self.message(1)], from: Self.id(1), now: .zero)
        #expect(Self.sent(machine.advance(to: .seconds(4))).isEmpty)
        #expect(Self.sent(machine.advance(to: .seconds(5))) == [.requeue(Self.message(1).key, milliseconds: 0)])
    }

    /// RDY goes down before the FIN that makes room, or nsqd would send a message that nobody asked for.
    @Test func readyGoesDownBeforeFinish() throws {
        var machine = try Self.machine()
        _ = machine.connected(Self.id(1), ServerFeatures(), now: .zero)
        _ = Self.take(&machine, 1, max: 1)
        let delivery = try #require(
            Self.delivered(machine.received([Self.message(1)], from: Self.id(1), now: .zero)).first
        )
        let sent = Self.sent(try machine.finish([Completion(delivery.receipt, .acknowledge)], now: .zero).actions)
        #expect(sent == [.ready(0), .finish(Self.message(1).key)])
    }

    @Test func attemptsOverTheLimitGoToTheErrorTopicFirst() throws {
        var machine = try Self.machine { $0.maxAttempts = 3 }
        _ = machine.connected(Self.id(1), ServerFeatures(), now: .zero)
        _ = Self.take(&machine, 1, max: 5)
        let batch = [Self.message(1, attempts: 3), Self.message(2, attempts: 4), Self.message(3, attempts: 0)]
        let actions = machine.received(batch, from: Self.id(1), now: .zero)
        #expect(Self.delivered(actions).map(\.attempt) == [3])
        let serials = actions.compactMap { if case .deadLetter(let serial, _, _) = $0 { serial } else { nil } }
        #expect(serials.count == 2)
        // Nothing is finished before the error topic has it, and nothing is when it can't be reached.
        #expect(!Self.sent(actions).contains(.finish(Self.message(2).key)))
        let failure = Result<Void, StalkError>.failure(StalkError(.unavailable, "away"))
        #expect(Self.sent(machine.deadLettered(serials[1], failure, now: .zero).actions).isEmpty)
        let success = machine.deadLettered(serials[0], .success(()), now: .zero)
        #expect(Self.sent(success.actions).contains(.finish(Self.message(2).key)))
    }

    @Test func attemptCounterWrapsTo65536() throws {
        var machine = try Self.machine()
        _ = machine.connected(Self.id(1), ServerFeatures(), now: .zero)
        _ = Self.take(&machine, 1)
        let actions = machine.received([Self.message(1, attempts: 0)], from: Self.id(1), now: .zero)
        #expect(Self.delivered(actions).map(\.attempt) == [65_536])
    }

    @Test func closingSaysSoAndGivesBack() throws {
        var machine = try Self.machine { $0.prefetch = 1 }
        _ = machine.connected(Self.id(1), ServerFeatures(), now: .zero)
        _ = Self.take(&machine, 1)
        _ = machine.received([Self.message(1), Self.message(2)], from: Self.id(1), now: .zero)
        #expect(Self.sent(machine.startClosing()) == [.startClose, .requeue(Self.message(2).key, milliseconds: 0)])
        #expect(Self.sent(machine.close()) == [.requeue(Self.message(1).key, milliseconds: 0)])
    }
}

@Suite struct NodeBookTests {
    private static let direct = NSQAddress(host: "direct", port: 4150)
    private static let listed = NSQAddress(host: "listed", port: 4150)

    @Test func waitsGrowAndEnd() {
        var book = NodeBook(direct: [Self.direct], reconnectCap: .seconds(30))
        var generator = SeededGenerator(seed: 3)
        var (now, number) = (Duration.zero, UInt64(0))
        var longest = Duration.zero
        for _ in 0..<50 {
            let due = book.due(now: now) {
                number += 1
                return ConnectionID(number: number)
            }
            #expect(due.map(\.0) == [Self.direct])
            book.ended(ConnectionID(number: number), now: now, using: &generator)
            let wait = (book.nextMoment ?? .zero) - now
            #expect(wait >= .milliseconds(50) && wait <= .seconds(30))
            longest = max(longest, wait)
            now += wait
        }
        #expect(longest > .seconds(20))
    }

    @Test func forgottenNodeKeepsItsConnection() {
        var book = NodeBook(direct: [Self.direct], reconnectCap: .seconds(30))
        var generator = SeededGenerator(seed: 3)
        book.listed([Self.listed])
        var number = UInt64(0)
        let due = book.due(now: .zero) {
            number += 1
            return ConnectionID(number: number)
        }
        #expect(due.map(\.0) == [Self.direct, Self.listed])
        book.listed([])
        #expect(book.order == [Self.direct, Self.listed])
        book.ended(ConnectionID(number: 2), now: .zero, using: &generator)
        #expect(book.order == [Self.direct])
    }
}

@Suite struct SmallPartsTests {
    @Test func addressesAreRead() throws {
        #expect(try NSQAddress("h", defaultPort: 4150) == NSQAddress(host: "h", port: 4150))
        #expect(try NSQAddress("h:1", defaultPort: 4150) == NSQAddress(host: "h", port: 1))
        #expect(try NSQAddress("[::1]:2", defaultPort: 4150).description == "[::1]:2")
        for bad in ["", ":1", "h:", "h:x", "h:0", "h:65536", "[::1"] {
            #expect(throws: StalkError.self, "\(bad)") { try NSQAddress(bad, defaultPort: 4150) }
        }
    }

    @Test func lookupAnswersOfAllVersionsAreRead() {
        let new =
            #"{"channels":[],"producers":[{"broadcast_address":"a","tcp_port":4150,"x":[1,null,{"y":"\u00e9"}]}]}"#
        let old = #"{"status_code":200,"data":{"producers":[{"hostname":"b","tcp_port":1}]}}"#
        #expect(LookupClient.nodes(in: Array(new.utf8)) == [NSQAddress(host: "a", port: 4150)])
        #expect(LookupClient.nodes(in: Array(old.utf8)) == [NSQAddress(host: "b", port: 1)])
        for text in [
            "", "{", #"{"message":"TOPIC_NOT_FOUND"}"#, #"{"producers":[{"tcp_port":1},{"broadcast_address":"x"}]}"#,
        ] {
            #expect(LookupClient.nodes(in: Array(text.utf8)).isEmpty)
        }
    }

    @Test func jsonIsReadAndWritten() throws {
        let text = #"{"a":[1,-2.5,true,false,null],"b":"\"\\\n\u00e9\ud83d\ude00","c":{}}"#
        let value = try JSON(parsing: text.utf8)
        #expect(value["b"]?.string == "\"\\\né😀")
        #expect(value["a"]?.array?.first?.integer == 1)
        #expect(try JSON(parsing: value.text.utf8) == value)
        for bad in ["", "{", "[1,]", "{\"a\"}", "tru", "\"\\x\"", "1 2", String(repeating: "[", count: 100_000)] {
            #expect(throws: JSON.Malformed.self) { try JSON(parsing: bad.utf8) }
        }
    }

    @Test func envelopeIsReadAndOthersAreLeftAlone() {
        let envelope = Envelope(id: Envelope.makeID(), headers: ["a": "b", "c": "ü\n"], body: [0, 1, 2])
        let bytes = envelope.encoded()
        #expect(Envelope(decoding: bytes) == envelope)
        #expect(Envelope(decoding: Envelope(id: "x", headers: [:], body: []).encoded())?.body == [])
        for cut in 0..<(bytes.count - 3) { #expect(Envelope(decoding: Array(bytes[..<cut])) == nil) }
        #expect(Envelope(decoding: Array("{\"plain\":1}".utf8)) == nil)
        #expect(envelope.id.count == Envelope.idBytes)
    }

    @Test func handshakeIsInTheOrderOfNSQD() throws {
        var handshake = Handshake(
            Handshake.Wish(
                clientID: "c",
                heartbeatInterval: .seconds(30),
                messageTimeout: .seconds(5),
                tls: true,
                deflateLevel: 6,
                authSecret: "s",
                role: .subscriber(topic: "t", channel: "ch")
            )
        )
        guard case .identify(let bytes) = handshake.identify else { return #expect(Bool(false), "no IDENTIFY") }
        let wish = try JSON(parsing: bytes)
        #expect(wish["msg_timeout"]?.integer == 5000 && wish["feature_negotiation"]?.bool == true)
        let answer = #"{"tls_v1":true,"deflate":true,"auth_required":true,"max_rdy_count":7,"msg_timeout":5000}"#
        #expect(try handshake.received(.response(Array(answer.utf8))) == [.startTLS])
        #expect(try handshake.received(.ok) == [.startDeflate(level: 6)])
        #expect(try handshake.received(.heartbeat) == [.send(.nop)])
        #expect(try handshake.received(.ok) == [.send(.auth(Array("s".utf8)))])
        let subscribe = Handshake.Action.send(.subscribe(topic: "t", channel: "ch"))
        #expect(try handshake.received(.response(Array("{}".utf8))) == [subscribe])
        guard case .ready(let features) = try handshake.received(.ok).first else {
            return #expect(Bool(false), "it is not ready")
        }
        #expect(features.maxReadyCount == 7 && features.messageTimeout == .seconds(5))
    }

    /// A server, or somebody between, that turns on what was not asked for, or TLS off, is refused.
    @Test func handshakeRefusesWhatWasNotAskedFor() {
        func refuses(_ answer: String, tls: Bool) -> Bool {
            var handshake = Handshake(
                Handshake.Wish(clientID: "c", heartbeatInterval: .seconds(30), tls: tls, role: .publisher)
            )
            return (try? handshake.received(.response(Array(answer.utf8)))) == nil
        }
        #expect(refuses(#"{"tls_v1":false}"#, tls: true))
        #expect(refuses(#"{"deflate":true}"#, tls: false))
        #expect(refuses(#"{"snappy":true}"#, tls: false))
        #expect(refuses("OK", tls: false))
        #expect(!refuses(#"{"tls_v1":false}"#, tls: false))
    }
}
