// One connection on its event loop: bytes to frames, the handshake, heartbeats, and noticing that the peer is gone.

internal import NIOCore
internal import NIOSSL
internal import StalkCore

/// Names a connection of one collector, never used twice.
struct ConnectionID: Hashable, Sendable {
    var number: UInt64
}

/// What a connection tells its owner, on the event loop.
struct ConnectionEvents {
    var ready: (ServerFeatures) -> Void
    /// Frames that came together, heartbeats left out.
    var frames: ([NSQFrame]) -> Void
    /// The end, told once: what was not answered until now never will be.
    var closed: (StalkError) -> Void
}

final class ConnectionHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    struct Settings {
        var address: NSQAddress
        var wish: Handshake.Wish
        var tls: NIOSSLContext?
        var tlsHostname: String?
        var maxMessageBytes: Int
        var handshakeTimeout: Duration
    }

    private let settings: Settings
    private let events: ConnectionEvents
    private var handshake: Handshake
    private var decoder: FrameDecoder
    private var deflate: DeflateStream?
    private var inflate: DeflateStream?
    private var context: ChannelHandlerContext?
    private var frames: [NSQFrame] = []
    private var lastRead = NIODeadline.now()
    private var failure: StalkError?
    private var hasBegun = false
    private var isClosed = false
    private var outgoing = ByteBuffer()

    init(_ settings: Settings, _ events: ConnectionEvents) {
        self.settings = settings
        self.events = events
        self.handshake = Handshake(settings.wish)
        self.decoder = FrameDecoder(maxMessageBytes: settings.maxMessageBytes)
    }

    // MARK: Sending

    /// Puts a command behind what is to be sent; ``flush(promise:)`` sends it.
    func write(_ command: NSQCommand) {
        command.write(into: &self.outgoing)
    }

    /// Sends what was written; the promise succeeds once the operating system has it.
    func flush(promise: EventLoopPromise<Void>? = nil) {
        guard let context = self.context, !self.isClosed else {
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        defer { self.outgoing.clear() }
        guard let deflate = self.deflate else {
            context.writeAndFlush(self.wrapOutboundOut(self.outgoing), promise: promise)
            return
        }
        do {
            try deflate.process(self.outgoing) { context.write(self.wrapOutboundOut($0), promise: nil) }
            context.writeAndFlush(self.wrapOutboundOut(ByteBuffer()), promise: promise)
        } catch {
            promise?.fail(error)
            self.fail(error)
        }
    }

    /// Ends the connection; the owner hears of it.
    func close(_ error: StalkError) {
        self.failure = self.failure ?? error
        self.context?.close(promise: nil)
    }

    // MARK: Life

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { self.begin(context) }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.end()
        self.context = nil
    }

    func channelActive(context: ChannelHandlerContext) {
        self.begin(context)
    }

    private func begin(_ context: ChannelHandlerContext) {
        // The handler is added to a connected channel, whose activation may still be on its way.
        guard !self.hasBegun else { return }
        self.hasBegun = true
        self.outgoing.writeString(NSQCommand.magic)
        self.write(self.handshake.identify)
        self.flush()
        self.lastRead = .now()
        let loopBound = NIOLoopBound(self, eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: TimeAmount(self.settings.handshakeTimeout)) {
            guard !loopBound.value.handshake.isReady else { return }
            loopBound.value.close(
                StalkError(.unavailable, "nsqd at \(loopBound.value.settings.address) did not answer the handshake.")
            )
        }
        let interval = TimeAmount(self.settings.wish.heartbeatInterval)
        context.eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { task in
            loopBound.value.checkLife(longest: interval + interval, task)
        }
    }

    /// Ends a connection whose peer was silent for two heartbeats: nothing else tells that the other end is gone.
    private func checkLife(longest: TimeAmount, _ task: RepeatedTask) {
        guard !self.isClosed else { return task.cancel() }
        guard NIODeadline.now() - self.lastRead > longest else { return }
        self.close(
            StalkError(.unavailable, "nsqd at \(self.settings.address) was silent for two heartbeats: it is gone.")
        )
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.end()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        self.fail(error)
    }

    private func fail(_ error: any Error) {
        let what = self.handshake.isReady ? "The connection to" : "Connecting to"
        let stalkError =
            error as? StalkError
            ?? StalkError(.unavailable, "\(what) nsqd at \(self.settings.address) failed.", cause: error)
        self.close(stalkError)
    }

    private func end() {
        guard !self.isClosed else { return }
        self.isClosed = true
        self.deliverFrames()
        self.events.closed(
            self.failure ?? StalkError(.unavailable, "nsqd at \(self.settings.address) closed the connection.")
        )
    }

    // MARK: Reading

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        self.lastRead = .now()
        let bytes = self.unwrapInboundIn(data)
        do {
            try self.take(bytes, context)
        } catch let error as ProtocolViolation {
            self.close(
                StalkError(.unavailable, "nsqd at \(self.settings.address) broke the protocol: \(error).", cause: error)
            )
        } catch {
            self.fail(error)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        self.deliverFrames()
        context.fireChannelReadComplete()
    }

    private func deliverFrames() {
        guard !self.frames.isEmpty else { return }
        let frames = self.frames
        self.frames.removeAll(keepingCapacity: true)
        self.events.frames(frames)
    }

    private func take(_ bytes: ByteBuffer, _ context: ChannelHandlerContext) throws {
        guard let inflate = self.inflate else {
            self.decoder.append(bytes)
            return try self.decode(context)
        }
        var failure: (any Error)?
        try inflate.process(bytes) { piece throws(ProtocolViolation) in
            guard failure == nil else { return }
            self.decoder.append(piece)
            do { try self.decode(context) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    private func decode(_ context: ChannelHandlerContext) throws {
        while let frame = try self.decoder.next() {
            if self.handshake.isReady {
                if frame == .heartbeat {
                    self.write(.nop)
                    self.flush()
                } else {
                    self.frames.append(frame)
                }
            } else if try self.negotiate(frame, context) {
                // What follows belongs to the next layer, which was handed it.
                return
            }
        }
    }

    /// Takes a step of the handshake; returns whether the rest of the bytes went to a new layer.
    private func negotiate(_ frame: NSQFrame, _ context: ChannelHandlerContext) throws -> Bool {
        for action in try self.handshake.received(frame) {
            switch action {
            case .send(let command):
                self.write(command)
                self.flush()
            case .startTLS:
                try self.startTLS(context)
            case .startDeflate(let level):
                self.deflate = try DeflateStream(.compress(level: level))
                self.inflate = try DeflateStream(.decompress)
                let rest = self.decoder.takePending()
                if rest.readableBytes > 0 { try self.take(rest, context) }
                return true
            case .ready(let features):
                self.events.ready(features)
            }
        }
        return false
    }

    private func startTLS(_ context: ChannelHandlerContext) throws {
        guard self.decoder.pendingBytes == 0 else {
            // Bytes in the clear behind the answer would be taken for bytes of the encrypted stream.
            throw ProtocolViolation("bytes came in the clear after TLS was agreed on")
        }
        guard let tls = self.settings.tls else { throw ProtocolViolation("TLS was agreed on without being asked for") }
        let handler = try NIOSSLClientHandler(context: tls, serverHostname: self.settings.tlsHostname)
        try context.pipeline.syncOperations.addHandler(handler, position: .first)
    }
}

extension TimeAmount {
    init(_ duration: Duration) {
        let (seconds, attoseconds) = duration.components
        self = .nanoseconds(seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
    }
}
