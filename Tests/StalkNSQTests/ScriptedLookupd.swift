// An nsqlookupd of the tests' own: answers /lookup and /nodes with what it is told.

internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import StalkCore
internal import StalkNSQ

final class ScriptedLookupd: Sendable {
    struct State {
        /// The nsqds of each topic.
        var topics: [String: [NSQAddress]] = [:]
        var nodes: [NSQAddress] = []
        var asked = 0
        /// Takes questions and never answers.
        var isSilent = false
    }

    let state = Locked(State())
    private let channel = Locked<(any Channel)?>(nil)

    var address: NSQAddress {
        NSQAddress(host: "127.0.0.1", port: self.channel.withLock { $0?.localAddress?.port } ?? 0)
    }

    func start() async throws {
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(LookupHandler(self))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        self.channel.withLock { $0 = channel }
    }

    func stop() async {
        try? await self.channel.withLock { $0 }?.close()
    }

    /// The answer to a question; `nil` for none.
    func answer(_ uri: String) -> (status: HTTPResponseStatus, body: String)? {
        self.state.withLock { state in
            state.asked += 1
            if state.isSilent { return nil }
            let topic = uri.split(separator: "topic=").last.map {
                String($0).split(separator: "%23").joined(separator: "#")
            }
            let isLookup = uri.hasPrefix("/lookup?")
            guard let nodes = isLookup ? state.topics[topic ?? ""] : state.nodes else {
                return (.notFound, #"{"message":"TOPIC_NOT_FOUND"}"#)
            }
            let producers = nodes.map {
                #"{"broadcast_address":"\#($0.host)","tcp_port":\#($0.port),"version":"1.3.0"}"#
            }
            return (.ok, #"{"channels":[],"producers":[\#(producers.joined(separator: ","))]}"#)
        }
    }
}

private final class LookupHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let lookupd: ScriptedLookupd

    init(_ lookupd: ScriptedLookupd) {
        self.lookupd = lookupd
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .head(let head) = self.unwrapInboundIn(data), let answer = self.lookupd.answer(head.uri) else {
            return
        }
        let headers: HTTPHeaders = ["Content-Length": "\(answer.body.utf8.count)", "Connection": "close"]
        let response = HTTPResponseHead(version: .http1_1, status: answer.status, headers: headers)
        context.write(self.wrapOutboundOut(.head(response)), promise: nil)
        context.write(self.wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: answer.body)))), promise: nil)
        context.writeAndFlush(self.wrapOutboundOut(.end(nil)), promise: nil)
    }
}
