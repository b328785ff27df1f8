// The server in memory behind a real socket.

import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import StalkCore

@testable import StalkSQS

/// Serves a ``FakeSQS`` over HTTP on this machine.
final class FakeHTTPServer: Sendable {
    let port: Int
    private let channel: any Channel

    /// - Parameter isSecure: Whether it speaks TLS, with a certificate that nobody signed.
    init(_ server: FakeSQS, isSecure: Bool = false) async throws {
        let tls = isSecure ? try Self.strangeTLS() : nil
        self.channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls { try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls)) }
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(Handler(server: server))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        self.port = self.channel.localAddress?.port ?? 0
    }

    /// A certificate of its own, made anew: no key lies in the repository.
    private static func strangeTLS() throws -> NIOSSLContext {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("stalk-sqs-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let (key, chain) = (directory.path + "/key.pem", directory.path + "/chain.pem")
        let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN=strange -days 2"
        let words = request.split(separator: " ").map(String.init)
        _ = try PythonTools.run("/usr/bin/env openssl", words + ["-keyout", key, "-out", chain])
        let certificates = try NIOSSLCertificate.fromPEMFile(chain).map { NIOSSLCertificateSource.certificate($0) }
        let privateKey = NIOSSLPrivateKeySource.privateKey(try NIOSSLPrivateKey(file: key, format: .pem))
        return try NIOSSLContext(
            configuration: .makeServerConfiguration(certificateChain: certificates, privateKey: privateKey)
        )
    }

    func stop() async { try? await self.channel.close() }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart

        private let server: FakeSQS
        private var headers: [(name: String, value: String)] = []
        private var body: [UInt8] = []

        init(server: FakeSQS) {
            self.server = server
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch self.unwrapInboundIn(data) {
            case .head(let head):
                self.headers = head.headers.map { (name: Self.canonical($0.name), value: $0.value) }
                self.body = []
            case .body(let part):
                self.body += part.readableBytesView
            case .end:
                let call = HTTPCall(url: "/", headers: self.headers, body: self.body, timeout: .seconds(30))
                Self.answer(call, from: self.server, on: context.channel)
            }
        }

        private static func answer(_ call: HTTPCall, from server: FakeSQS, on channel: any Channel) {
            Task {
                let answer = try? await server.send(call)
                channel.eventLoop.execute { Self.write(answer, to: channel) }
            }
        }

        /// Header names as the client wrote them, whatever a proxy made of them.
        private static func canonical(_ name: String) -> String {
            name.lowercased() == "x-amz-target" ? "X-Amz-Target" : name
        }

        private static func write(_ answer: HTTPAnswer?, to channel: any Channel) {
            guard let answer else {
                channel.close(promise: nil)
                return
            }
            var head = HTTPResponseHead(version: .http1_1, status: .init(statusCode: answer.status))
            for (name, value) in answer.headers { head.headers.add(name: name, value: value) }
            head.headers.add(name: "content-length", value: String(answer.body.count))
            channel.write(HTTPServerResponsePart.head(head), promise: nil)
            channel.write(HTTPServerResponsePart.body(.byteBuffer(ByteBuffer(bytes: answer.body))), promise: nil)
            channel.writeAndFlush(HTTPServerResponsePart.end(nil), promise: nil)
        }
    }
}
