// An nsqd of the tests' own: real sockets and the real protocol, and it does wrong what a test tells it to.

internal import NIOCore
internal import NIOPosix
internal import NIOSSL
internal import StalkCore
internal import StalkNSQ

/// What the server does with a command.
enum Reaction: Sendable {
    case obey
    /// Carry it out and keep the answer back.
    case obeyInSilence
    /// Carry it out and send an error as well.
    case obeyAndComplain(String)
    /// Say OK and do nothing: a server that loses messages.
    case forget
    /// Do nothing and say nothing.
    case ignore
    /// Answer with an error; all but those of FIN, REQ and TOUCH close the connection.
    case refuse(String)
    /// Close the connection without carrying it out.
    case hangUp
    /// Carry it out and close the connection before the answer.
    case obeyAndHangUp
}

/// One nsqd on a port of its own.
///
/// It lives on one event loop. Topics and channels, in-flight time-outs, delays, RDY, heartbeats, TLS, deflate and AUTH
/// work as in nsqd 1.3; times are taken from an injected clock, so that a test can let them pass.
actor ScriptedNSQD {
    struct Options: Sendable {
        var messageTimeout: Duration = .seconds(60)
        var maxMessageTimeout: Duration = .seconds(900)
        var maxDelay: Duration = .seconds(3600)
        var maxReadyCount = 2500
        var maxMessageBytes = 1 << 20
        var maxBodyBytes = 5 << 20
        var tls: NIOSSLContext?
        var allowsDeflate = true
        var authSecret: String?
        /// Whether it says that it is there; without, clients take it for dead.
        var sendsHeartbeats = true
        /// The most bytes in one write, to split frames; `nil` for as many as there are.
        var writeBytes: Int?
    }

    nonisolated let eventLoop: any EventLoop
    nonisolated var unownedExecutor: UnownedSerialExecutor { self.eventLoop.executor.asUnownedSerialExecutor() }

    /// All servers share two threads of their own: hundreds of tests run at a time.
    private static let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)

    let options: Options
    let clock: ElapsedClock
    var topics: [String: Topic] = [:]
    var clients: [Int: Client] = [:]
    private var nextClient = 1
    private var nextKey: UInt64 = 1
    private var channel: (any NIOCore.Channel)?
    private var ticker: RepeatedTask?
    private(set) var port = 0
    var reaction: (@Sendable (NSQCommand, Int) -> Reaction)?
    /// What came in, heartbeats' answers and the like included, while it is recorded.
    private(set) var commands: [NSQCommand] = []
    private var records = false
    private(set) var accepted = 0

    init(options: Options = Options(), clock: some Clock<Duration> = ContinuousClock()) {
        self.eventLoop = Self.group.next()
        self.options = options
        self.clock = ElapsedClock(clock)
    }

    nonisolated var address: NSQAddress {
        get async { await NSQAddress(host: "127.0.0.1", port: self.port) }
    }

    // MARK: Life

    func start(port: Int = 0) async throws {
        let server = ServerBootstrap(group: self.eventLoop)
            .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(ChannelOptions.socketOption(.tcp_nodelay), value: 1)
            .childChannelOption(
                .recvAllocator,
                value: AdaptiveRecvByteBufferAllocator(minimum: 1 << 10, initial: 1 << 16, maximum: 1 << 19)
            )
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        ClientHandler(self, writeBytes: self.options.writeBytes)
                    )
                }
            }
        let channel = try await server.bind(host: "127.0.0.1", port: port).get()
        self.channel = channel
        self.port = channel.localAddress?.port ?? 0
        let interval = TimeAmount.milliseconds(20)
        self.ticker = self.eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { _ in
            self.assumeIsolated { $0.tick() }
        }
    }

    /// Closes everything; what is in the topics stays, as after a restart with all of it on disk.
    func stop() async {
        self.ticker?.cancel()
        try? await self.channel?.close()
        self.channel = nil
        self.dropClients()
    }

    /// Closes each connection.
    func dropClients() {
        for client in self.clients.values { client.handler.value.hangUp() }
    }

    func react(_ reaction: (@Sendable (NSQCommand, Int) -> Reaction)?) { self.reaction = reaction }
    func record(_ records: Bool) {
        self.records = records
        if records { self.commands = [] }
    }

    // MARK: Clients

    func connected(_ handler: NIOLoopBound<ClientHandler>) -> Int {
        defer { self.nextClient += 1 }
        self.accepted += 1
        self.clients[self.nextClient] = Client(handler: handler)
        return self.nextClient
    }

    func disconnected(_ number: Int) {
        guard let client = self.clients.removeValue(forKey: number) else { return }
        if let (topic, channel) = client.subscription {
            self.topics[topic]?.channels[channel]?.clients.removeAll { $0 == number }
        }
    }

    /// Carries out the commands of one read.
    func received(_ commands: [NSQCommand], from number: Int) {
        for command in commands {
            guard let handler = self.clients[number]?.handler.value, !handler.isClosing else { return }
            if self.records { self.commands.append(command) }
            switch self.reaction?(command, number) ?? .obey {
            case .obey: self.obey(command, number, isSilent: false)
            case .obeyInSilence: self.obey(command, number, isSilent: true)
            case .obeyAndComplain(let text):
                self.obey(command, number, isSilent: false)
                self.refuse(text, number)
            case .forget: handler.write(.ok)
            case .ignore: break
            case .refuse(let text): self.refuse(text, number)
            case .hangUp: handler.hangUp()
            case .obeyAndHangUp:
                self.obey(command, number, isSilent: true)
                handler.hangUp()
            }
        }
        for client in self.clients.values { client.handler.value.flush() }
    }

    func refuse(_ text: String, _ number: Int) {
        let handler = self.clients[number]?.handler.value
        handler?.write(.error(text))
        let isHarmless = ["E_FIN_FAILED", "E_REQ_FAILED", "E_TOUCH_FAILED"].contains { text.hasPrefix($0) }
        if !isHarmless { handler?.closeAfterFlush() }
    }

    func makeKey() -> MessageKey {
        defer { self.nextKey += 1 }
        // Sixteen hexadecimal digits, like nsqd's.
        func digits(_ number: UInt64) -> UInt64 {
            (0..<8).reduce(0) { text, place in
                let nibble = number >> UInt64(28 - 4 * place) & 0xF
                return text << 8 | (nibble < 10 ? 0x30 + nibble : 0x57 + nibble)
            }
        }
        return MessageKey(high: digits(0x0a12_3456), low: digits(self.nextKey))
    }
}
