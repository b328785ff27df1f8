// Reads what another process's server shows; for `stalk top`.

internal import FoundationEssentials
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import StalkCore

/// Asks a server for its figures, one connection for each question.
package struct AdminClient: Sendable {
    private let address: AdminAddress
    private let token: String?

    /// Asks the server at an address.
    package init(address: AdminAddress, token: String?) {
        self.address = address
        self.token = token
    }

    /// Everything that the server shows.
    ///
    /// - Throws: ``StalkCore/StalkError``: `unavailable` when nobody answers, `permissionDenied` for the wrong token.
    package func overview() async throws -> AdminOverview {
        let (status, body) = try await self.get("/api/queues")
        switch status {
        case 200: break
        case 401, 403:
            throw StalkError(.permissionDenied, "The server at \(self.address) wants its token: see --token-file.")
        default:
            throw StalkError(.unavailable, "The server at \(self.address) answered \(status).")
        }
        do {
            return try JSONDecoder().decode(AdminOverview.self, from: Data(body))
        } catch {
            throw StalkError(
                .unavailable,
                "What answers at \(self.address) is no stalk, or another version.",
                cause: error
            )
        }
    }

    private func get(_ path: String) async throws -> (status: Int, body: [UInt8]) {
        do {
            let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(.seconds(5))
                .connect(host: self.address.host, port: self.address.port) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHTTPClientHandlers()
                        try channel.pipeline.syncOperations.addHandler(IdleStateHandler(readTimeout: .seconds(10)))
                        try channel.pipeline.syncOperations.addHandler(IdleCloser())
                        return try NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>(
                            wrappingChannelSynchronously: channel
                        )
                    }
                }
            return try await channel.executeThenClose { try await self.ask(path, $0, $1) }
        } catch let error as StalkError {
            throw error
        } catch {
            throw StalkError(
                .unavailable,
                "Nobody answers at \(self.address): start 'stalk work --http' or 'stalk serve' there.",
                cause: error
            )
        }
    }

    private func ask(
        _ path: String,
        _ inbound: NIOAsyncChannelInboundStream<HTTPClientResponsePart>,
        _ outbound: NIOAsyncChannelOutboundWriter<HTTPClientRequestPart>
    ) async throws -> (status: Int, body: [UInt8]) {
        var head = HTTPRequestHead(version: .http1_1, method: .GET, uri: path)
        head.headers.add(name: "Host", value: self.address.description)
        head.headers.add(name: "Connection", value: "close")
        if let token = self.token { head.headers.add(name: "Authorization", value: "Bearer \(token)") }
        try await outbound.write(.head(head))
        try await outbound.write(.end(nil))
        var (status, body): (Int?, [UInt8]) = (nil, [])
        for try await part in inbound {
            switch part {
            case .head(let head): status = Int(head.status.code)
            case .body(let buffer): body += buffer.readableBytesView
            case .end:
                if let status { return (status, body) }
            }
        }
        throw StalkError(.unavailable, "The server at \(self.address) closed the connection half-way.")
    }
}

/// Closes a connection on which nothing comes.
private final class IdleCloser: ChannelInboundHandler, Sendable {
    typealias InboundIn = HTTPClientResponsePart
    typealias InboundOut = HTTPClientResponsePart

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent {
            context.close(promise: nil)
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }
}
