// One client's connection to the scripted nsqd.

internal import NIOCore
internal import NIOSSL
internal import StalkNSQ

/// Bytes to commands and frames to bytes, with TLS and deflate where they were agreed on.
final class ClientHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let server: ScriptedNSQD
    private let writeBytes: Int?
    private var number = 0
    private var decoder: CommandDecoder
    private var magic = ByteBuffer()
    private var hasMagic = false
    private var deflate: DeflateStream?
    private var inflate: DeflateStream?
    private var outgoing = ByteBuffer()
    private var context: ChannelHandlerContext?
    private(set) var isClosing = false
    private var endsAfterFlush = false
    /// The layer that begins behind the next flush.
    private var upgrade: (() throws -> Void)?

    init(_ server: ScriptedNSQD, writeBytes: Int?) {
        self.server = server
        self.writeBytes = writeBytes
        self.decoder = CommandDecoder(
            maxMessageBytes: server.options.maxMessageBytes,
            maxBodyBytes: server.options.maxBodyBytes
        )
    }

    func channelActive(context: ChannelHandlerContext) {
        self.context = context
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        self.number = self.server.assumeIsolated { $0.connected(bound) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.isClosing = true
        let number = self.number
        self.server.assumeIsolated { $0.disconnected(number) }
        self.context = nil
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    // MARK: Out

    func write(_ frame: NSQFrame) { frame.write(into: &self.outgoing) }

    func flush() {
        guard let context = self.context else { return }
        if self.outgoing.readableBytes > 0 {
            let bytes = self.outgoing
            self.outgoing.clear()
            if let deflate = self.deflate {
                try? deflate.process(bytes) { self.send($0, context) }
            } else {
                self.send(bytes, context)
            }
            context.flush()
        }
        if let upgrade = self.upgrade {
            self.upgrade = nil
            do { try upgrade() } catch { context.close(promise: nil) }
        }
        if self.endsAfterFlush { self.hangUp() }
    }

    private func send(_ bytes: ByteBuffer, _ context: ChannelHandlerContext) {
        var bytes = bytes
        guard let size = self.writeBytes else { return context.write(self.wrapOutboundOut(bytes), promise: nil) }
        while let piece = bytes.readSlice(length: min(size, bytes.readableBytes)), piece.readableBytes > 0 {
            context.writeAndFlush(self.wrapOutboundOut(piece), promise: nil)
        }
    }

    func hangUp() {
        self.isClosing = true
        self.context?.close(promise: nil)
    }

    func closeAfterFlush() {
        self.isClosing = true
        self.endsAfterFlush = true
    }

    // MARK: Layers

    /// Begins what IDENTIFY agreed on, in nsqd's order, each layer with an OK through it.
    func upgrade(tls: NIOSSLContext?, deflateLevel: Int?) {
        guard tls != nil || deflateLevel != nil else { return }
        self.upgrade = {
            if let tls {
                try self.context?.pipeline.syncOperations.addHandler(
                    NIOSSLServerHandler(context: tls),
                    position: .first
                )
                self.write(.ok)
                guard deflateLevel != nil else { return self.flush() }
                self.flush()
            }
            if let deflateLevel {
                self.deflate = try DeflateStream(.compress(level: deflateLevel))
                self.inflate = try DeflateStream(.decompress)
                self.write(.ok)
                self.flush()
            }
        }
    }

    // MARK: In

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = self.unwrapInboundIn(data)
        if !self.hasMagic {
            self.magic.writeBuffer(&bytes)
            guard let magic = self.magic.readString(length: 4) else { return }
            guard magic == NSQCommand.magic else { return context.close(promise: nil) }
            self.hasMagic = true
            bytes = self.magic
        }
        do {
            if let inflate = self.inflate {
                try inflate.process(bytes) { self.decoder.append($0) }
            } else {
                self.decoder.append(bytes)
            }
        } catch {
            return context.close(promise: nil)
        }
        self.decode()
    }

    private func decode() {
        var commands: [NSQCommand] = []
        var refusal: CommandRefusal?
        do throws(CommandRefusal) {
            while let command = try self.decoder.next() { commands.append(command) }
        } catch {
            refusal = error
        }
        let (number, text) = (self.number, refusal?.text)
        self.server.assumeIsolated {
            $0.received(commands, from: number)
            if let text { $0.refuse(text, number) }
        }
        self.flush()
    }
}
