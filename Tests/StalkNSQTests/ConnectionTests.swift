// Connections: what is negotiated, refused, split, silent or lost.

internal import NIOCore
internal import NIOPosix
internal import NIOSSL
internal import StalkCore
internal import StalkNSQ
internal import Testing

@Suite(.timeLimit(.minutes(10))) struct ConnectionTests {
    private static func expectRoundTrip(_ collector: NSQCollector) async throws {
        let bodies = (0..<50).map { Array("message \($0) \(String(repeating: "x", count: $0 * 100))".utf8) }
        for result in try await collector.publish(bodies.map { Message($0) }) { _ = try result.get() }
        try await collector.wake()
        let taken = try await collector.takeAll(bodies.count)
        #expect(Set(taken.map(\.body)) == Set(bodies))
    }

    @Test(arguments: [false, true], [nil, 6] as [Int?])
    func tlsDeflateAndAuthWorkTogether(tls: Bool, deflateLevel: Int?) async throws {
        var options = ScriptedNSQD.Options()
        options.authSecret = "open sesame"
        if tls { options.tls = try .testServer(wantsClientCertificate: true) }
        try await withNSQ(options: options) {
            if tls { $0.tls = .test }
            $0.deflateLevel = deflateLevel
            $0.authSecret = "open sesame"
        } _: { _, collector in
            try await Self.expectRoundTrip(collector)
        }
    }

    @Test(arguments: [1, 7])
    func splitFramesAreRead(bytes: Int) async throws {
        var options = ScriptedNSQD.Options()
        options.writeBytes = bytes
        try await withNSQ(options: options) { _, collector in
            try await collector.publish(Message("in pieces"))
            try await collector.wake()
            #expect(try await collector.takeAll(1).map(\.text) == ["in pieces"])
        }
    }

    @Test func wrongSecretIsTold() async throws {
        var options = ScriptedNSQD.Options()
        options.authSecret = "open sesame"
        try await withNSQ(options: options) {
            $0.authSecret = "open barley"
        } _: { _, collector in
            #expect(await code { try await collector.wake() } == .permissionDenied)
            #expect(await code { try await collector.take(TakeRequest(wait: .seconds(20))) } == .permissionDenied)
            #expect(await code { try await collector.publish(Message("x")) } == .permissionDenied)
        }
    }

    @Test func nothingIsSentInTheClear() async throws {
        try await withNSQ {
            $0.tls = .test
        } _: { servers, collector in
            await servers[0].record(true)
            #expect(await code { try await collector.publish(Message("secret")) } == .permissionDenied)
            let commands = await servers[0].commands
            #expect(commands.allSatisfy { if case .identify = $0 { true } else { false } })
        }
    }

    @Test func unknownAuthorityIsRefused() async throws {
        var options = ScriptedNSQD.Options()
        options.tls = try .testServer()
        try await withNSQ(options: options) {
            $0.tls = NSQTLS()
        } _: { _, collector in
            #expect(await code { try await collector.publish(Message("x")) } == .unavailable)
        }
        // The control: the same server with the right authority.
        try await withNSQ(options: options) {
            $0.tls = NSQTLS(authorityFile: certificate("ca.pem"))
        } _: { _, collector in
            try await collector.publish(Message("x"))
        }
    }

    @Test func missingClientCertificateIsRefused() async throws {
        var options = ScriptedNSQD.Options()
        options.tls = try .testServer(wantsClientCertificate: true)
        try await withNSQ(options: options) {
            $0.tls = NSQTLS(authorityFile: certificate("ca.pem"))
        } _: { _, collector in
            #expect(await code { try await collector.publish(Message("x")) } == .unavailable)
        }
    }

    @Test func serverWithoutDeflateIsUsedWithout() async throws {
        var options = ScriptedNSQD.Options()
        options.allowsDeflate = false
        try await withNSQ(options: options) {
            $0.deflateLevel = 6
        } _: { _, collector in
            try await Self.expectRoundTrip(collector)
        }
    }

    @Test func heartbeatsAreAnswered() async throws {
        try await withNSQ {
            $0.heartbeatInterval = .milliseconds(40)
        } _: { servers, collector in
            await servers[0].record(true)
            try await collector.wake()
            try await eventually("three answers") { await servers[0].commands.count { $0 == .nop } >= 3 }
            #expect(await servers[0].accepted == 1)
        }
    }

    /// A peer that is gone without a word is noticed by its silence, and connected to again.
    @Test func silentPeerIsLeft() async throws {
        var options = ScriptedNSQD.Options()
        options.sendsHeartbeats = false
        try await withNSQ(options: options) {
            $0.heartbeatInterval = .milliseconds(40)
        } _: { servers, collector in
            try await collector.wake()
            try await eventually("it connects again") { await servers[0].accepted >= 3 }
        }
    }

    @Test func publishOverHalfOpenConnectionIsAnswered() async throws {
        var options = ScriptedNSQD.Options()
        options.sendsHeartbeats = false
        try await withNSQ(options: options) {
            $0.heartbeatInterval = .milliseconds(40)
        } _: { servers, collector in
            await servers[0].react { command, _ in if case .publish = command { .ignore } else { .obey } }
            #expect(await code { try await collector.publish(Message("lost?")) } == .interrupted)
        }
    }

    @Test func handshakeThatIsNotAnsweredEnds() async throws {
        try await withNSQ {
            $0.connectTimeout = .milliseconds(100)
        } _: { servers, collector in
            await servers[0].react { command, _ in if case .identify = command { .ignore } else { .obey } }
            #expect(await code { try await collector.publish(Message("x")) } == .unavailable)
        }
    }

    @Test(
        arguments: [
            ("E_BAD_TOPIC PUB topic name is not valid", .invalidQueueName),
            ("E_BAD_MESSAGE PUB message too big 9 > 8", .bodyTooLarge),
            ("E_BAD_MESSAGE PUB invalid message body size 0", .invalidArgument),
            ("E_BAD_BODY PUB bad", .invalidArgument),
            ("E_INVALID cannot PUB in current state", .invalidArgument),
            ("E_PUB_FAILED PUB failed exiting", .unavailable),
            ("E_UNAUTHORIZED AUTH failed for PUB", .permissionDenied),
            ("E_AUTH_FIRST AUTH required", .permissionDenied),
            ("E_SOMETHING_NEW of a later nsqd", .unavailable), ("", .unavailable),
        ] as [(String, StalkError.Code)]
    )
    func errorFramesOfPublishAreTold(text: String, expected: StalkError.Code) async throws {
        try await withNSQ { servers, collector in
            await servers[0].react { command, _ in if case .publish = command { .refuse(text) } else { .obey } }
            #expect(await code { try await collector.publish(Message("x")) } == expected)
            await servers[0].react(nil)
            // The connection is gone, the next publish makes a new one.
            try await collector.publish(Message("y"))
            #expect(await servers[0].published(to: "orders") == 1)
        }
    }

    @Test func errorFramesOfOtherPublishesAreTold() async throws {
        try await withNSQ { servers, collector in
            await servers[0].react { command, _ in
                switch command {
                case .multiPublish: .refuse("E_MPUB_FAILED MPUB failed disk")
                case .deferredPublish: .refuse("E_DPUB_FAILED DPUB failed disk")
                default: .obey
                }
            }
            let results = try await collector.publish([Message("a"), Message("b")])
            for result in results { #expect(await code { try result.get() } == .interrupted) }
            let delayed = Message("c", delay: .seconds(1))
            #expect(await code { try await collector.publish(delayed) } == .unavailable)
        }
    }

    @Test(
        arguments: [
            ("E_BAD_TOPIC SUB topic name is not valid", .invalidQueueName), ("E_BAD_CHANNEL SUB", .invalidQueueName),
            ("E_INVALID cannot SUB with heartbeats disabled", .invalidArgument),
            ("E_AUTH_FAILED AUTH", .permissionDenied),
        ] as [(String, StalkError.Code)]
    )
    func errorFramesOfSubscribeAreTold(text: String, expected: StalkError.Code) async throws {
        try await withNSQ { servers, collector in
            await servers[0].react { command, _ in if case .subscribe = command { .refuse(text) } else { .obey } }
            #expect(await code { try await collector.wake() } == expected)
            #expect(await code { try await collector.take(TakeRequest(wait: .seconds(20))) } == expected)
            // It goes on trying, so that mending the server is enough.
            await servers[0].react(nil)
            try await collector.publish(Message("x"))
            try await eventually("it takes") { (try? await collector.takeAll(1).count) == 1 }
        }
    }

    @Test(arguments: ["E_FIN_FAILED FIN failed", "E_REQ_FAILED REQ failed", "E_TOUCH_FAILED TOUCH failed"])
    func lateRefusalsLeaveTheConnection(text: String) async throws {
        try await withNSQ { servers, collector in
            try await collector.publish(Message("x"))
            try await collector.wake()
            await servers[0].react { command, _ in if case .finish = command { .obeyAndComplain(text) } else { .obey } }
            _ = try await collector.takeAll(1)
            try await eventually("it is counted") { await collector.lateRefusals == 1 }
            await servers[0].react(nil)
            try await collector.publish(Message("y"))
            #expect(try await collector.takeAll(1).map(\.text) == ["y"])
            // One for taking, one for publishing.
            #expect(await servers[0].accepted == 2)
        }
    }

    @Test func fatalErrorWhileConsumingReconnects() async throws {
        try await withNSQ { servers, collector in
            try await collector.wake()
            await servers[0].react { command, _ in
                if case .ready = command { .refuse("E_INVALID RDY count out of range") } else { .obey }
            }
            try await collector.publish(Message("x"))
            async let taken = collector.take(TakeRequest(wait: .seconds(20)))
            try await eventually("it connects again") { await servers[0].accepted >= 3 }
            await servers[0].react(nil)
            do { #expect(try await taken.count == 1) } catch {
                // The take may have been told of the refusal; the next one works.
                #expect((error as? StalkError)?.code == .invalidArgument)
                try await eventually("it takes") { (try? await collector.takeAll(1).count) == 1 }
            }
        }
    }

    /// Something that is no nsqd: the error says so, and no memory is kept for what looks like a huge frame.
    @Test func otherProtocolIsRefused() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let server = try await ServerBootstrap(group: group)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Greeter()) }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let port = server.localAddress?.port ?? 0
        let collector = try NSQCollector(
            NSQConfiguration(topic: "t", nsqds: [NSQAddress(host: "127.0.0.1", port: port)])
        )
        let results = try await collector.publish([Message("x")])
        let error = #expect(throws: StalkError.self) { try results[0].get() }
        #expect(error?.message.contains("1213486160") == true)
        await collector.close()
        try await server.close()
        try await group.shutdownGracefully()
    }
}

/// A server that answers anything as a web server does.
private final class Greeter: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let answer = ByteBuffer(string: "HTTP/1.1 400 Bad Request\r\n\r\n")
        context.writeAndFlush(self.wrapOutboundOut(answer), promise: nil)
    }
}
