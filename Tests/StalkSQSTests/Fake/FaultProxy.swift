// A proxy for TCP that does to connections what networks do.

import Foundation
import NIOCore
import NIOPosix
import StalkCore
import StalkTesting

#if canImport(Glibc)
    import Glibc
#endif

/// Passes connections on to a server, each with a fault of its own.
final class FaultProxy: Sendable {
    /// What happens to a connection.
    enum Fault: Hashable, Sendable {
        case none
        /// It is accepted, and nobody ever answers.
        case blackHole
        /// It is reset after so many bytes of requests.
        case resetAfterRequest(bytes: Int)
        /// It is closed in the middle of an answer.
        case cutAnswer(bytes: Int)
        /// Requests arrive, answers never do; then it is reset.
        case swallowAnswer(after: Int, holdFor: Duration)
        /// Sends arrive and are answered, but nobody hears it; then the connection is reset.
        case loseSendAnswers(holdFor: Duration)
        /// The server is not asked: each request gets this answer, as from a proxy or a load balancer.
        case answer(status: Int, body: String)
        /// An answer stands still in the middle for a while.
        case stallAnswer(bytes: Int, holdFor: Duration)
        /// Answers come in small pieces, with a pause before each.
        case dripAnswer(bytes: Int, pause: Duration)
    }

    let port: Int
    private let listener: Locked<any Channel>
    private let connections: Connections
    private let upstream: Int
    private let fault: @Sendable (Int) -> Fault

    init(to upstream: Int, fault: @escaping @Sendable (Int) -> Fault) async throws {
        let connections = Connections()
        let channel = try await Self.listen(on: 0, to: upstream, connections, fault)
        self.listener = Locked(channel)
        self.port = channel.localAddress?.port ?? 0
        self.connections = connections
        self.upstream = upstream
        self.fault = fault
    }

    /// How many sends arrived whose answers were kept back.
    var lostSends: Int { self.connections.state.withLock { $0.lostSends } }

    /// How many sends were answered, and the answer handed on.
    var answeredSends: Int { self.connections.state.withLock { $0.answeredSends } }

    /// Refuses new connections until ``listen()``.
    func refuse() async { try? await self.listener.withLock { $0 }.close() }

    /// Accepts connections again.
    func listen() async throws {
        let channel = try await Self.listen(on: self.port, to: self.upstream, self.connections, self.fault)
        self.listener.withLock { $0 = channel }
    }

    /// Resets all connections.
    func hangUp() {
        for channel in self.connections.state.withLock({ Array($0.open.values) }) { Self.reset(channel) }
    }

    private static func listen(
        on port: Int,
        to upstream: Int,
        _ connections: Connections,
        _ fault: @escaping @Sendable (Int) -> Fault
    ) async throws -> any Channel {
        try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(ChannelOptions.autoRead, value: false)
            .childChannelInitializer { inbound in
                let fault = fault(connections.add(inbound))
                if fault == .blackHole { return inbound.eventLoop.makeSucceededVoidFuture() }
                if case .answer(let status, let body) = fault {
                    return inbound.eventLoop.makeCompletedFuture {
                        try inbound.pipeline.syncOperations.addHandler(Answerer(status, body))
                        inbound.setOption(ChannelOptions.autoRead, value: true).whenComplete { _ in }
                    }
                }
                return ClientBootstrap(group: inbound.eventLoop)
                    .connect(host: "127.0.0.1", port: upstream)
                    .flatMap { outbound in
                        inbound.eventLoop.makeCompletedFuture {
                            let pair = Pair(connections)
                            let there = Glue(outbound, .requests, fault, pair)
                            let back = Glue(inbound, .answers, fault, pair)
                            try inbound.pipeline.syncOperations.addHandler(there)
                            try outbound.pipeline.syncOperations.addHandler(back)
                            inbound.setOption(ChannelOptions.autoRead, value: true).whenComplete { _ in }
                        }
                    }
            }
            .bind(host: "127.0.0.1", port: port).get()
    }

    func stop() async {
        await self.refuse()
        self.hangUp()
    }

    /// Closes a connection so that its client sees a reset.
    private static func reset(_ channel: any Channel) {
        // Closed with a linger of nothing, a socket says RST instead of FIN.
        _ = (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0))
        channel.close(promise: nil)
    }

    /// Faults drawn from a seed, by the number of the connection.
    static func random(seed: UInt64, oneIn: Int) -> @Sendable (Int) -> Fault {
        { number in
            var generator = SeededGenerator(seed: seed &+ UInt64(number) &* 0x9E37)
            guard generator.below(oneIn) == 0 else {
                return .resetAfterRequest(bytes: 20_000 + generator.below(400_000))
            }
            let bytes = generator.below(60_000)
            return switch generator.below(5) {
            case 0: .resetAfterRequest(bytes: bytes)
            case 1: .cutAnswer(bytes: bytes)
            case 2: .swallowAnswer(after: bytes, holdFor: .milliseconds(100))
            case 3: .stallAnswer(bytes: bytes, holdFor: .milliseconds(1500))
            default: .resetAfterRequest(bytes: generator.below(200))
            }
        }
    }

    /// The connections that are open.
    private final class Connections: Sendable {
        struct State {
            var count = 0
            var open: [Int: any Channel] = [:]
            var lostSends = 0
            var answeredSends = 0
        }

        let state = Locked(State())

        /// Adds a connection and returns its number.
        func add(_ channel: any Channel) -> Int {
            let number = self.state.withLock { state in
                state.count += 1
                state.open[state.count] = channel
                return state.count
            }
            channel.closeFuture.whenComplete { _ in self.state.withLock { $0.open[number] = nil } }
            return number
        }
    }

    /// What the two directions of a connection know of each other; on one event loop.
    private final class Pair {
        let connections: Connections
        var hasSent = false

        init(_ connections: Connections) {
            self.connections = connections
        }
    }

    /// Gives each request the same answer.
    private final class Answerer: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer

        private let answer: String
        private var request = ""

        init(_ status: Int, _ body: String) {
            self.answer = "HTTP/1.1 \(status) Fault\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            self.request += String(buffer: self.unwrapInboundIn(data))
            guard let end = self.request.range(of: "\r\n\r\n") else { return }
            let head = self.request[..<end.lowerBound].lowercased()
            let length = head.split(separator: "content-length: ").dropFirst().first?.prefix { $0.isNumber }
            guard self.request[end.upperBound...].utf8.count >= length.flatMap({ Int($0) }) ?? 0 else { return }
            self.request = ""
            context.writeAndFlush(self.wrapOutboundOut(ByteBuffer(string: self.answer)), promise: nil)
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    /// Hands on the bytes of one direction until its fault is due.
    private final class Glue: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer

        enum Direction { case requests, answers }

        private let partner: any Channel
        private let direction: Direction
        private let fault: Fault
        private let pair: Pair
        private var seen = 0
        private var isStalled = false
        private var stalled: [ByteBuffer] = []
        private var dripping = ByteBuffer()

        init(_ partner: any Channel, _ direction: Direction, _ fault: Fault, _ pair: Pair) {
            self.partner = partner
            self.direction = direction
            self.fault = fault
            self.pair = pair
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var buffer = self.unwrapInboundIn(data)
            self.seen += buffer.readableBytes
            if self.direction == .requests, String(buffer: buffer).contains("AmazonSQS.SendMessageBatch") {
                self.pair.hasSent = true
            }
            switch (self.direction, self.fault) {
            case (.requests, .resetAfterRequest(let bytes)) where self.seen > bytes:
                self.reset(context.channel)
            case (.answers, .cutAnswer(let bytes)) where self.seen > bytes:
                let rest = max(0, buffer.readableBytes - (self.seen - bytes))
                let half = buffer.readSlice(length: rest) ?? ByteBuffer()
                self.partner.writeAndFlush(half).whenComplete { [partner = self.partner] _ in
                    partner.close(promise: nil)
                }
                context.close(promise: nil)
            case (.answers, .swallowAnswer(let bytes, let hold)) where self.seen > bytes:
                self.after(hold, context) { $0.reset(context.channel) }
            case (.answers, .loseSendAnswers(let hold)) where self.pair.hasSent:
                if !self.isStalled { self.pair.connections.state.withLock { $0.lostSends += 1 } }
                self.isStalled = true
                self.after(hold, context) { $0.reset(context.channel) }
            case (.answers, .stallAnswer(let bytes, let hold)) where self.seen > bytes:
                self.stalled.append(buffer)
                if self.isStalled { return }
                self.isStalled = true
                self.after(hold, context) { glue in
                    for part in glue.stalled { glue.partner.write(part, promise: nil) }
                    glue.partner.flush()
                    glue.stalled = []
                    glue.isStalled = false
                }
            case (.answers, .dripAnswer(let bytes, let pause)):
                self.dripping.writeBuffer(&buffer)
                if self.isStalled { return }
                self.isStalled = true
                self.drip(bytes, pause, context)
            default:
                if self.direction == .answers, self.pair.hasSent {
                    self.pair.hasSent = false
                    self.pair.connections.state.withLock { $0.answeredSends += 1 }
                }
                self.partner.writeAndFlush(buffer, promise: nil)
            }
        }

        private func drip(_ bytes: Int, _ pause: Duration, _ context: ChannelHandlerContext) {
            let context = NIOLoopBound(context, eventLoop: context.eventLoop)
            self.after(pause, context.value) { glue in
                let piece = glue.dripping.readSlice(length: min(bytes, glue.dripping.readableBytes))
                guard let piece, piece.readableBytes > 0 else {
                    glue.isStalled = false
                    return
                }
                glue.partner.writeAndFlush(piece, promise: nil)
                glue.drip(bytes, pause, context.value)
            }
        }

        func channelInactive(context: ChannelHandlerContext) { self.partner.close(promise: nil) }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

        private func after(_ hold: Duration, _ context: ChannelHandlerContext, _ body: @escaping (Glue) -> Void) {
            let bound = NIOLoopBound((self, body), eventLoop: context.eventLoop)
            context.eventLoop.scheduleTask(
                in: .nanoseconds(hold.components.attoseconds / 1_000_000_000 + hold.components.seconds * 1_000_000_000)
            ) {
                bound.value.1(bound.value.0)
            }
        }

        /// Closes both sides so that the client sees a reset.
        private func reset(_ channel: any Channel) {
            FaultProxy.reset(self.direction == .requests ? channel : self.partner)
            (self.direction == .requests ? self.partner : channel).close(promise: nil)
        }
    }
}
