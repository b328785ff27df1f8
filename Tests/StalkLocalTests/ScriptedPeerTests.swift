import Foundation
import StalkCore
import StalkFiles
import StalkTesting
import Testing

@testable import StalkLocal

/// One end of a connection that says what a test tells it to.
private struct ScriptedPeer {
    let socket: LocalSocket
    private var assembler = WireAssembler()

    init(_ socket: LocalSocket) {
        self.socket = socket
    }

    /// Connects to the owner of a store.
    init(to temporary: TemporaryStore) throws(StalkError) {
        let directory = try RealDirectory(path: temporary.path, createIfMissing: false)
        guard let socket = try SharingPlace(directory).connect() else {
            throw StalkError(.unavailable, "nobody listens")
        }
        self.init(socket)
    }

    /// The first one that connects.
    init(comingTo listener: LocalListener) throws {
        var waits = [SocketWait(listener.number, reads: true)]
        SocketWait.wait(for: &waits, milliseconds: 30_000)
        self.init(try #require(listener.accept()))
    }

    /// Answers a greeting as an owner does.
    mutating func welcomeWhoGreets(after body: (Self) -> Void = { _ in }) throws {
        let greeting = try #require(try self.next())
        body(self)
        let welcome = WireWelcome(store: 1, epoch: 1, maxBodyBytes: 1 << 16, verdicts: [])
        self.send(.welcome(welcome), call: greeting.call)
    }

    func send(_ bytes: [UInt8]) {
        var sent = 0
        while sent < bytes.count {
            switch bytes.withUnsafeBytes({ self.socket.send(UnsafeRawBufferPointer(rebasing: $0[sent...])) }) {
            case .bytes(let count): sent += count
            case .later:
                var waits = [SocketWait(self.socket.number, reads: false, writes: true)]
                SocketWait.wait(for: &waits, milliseconds: 10_000)
            case .ended: return
            }
        }
    }

    func send(_ request: WireRequest, call: UInt64) {
        var writer = ByteWriter()
        request.write(call: call, to: &writer)
        self.send(writer.bytes)
    }

    func send(_ answer: WireAnswer, call: UInt64) {
        var writer = ByteWriter()
        answer.write(call: call, to: &writer)
        self.send(writer.bytes)
    }

    /// The next frame; `nil` when the connection ends first.
    mutating func next() throws -> WireFrame? {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            if let frame = try self.assembler.next() { return frame }
            var waits = [SocketWait(self.socket.number, reads: true)]
            SocketWait.wait(for: &waits, milliseconds: 10_000)
            switch buffer.withUnsafeMutableBytes({ self.socket.receive(into: $0) }) {
            case .bytes(let count):
                buffer.withUnsafeBytes { self.assembler.append(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            case .ended: return nil
            case .later: throw StalkError(.interrupted, "nothing came for ten seconds")
            }
        }
    }

    /// The answer to a call; what belongs to other calls is passed over.
    mutating func answer(to call: UInt64) throws -> WireAnswer? {
        while let frame = try self.next() {
            if frame.call == call { return try WireAnswer(frame) }
        }
        return nil
    }
}

/// What a scripted owner of a store stands on: somebody holds the store, and the script listens in the holder's place.
private struct OwnersPlace {
    let listener: LocalListener
    private let holder: LocalStore

    init(in temporary: TemporaryStore) async throws {
        var alone = temporary.options
        alone.sharing = .exclusive
        self.holder = try await LocalStore.open(at: temporary.path, options: alone)
        self.listener = try SharingPlace(try RealDirectory(path: temporary.path, createIfMissing: false)).listen()
    }

    func close() async throws { try await self.holder.close() }
}

/// A script, which may block, on a thread of its own: from its making on, whatever else the test runner has to do.
private struct Script<Value: Sendable> {
    private let results: AsyncThrowingStream<Value, any Error>

    init(_ body: @escaping @Sendable () throws -> Value) {
        let (results, continuation) = AsyncThrowingStream.makeStream(of: Value.self)
        self.results = results
        runOnOwnThread("script", { Result { try body() } }) { outcome in
            if case .success(let value) = outcome.flatMap({ $0 }) { continuation.yield(value) }
            guard case .failure(let error) = outcome.flatMap({ $0 }) else { return continuation.finish() }
            continuation.finish(throwing: error)
        }
    }

    /// What came of it.
    var value: Value {
        get async throws {
            for try await value in self.results { return value }
            throw CancellationError()
        }
    }
}

private func script<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await Script(body).value
}

/// The protocol as a peer sees it that is not this code.
@Suite(.timeLimit(.minutes(5))) struct ScriptedPeerTests {
    @Test func versionsThatDoNotMeetAreNamed() async throws {
        let temporary = TemporaryStore()
        let store = try await temporary.open()
        let frame = try await script {
            var peer = try ScriptedPeer(to: temporary)
            // As a later version might greet: behind the versions stands what only that one can read.
            var writer = ByteWriter()
            WireFrame.write(1, 1, to: &writer) { writer in
                writer.write([0x53, 0x54, 0x4B, 0x53, 7, 0, 9, 0] as [UInt8])
                writer.write("a new kind of greeting")
            }
            peer.send(writer.bytes)
            let frame = try peer.next()
            #expect(try peer.next() == nil, "the connection ends")
            return frame
        }
        guard case .failure(let error) = try WireAnswer(#require(frame)) else { return #expect(Bool(false)) }
        #expect(error.code == .unsupported)
        #expect(error.message == StalkError.noCommonVersion(7...9, peer: getpid()).message)
        #expect(error.message.contains("speaks version 1 of the protocol") && error.message.contains("versions 7 to 9"))
        try await store.close()
        temporary.remove()
    }

    @Test func openingSaysWhyTheOwnerRefuses() async throws {
        let temporary = TemporaryStore()
        let place = try await OwnersPlace(in: temporary)
        let refusal = Script {
            var peer = try ScriptedPeer(comingTo: place.listener)
            let frame = try #require(try peer.next())
            guard case .greeting(let greeting) = try WireRequest(frame) else { return #expect(Bool(false)) }
            #expect(greeting.versions == Wire.versions && greeting.client != 0)
            peer.send(.failure(.noCommonVersion(1...1, peer: 7)), call: 0)
        }
        let error = await #expect(throws: StalkError.self) { try await temporary.open() }
        #expect(error?.code == .unsupported && error?.message.contains("use the same version of Stalk") == true)
        try await refusal.value
        try await place.close()
        temporary.remove()
    }

    @Test func whatCanNotBeReadIsRefused() async throws {
        let temporary = TemporaryStore()
        let store = try await temporary.open()
        let garbage: [[UInt8]] = [
            Array("GET / HTTP/1.1\r\n\r\n".utf8),
            [255, 255, 255, 255],
            // A kind that nobody knows; a greeting with another magic.
            [9, 0, 0, 0] + [UInt8](repeating: 0, count: 8) + [99],
            // Many of them at once.
            (0..<10_000).flatMap { _ in [9, 0, 0, 0] + [UInt8](repeating: 0, count: 8) + [99] },
            [13, 0, 0, 0] + [UInt8](repeating: 0, count: 8) + [1, 1, 2, 3, 4],
        ]
        for bytes in garbage {
            let frame = try await script {
                var peer = try ScriptedPeer(to: temporary)
                peer.send(bytes)
                let frame = try peer.next()
                #expect(try peer.next() == nil)
                return frame
            }
            guard case .failure(let error) = try WireAnswer(#require(frame)) else { return #expect(Bool(false)) }
            #expect(error.code == .unsupported && error.message.contains("can't read what process"))
        }
        // Whoever does not greet first is not served.
        let silence = try await script {
            var peer = try ScriptedPeer(to: temporary)
            peer.send(.ping, call: 1)
            return try peer.next()
        }
        #expect(silence == nil)
        #expect(try await store.stats().queues.isEmpty)
        try await store.close()
        temporary.remove()
    }

    /// A process that is stopped keeps its lock and its socket, and says nothing.
    @Test func ownerThatSaysNothingIsReported() async throws {
        let temporary = TemporaryStore()
        let place = try await OwnersPlace(in: temporary)
        let owner = Script {
            var peer = try ScriptedPeer(comingTo: place.listener)
            try peer.welcomeWhoGreets()
            var asked: [String] = []
            while let frame = try peer.next() { asked.append("\(try WireRequest(frame))") }
            return asked
        }
        let client = try await temporary.open()
        let error = await #expect(throws: StalkError.self) { try await client.hasQueue(QueueName("q")) }
        #expect(error?.code == .storeBusy)
        #expect(error?.message.hasPrefix("Process \(getpid()), which owns the store, ") == true)
        await client.access.abandon()
        let asked = try await owner.value
        #expect(asked.count == 2 && asked[0].contains("hasQueue") && asked[1] == "ping", "\(asked)")
        try await place.close()
        temporary.remove()
    }

    /// The next owner may take a minute to read its log.
    @Test func whoWaitsForTheNextOwnerCanBeCancelled() async throws {
        let temporary = TemporaryStore()
        try await temporary.open().close()
        let directory = try RealDirectory(path: temporary.path, createIfMissing: false)
        let lock = try directory.lock(StoreOpening.lockName)
        let place = SharingPlace(directory)
        place.announce(lock)
        let listener = try place.listen()
        let owner = Script {
            var peer = try ScriptedPeer(comingTo: listener)
            try peer.welcomeWhoGreets()
            _ = try peer.next()
            // Gone with the call, and still starting again.
            place.withdraw()
            peer.socket.end()
        }
        let client = try await temporary.open()
        let call = Task { try await client.hasQueue(QueueName("q")) }
        try await owner.value
        call.cancel()
        await #expect(throws: CancellationError.self) { try await call.value }
        await client.access.abandon()
        withExtendedLifetime(lock) {}
        temporary.remove()
    }

    /// docs/sharing.md, "Limits".
    @Test func theConnectionAboveTheLimitIsRefused() async throws {
        let temporary = TemporaryStore()
        let store = try await temporary.open()
        try await script {
            var peers: [ScriptedPeer] = []
            for number in 0..<StoreServer.maxConnections {
                var peer = try ScriptedPeer(to: temporary)
                peer.send(.greeting(WireGreeting(client: UInt64(number) + 1)), call: 1)
                guard case .welcome? = try peer.answer(to: 1) else { return #expect(Bool(false)) }
                peers.append(peer)
            }
            var oneMore = try ScriptedPeer(to: temporary)
            guard case .failure(let error)? = try oneMore.answer(to: 0) else { return #expect(Bool(false)) }
            #expect(error.code == .unavailable && error.message.contains("256 processes use the store already"))
            #expect(try oneMore.next() == nil, "the connection ends")
            // The others are served as before, and a place that is free is given out again.
            peers[0].send(.ping, call: 2)
            #expect(try peers[0].answer(to: 2) != nil)
            peers.removeLast().socket.end()
            var isServed = false
            while !isServed {
                var next = try ScriptedPeer(to: temporary)
                next.send(.greeting(WireGreeting(client: 999)), call: 1)
                if case .welcome? = try? next.answer(to: 1) { isServed = true }
            }
        }
        try await store.close()
        temporary.remove()
    }

    /// An owner that closes the store gives signs of life to everybody, also to those whom it has not greeted yet.
    @Test func signOfLifeBeforeTheWelcomeIsNone() async throws {
        let temporary = TemporaryStore()
        let place = try await OwnersPlace(in: temporary)
        let owner = Script { () -> [String] in
            var peer = try ScriptedPeer(comingTo: place.listener)
            peer.send(.progress(0), call: 0)
            try peer.welcomeWhoGreets { $0.send(.progress(0), call: 0) }
            guard let asked = try peer.next() else { return [] }
            peer.send(.reply(.count(1)), call: asked.call)
            return ["\(try WireRequest(asked))"]
        }
        let client = try await temporary.open()
        #expect(try await client.hasQueue(QueueName("q")))
        await client.access.abandon()
        #expect(try await owner.value.first?.contains("hasQueue") == true)
        try await place.close()
        temporary.remove()
    }

    /// docs/sharing.md, "A conversation".
    @Test func whoDoesNotReadHurtsOnlyItself() async throws {
        let temporary = TemporaryStore()
        let store = try await temporary.open()
        let queue = try store.queue("q")
        for number in 0..<40 { try await queue.publish(Message([UInt8](repeating: UInt8(number), count: 60_000))) }
        let client = try await temporary.open()
        let before = try #require(anonymousBytes())
        let deaf = try await script {
            var peer = try ScriptedPeer(to: temporary)
            peer.send(.greeting(WireGreeting(client: 7)), call: 1)
            _ = try peer.answer(to: 1)
            // Two and a half gigabytes of answers, none of which is read.
            var writer = ByteWriter()
            for call in 2..<1000 {
                WireRequest.order(.peek(queue.queue, .ready, max: 40)).write(call: UInt64(call), to: &writer)
            }
            // As many as the socket takes.
            #expect(writer.bytes.withUnsafeBytes { peer.socket.send($0) } != .ended)
            return peer.socket
        }
        let other = try client.queue("other")
        for _ in 0..<100 { try await other.publish(Message("a")) }
        #expect(try await client.stats().queues.count == 2)
        #expect(try #require(anonymousBytes()) - before < 600 << 20)
        deaf.end()
        try await client.close()
        try await store.close()
        temporary.remove()
    }

    @Test func conversationIsAsThePageSays() async throws {
        let temporary = TemporaryStore()
        let store = try await temporary.open()
        try await script {
            var peer = try ScriptedPeer(to: temporary)
            peer.send(.greeting(WireGreeting(client: 7)), call: 1)
            guard case .welcome(let welcome)? = try peer.answer(to: 1) else { return #expect(Bool(false)) }
            #expect(welcome.version == 1 && welcome.epoch == 1 && welcome.verdicts.isEmpty)
            let queue = try QueueName("q")
            let publish = WireRequest.publish(queue, [Message("a"), Message("b")], .synced, answeredBelow: 2)
            peer.send(publish, call: 2)
            guard case .published(let first)? = try peer.answer(to: 2) else { return #expect(Bool(false)) }
            // The same call again, as at a next owner: it is stored once.
            peer.send(publish, call: 2)
            guard case .published(let second)? = try peer.answer(to: 2) else { return #expect(Bool(false)) }
            #expect(try first.map { try $0.get() } == second.map { try $0.get() })

            peer.send(.addCollector(5, CollectorRecord(queue: queue, isAsleep: false)), call: 0)
            let take = TakeRequest(max: 10, wait: .zero, lease: .seconds(30))
            peer.send(.take(take, collector: 5, .synced), call: 3)
            guard case .deliveries(let taken)? = try peer.answer(to: 3) else { return #expect(Bool(false)) }
            #expect(taken.map { $0.delivery.text } == ["a", "b"])
            let wait = TakeRequest(max: 10, wait: .seconds(3600), lease: .seconds(30))
            peer.send(.take(wait, collector: 5, .synced), call: 4)
            peer.send(.cancel(4), call: 4)
            guard case .cancelled? = try peer.answer(to: 4) else { return #expect(Bool(false)) }
            let finish = WireRequest.finish(
                taken.map { Completion($0.delivery.receipt, .acknowledge) },
                queue,
                errorQueue: nil,
                .synced
            )
            peer.send(finish, call: 5)
            guard case .outcomes(let outcomes)? = try peer.answer(to: 5) else { return #expect(Bool(false)) }
            #expect(outcomes.allSatisfy { (try? $0.get()) != nil })
            peer.send(.goodbye, call: 6)
            guard case .reply(.done)? = try peer.answer(to: 6) else { return #expect(Bool(false)) }
        }
        #expect(try await store.stats().queues.map(\.ready) == [0])
        try await store.close()
        temporary.remove()
    }
}
