// How fast it is: figures, not promises, with the server's own ceiling beside them. Off unless STALK_NSQ_BENCH is set;
// meant for a release build.

internal import NIOCore
internal import NIOPosix
internal import StalkCore
internal import StalkNSQ
internal import StalkTesting
internal import Testing

#if canImport(Glibc)
    internal import Glibc
#endif

@Suite(
    .enabled(if: getenv("STALK_NSQ_BENCH") != nil, "STALK_NSQ_BENCH is not set"),
    .serialized,
    .timeLimit(.minutes(10))
)
struct ThroughputTests {
    private static let batch = 200
    private static let body = [UInt8](repeating: 0x78, count: 100)

    private static func report(_ what: String, _ count: Int, _ time: Duration) -> Double {
        let seconds = Double(time.components.seconds) + Double(time.components.attoseconds) * 1e-18
        let rate = Double(count) / seconds
        print("\(what): \(Int(rate)) messages/s (\(count) in \(Int(seconds * 1000)) ms)")
        return rate
    }

    @Test func onTheScriptedServer() async throws {
        let server = ScriptedNSQD()
        try await server.start()
        try await Self.measure("scripted", await server.address)
        await server.stop()
    }

    @Test(.enabled(if: RealNSQD.path != nil, "there is no nsqd on PATH"))
    func onARealServer() async throws {
        try await RealNSQD.run(["--mem-queue-size=2000000"]) { try await Self.measure("nsqd", $0) }
    }

    private static func measure(_ name: String, _ address: NSQAddress) async throws {
        let clock = ContinuousClock()
        var bytes = ByteBuffer()
        NSQCommand.multiPublish(topic: "ceiling", Array(repeating: Self.body, count: Self.batch)).write(into: &bytes)
        var time = try await clock.measure { try await RawClient.publish(bytes, times: 3000, window: 64, to: address) }
        let batchCeiling = Self.report("\(name), ceiling, MPUB of \(Self.batch)", 3000 * Self.batch, time)
        bytes.clear()
        NSQCommand.publish(topic: "ceiling-single", Self.body).write(into: &bytes)
        time = try await clock.measure { try await RawClient.publish(bytes, times: 100_000, window: 256, to: address) }
        let singleCeiling = Self.report("\(name), ceiling, PUB pipelined", 100_000, time)
        time = try await clock.measure { try await RawClient.consume(600_000, topic: "ceiling", from: address) }
        let consumeCeiling = Self.report("\(name), ceiling, consume", 600_000, time)

        let rates = (
            try await Self.publishBatches(name, address), try await Self.publishSingly(name, address),
            try await Self.consume(name, address)
        )
        func share(_ rate: Double, _ ceiling: Double) -> String { "\(Int(100 * rate / ceiling)) %" }
        print(
            "\(name), share of the ceiling: MPUB \(share(rates.0, batchCeiling)), PUB \(share(rates.1, singleCeiling)), "
                + "consume \(share(rates.2, consumeCeiling))"
        )
    }

    private static func publishBatches(_ name: String, _ address: NSQAddress) async throws -> Double {
        let collector = try NSQCollector(NSQConfiguration(topic: "batches", nsqds: [address]))
        let messages = Array(repeating: Message(Self.body), count: Self.batch)
        for result in try await collector.publish(messages) { _ = try result.get() }
        let time = try await ContinuousClock().measure {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<8 {
                    group.addTask {
                        for _ in 0..<375 {
                            for result in try await collector.publish(messages) { _ = try result.get() }
                        }
                    }
                }
                try await group.waitForAll()
            }
        }
        await collector.close()
        return Self.report("\(name), publish, MPUB of \(Self.batch)", 3000 * Self.batch, time)
    }

    private static func publishSingly(_ name: String, _ address: NSQAddress) async throws -> Double {
        var configuration = NSQConfiguration(topic: "singles", nsqds: [address])
        configuration.maxBatch = 1
        let collector = try NSQCollector(configuration)
        try await collector.publish(Message(Self.body))
        let time = try await ContinuousClock().measure {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<256 {
                    group.addTask { for _ in 0..<400 { try await collector.publish(Message(Self.body)) } }
                }
                try await group.waitForAll()
            }
        }
        await collector.close()
        return Self.report("\(name), publish, PUB pipelined", 256 * 400, time)
    }

    private static func consume(_ name: String, _ address: NSQAddress) async throws -> Double {
        var configuration = NSQConfiguration(topic: "batches", nsqds: [address])
        configuration.prefetch = 1500
        let collector = try NSQCollector(configuration)
        let count = 3000 * Self.batch
        let time = try await ContinuousClock().measure {
            try await collector.wake()
            var taken = 0
            while taken < count {
                let deliveries = try await collector.take(TakeRequest(max: 1000, wait: .seconds(10)))
                try #require(!deliveries.isEmpty)
                taken += deliveries.count
                _ = try await collector.finish(deliveries.map { Completion($0.receipt, .acknowledge) })
            }
        }
        await collector.close()
        return Self.report("\(name), consume", count, time)
    }
}

/// The least that a client can do: bytes made before, answers counted, messages finished as they come.
private enum RawClient {
    static func publish(_ bytes: ByteBuffer, times: Int, window: Int, to address: NSQAddress) async throws {
        try await Self.run(address) { promise in RawPublisher(bytes, times: times, window: window, promise) }
    }

    static func consume(_ count: Int, topic: String, from address: NSQAddress) async throws {
        try await Self.run(address) { promise in RawConsumer(count, topic: topic, promise) }
    }

    private static func run(
        _ address: NSQAddress,
        _ make: @escaping @Sendable (EventLoopPromise<Void>) -> some ChannelInboundHandler
    ) async throws {
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let promise = eventLoop.makePromise(of: Void.self)
        let channel = try await ClientBootstrap(group: eventLoop)
            .channelOption(
                .recvAllocator,
                value: AdaptiveRecvByteBufferAllocator(minimum: 1 << 10, initial: 1 << 16, maximum: 1 << 19)
            )
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(make(promise)) }
            }
            .connect(host: address.host, port: address.port).get()
        try await promise.futureResult.get()
        try await channel.close()
    }
}

private final class RawPublisher: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let bytes: ByteBuffer
    private let times: Int
    private let window: Int
    private let promise: EventLoopPromise<Void>
    private var decoder = FrameDecoder(maxMessageBytes: 1 << 20)
    private var sent = 0
    private var answered = 0

    init(_ bytes: ByteBuffer, times: Int, window: Int, _ promise: EventLoopPromise<Void>) {
        self.bytes = bytes
        self.times = times
        self.window = window
        self.promise = promise
    }

    func channelActive(context: ChannelHandlerContext) {
        context.write(self.wrapOutboundOut(ByteBuffer(string: NSQCommand.magic)), promise: nil)
        self.fill(context)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        self.decoder.append(self.unwrapInboundIn(data))
        while let frame = try? self.decoder.next() { if frame != .heartbeat { self.answered += 1 } }
        if self.answered == self.times { self.promise.succeed(()) } else { self.fill(context) }
    }

    private func fill(_ context: ChannelHandlerContext) {
        while self.sent < self.times, self.sent - self.answered < self.window {
            context.write(self.wrapOutboundOut(self.bytes), promise: nil)
            self.sent += 1
        }
        context.flush()
    }
}

private final class RawConsumer: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let count: Int
    private let topic: String
    private let promise: EventLoopPromise<Void>
    private var decoder = FrameDecoder(maxMessageBytes: 1 << 20)
    private var seen = 0

    init(_ count: Int, topic: String, _ promise: EventLoopPromise<Void>) {
        self.count = count
        self.topic = topic
        self.promise = promise
    }

    func channelActive(context: ChannelHandlerContext) {
        var bytes = ByteBuffer(string: NSQCommand.magic)
        NSQCommand.subscribe(topic: self.topic, channel: "stalk").write(into: &bytes)
        NSQCommand.ready(2500).write(into: &bytes)
        context.writeAndFlush(self.wrapOutboundOut(bytes), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        self.decoder.append(self.unwrapInboundIn(data))
        var bytes = ByteBuffer()
        while let frame = try? self.decoder.next() {
            guard case .message(let message) = frame else { continue }
            NSQCommand.finish(message.key).write(into: &bytes)
            self.seen += 1
        }
        context.writeAndFlush(self.wrapOutboundOut(bytes), promise: nil)
        if self.seen == self.count { self.promise.succeed(()) }
    }
}
