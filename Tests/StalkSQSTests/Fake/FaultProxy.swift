// A proxy for TCP that does to connections what networks do.

import NIOCore
import NIOPosix
import StalkTesting
import Synchronization

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
        /// An answer stands still in the middle for a while.
        case stallAnswer(bytes: Int, holdFor: Duration)
        /// Answers come in small pieces, with a pause before each.
        case dripAnswer(bytes: Int, pause: Duration)
    }

    let port: Int
    private let channel: any Channel

    init(to upstream: Int, fault: @escaping @Sendable (Int) -> Fault) async throws {
        let count = Atomic64()
        self.channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(ChannelOptions.autoRead, value: false)
            .childChannelInitializer { inbound in
                let fault = fault(count.increment())
                if fault == .blackHole { return inbound.eventLoop.makeSucceededVoidFuture() }
                return ClientBootstrap(group: inbound.eventLoop)
                    .connect(host: "127.0.0.1", port: upstream)
                    .flatMap { outbound in
                        inbound.eventLoop.makeCompletedFuture {
                            let (there, back) = (Glue(outbound, .requests, fault), Glue(inbound, .answers, fault))
                            try inbound.pipeline.syncOperations.addHandler(there)
                            try outbound.pipeline.syncOperations.addHandler(back)
                            inbound.setOption(ChannelOptions.autoRead, value: true).whenComplete { _ in }
                        }
                    }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        self.port = self.channel.localAddress?.port ?? 0
    }

    func stop() async { try? await self.channel.close() }

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

    /// Hands on the bytes of one direction until its fault is due.
    private final class Glue: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer

        enum Direction { case requests, answers }

        private let partner: any Channel
        private let direction: Direction
        private let fault: Fault
        private var seen = 0
        private var isStalled = false
        private var stalled: [ByteBuffer] = []
        private var dripping = ByteBuffer()

        init(_ partner: any Channel, _ direction: Direction, _ fault: Fault) {
            self.partner = partner
            self.direction = direction
            self.fault = fault
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var buffer = self.unwrapInboundIn(data)
            self.seen += buffer.readableBytes
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
            let client = self.direction == .requests ? channel : self.partner
            // Closed with a linger of nothing, a socket says RST instead of FIN.
            _ = (client as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0))
            client.close(promise: nil)
            (self.direction == .requests ? self.partner : channel).close(promise: nil)
        }
    }
}
