// One GET to nsqlookupd: the least HTTP that it takes.

internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import StalkCore

/// Asks all nsqlookupds and merges what they say.
struct LookupClient: Sendable {
    struct Answer: Sendable {
        /// The nsqds that have the topic.
        var topicNodes: [NSQAddress] = []
        /// The nsqds to publish to: those that have the topic, or else all.
        var publishNodes: [NSQAddress] = []
        /// Whether one nsqlookupd at least said what it knows.
        var isComplete = false
        var failure: StalkError?
    }

    static let maxBodyBytes = 4 << 20

    private let lookupds: [NSQAddress]
    private let topic: String
    private let timeout: TimeAmount
    private let eventLoop: any EventLoop

    init(_ configuration: NSQConfiguration, _ eventLoop: any EventLoop) {
        self.lookupds = configuration.lookupds
        self.topic = configuration.topic
        self.timeout = TimeAmount(configuration.connectTimeout)
        self.eventLoop = eventLoop
    }

    /// Asks; those that don't answer in time are left out.
    func ask() async -> Answer {
        // `#` begins a fragment in a URL.
        let name = self.topic.split(separator: "#", omittingEmptySubsequences: false).joined(separator: "%23")
        var answer = await self.askAll("/lookup?topic=\(name)")
        answer.publishNodes = answer.topicNodes
        if answer.isComplete, answer.topicNodes.isEmpty {
            answer.publishNodes = await self.askAll("/nodes").topicNodes
        }
        return answer
    }

    private func askAll(_ path: String) async -> Answer {
        await withTaskGroup(of: Result<[NSQAddress], StalkError>.self) { group in
            for address in self.lookupds { group.addTask { await self.ask(address, path) } }
            var answer = Answer()
            for await result in group {
                switch result {
                case .success(let nodes):
                    answer.isComplete = true
                    answer.topicNodes += nodes.filter { !answer.topicNodes.contains($0) }
                case .failure(let error):
                    answer.failure = error
                }
            }
            return answer
        }
    }

    private func ask(_ address: NSQAddress, _ path: String) async -> Result<[NSQAddress], StalkError> {
        do {
            let body = try await self.get(address, path)
            return .success(Self.nodes(in: body))
        } catch {
            return .failure(StalkError(.unavailable, "nsqlookupd at \(address) does not answer.", cause: error))
        }
    }

    /// The nsqds in an answer of any version; an unknown topic has none.
    static func nodes(in body: [UInt8]) -> [NSQAddress] {
        guard let answer = try? JSON(parsing: body) else { return [] }
        let producers = (answer["producers"] ?? answer["data"]?["producers"])?.array ?? []
        return producers.compactMap { producer in
            guard let port = producer["tcp_port"]?.integer, (1...65_535).contains(port),
                let host = producer["broadcast_address"]?.string ?? producer["hostname"]?.string, !host.isEmpty
            else { return nil }
            return NSQAddress(host: host, port: port)
        }
    }

    private func get(_ address: NSQAddress, _ path: String) async throws -> [UInt8] {
        let promise = self.eventLoop.makePromise(of: [UInt8].self)
        ClientBootstrap(group: self.eventLoop)
            .connectTimeout(self.timeout)
            .connect(host: address.host, port: address.port)
            .flatMapThrowing { channel in
                try channel.pipeline.syncOperations.addHTTPClientHandlers()
                let handler = GetHandler(host: address.description, path: path, promise: promise)
                try channel.pipeline.syncOperations.addHandler(handler)
                self.eventLoop.scheduleTask(in: self.timeout) { channel.close(promise: nil) }
            }
            .cascadeFailure(to: promise)
        return try await promise.futureResult.get()
    }
}

/// Sends one GET when it is added and gives the body of the answer.
private final class GetHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private let host: String
    private let path: String
    private let promise: EventLoopPromise<[UInt8]>
    private var body: [UInt8] = []

    init(host: String, path: String, promise: EventLoopPromise<[UInt8]>) {
        self.host = host
        self.path = path
        self.promise = promise
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let headers: HTTPHeaders = [
            "Host": self.host, "Accept": "application/vnd.nsq; version=1.0", "Connection": "close",
        ]
        let head = HTTPRequestHead(version: .http1_1, method: .GET, uri: self.path, headers: headers)
        context.write(self.wrapOutboundOut(.head(head)), promise: nil)
        context.writeAndFlush(self.wrapOutboundOut(.end(nil)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch self.unwrapInboundIn(data) {
        case .head(let head):
            // 404 says that nobody has the topic yet.
            guard head.status == .ok || head.status == .notFound else {
                return self.fail(context, ProtocolViolation("it answered \(head.status.code)"))
            }
        case .body(let part):
            self.body += part.readableBytesView
            if self.body.count > LookupClient.maxBodyBytes {
                self.fail(context, ProtocolViolation("its answer is over \(LookupClient.maxBodyBytes) bytes"))
            }
        case .end:
            self.promise.succeed(self.body)
            context.close(promise: nil)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.promise.fail(ProtocolViolation("the connection ended before the answer"))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        self.fail(context, error)
    }

    private func fail(_ context: ChannelHandlerContext, _ error: any Error) {
        self.promise.fail(error)
        context.close(promise: nil)
    }
}
