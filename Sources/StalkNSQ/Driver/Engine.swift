// Where decisions meet the network: an actor that lives on one event loop, with its connections on the same one.

internal import NIOCore
internal import NIOPosix
internal import NIOSSL
internal import StalkCore

/// One collector's connections, timers and waiting callers.
///
/// Its executor is the event loop that its channels run on, so channel callbacks enter it without a hop and the order of
/// what is decided is the order of what is sent.
actor Engine {
    struct Link {
        enum Purpose {
            case consume, publish
        }

        let purpose: Purpose
        let address: NSQAddress
        let handler: NIOLoopBound<ConnectionHandler>
        var isReady = false
    }

    enum PublishWaiter {
        case caller(CheckedContinuation<[Result<Void, StalkError>], Never>)
        case deadLetter(UInt64)
    }

    enum DeadLetterWait {
        case open
        case waiting(CheckedContinuation<Result<Void, StalkError>, Never>)
        case over(Result<Void, StalkError>)
    }

    /// Which nsqd publishes go to.
    enum Outlet {
        case none
        case connecting(ConnectionID, rest: [NSQAddress])
        case ready(ConnectionID)
    }

    nonisolated let eventLoop: any EventLoop
    nonisolated var unownedExecutor: UnownedSerialExecutor { self.eventLoop.executor.asUnownedSerialExecutor() }

    let configuration: NSQConfiguration
    let clock: ElapsedClock
    let tls: NIOSSLContext?

    var consumer: ConsumerStateMachine
    var producer: ProducerStateMachine
    var nodes: NodeBook
    var links: [ConnectionID: Link] = [:]
    var nextNumber: UInt64 = 1
    var generator = SystemRandomNumberGenerator()

    var takers: [UInt64: CheckedContinuation<[Delivery], any Error>] = [:]
    var cancelledTakers: Set<UInt64> = []
    var publishers: [UInt64: PublishWaiter] = [:]
    var deadLetters: [UInt64: DeadLetterWait] = [:]

    var isConsuming = false
    var isClosed = false
    var consumeFailure: StalkError?
    var wakeWaiters: [CheckedContinuation<Void, Never>] = []
    var closeWaits: Set<ConnectionID> = []
    var closeWaiter: CheckedContinuation<Void, Never>?

    var outlet = Outlet.none
    var outletAddress: NSQAddress?
    /// The nsqds that can take a publish, as nsqlookupd named them.
    var listedOutlets: [NSQAddress] = []
    var hasLookedUp: Bool
    var lookup: Task<Void, Never>?

    var isPumpScheduled = false
    var isRotationScheduled = false
    var timer: Task<Void, Never>?
    var timerMoment: Duration?
    /// FIN, REQ and TOUCH that nsqd refused: their messages come again, or came already.
    var lateRefusals = 0

    init(
        configuration: NSQConfiguration,
        queue: QueueName,
        identity: UInt64,
        tls: NIOSSLContext?,
        clock: ElapsedClock,
        eventLoop: any EventLoop
    ) {
        self.eventLoop = eventLoop
        self.configuration = configuration
        self.clock = clock
        self.tls = tls
        self.consumer = ConsumerStateMachine(queue: queue, identity: identity, configuration: configuration)
        self.producer = ProducerStateMachine(
            maxBatch: configuration.maxBatch,
            maxBatchBytes: configuration.maxBatchBytes,
            linger: configuration.linger
        )
        self.nodes = NodeBook(direct: configuration.nsqds, reconnectCap: configuration.reconnectCap)
        self.hasLookedUp = configuration.lookupds.isEmpty
    }

    func number() -> UInt64 {
        defer { self.nextNumber += 1 }
        return self.nextNumber
    }

    func checkOpen() throws(StalkError) {
        guard !self.isClosed else {
            throw StalkError(.closed, "The collector of \(self.consumer.queue) is closed: make a new one.")
        }
    }

    // MARK: Connections

    func connect(to address: NSQAddress, _ id: ConnectionID, _ purpose: Link.Purpose) {
        let role: ConnectionRole =
            purpose == .publish
            ? .publisher
            : .subscriber(topic: self.configuration.topic, channel: self.configuration.channel)
        // An address is not sent as the name that the certificate is to show.
        let hostname = (try? SocketAddress(ipAddress: address.host, port: address.port)) == nil ? address.host : nil
        let settings = ConnectionHandler.Settings(
            address: address,
            wish: Handshake.Wish(
                clientID: self.configuration.clientID,
                heartbeatInterval: self.configuration.heartbeatInterval,
                messageTimeout: self.configuration.messageTimeout,
                outputBufferTimeout: self.configuration.outputBufferTimeout,
                tls: self.tls != nil,
                deflateLevel: self.configuration.deflateLevel,
                authSecret: self.configuration.authSecret,
                role: role
            ),
            tls: self.tls,
            tlsHostname: hostname,
            maxMessageBytes: self.configuration.maxMessageBytes,
            handshakeTimeout: self.configuration.connectTimeout
        )
        let events = ConnectionEvents(
            ready: { features in self.assumeIsolated { $0.connectionReady(id, features) } },
            frames: { frames in self.assumeIsolated { $0.received(frames, from: id) } },
            closed: { error in self.assumeIsolated { $0.connectionClosed(id, error) } }
        )
        let handler = NIOLoopBound(ConnectionHandler(settings, events), eventLoop: self.eventLoop)
        self.links[id] = Link(purpose: purpose, address: address, handler: handler)
        ClientBootstrap(group: self.eventLoop)
            .connectTimeout(TimeAmount(self.configuration.connectTimeout))
            .channelOption(ChannelOptions.socketOption(.tcp_nodelay), value: 1)
            .channelOption(
                .recvAllocator,
                value: AdaptiveRecvByteBufferAllocator(minimum: 1 << 10, initial: 1 << 16, maximum: 1 << 19)
            )
            .channelOption(.autoRead, value: false)
            .connect(host: address.host, port: address.port)
            // Only now, since of a name with several addresses there were several channels; nothing was read before.
            .flatMapThrowing { channel in
                try channel.pipeline.syncOperations.addHandler(handler.value)
                return channel
            }
            .flatMap { (channel: any Channel) in channel.setOption(.autoRead, value: true) }
            .whenFailure { error in
                let failure = StalkError(.unavailable, "Can't connect to nsqd at \(address).", cause: error)
                self.assumeIsolated { $0.connectionClosed(id, failure) }
            }
    }

    private func connectionReady(_ id: ConnectionID, _ features: ServerFeatures) {
        guard let link = self.links[id], !self.isClosed else { return }
        self.links[id]?.isReady = true
        switch link.purpose {
        case .consume:
            self.nodes.connected(id)
            self.consumeFailure = nil
            self.perform(self.consumer.connected(id, features, now: self.clock.elapsed()))
            self.resumeWakers()
        case .publish:
            self.outlet = .ready(id)
            self.outletAddress = link.address
            self.producer.connected()
            self.pump()
        }
        self.armTimer()
    }

    private func connectionClosed(_ id: ConnectionID, _ error: StalkError) {
        guard let link = self.links.removeValue(forKey: id) else { return }
        switch link.purpose {
        case .consume: self.consumerLost(id, error)
        case .publish: self.outletLost(id, error)
        }
        self.armTimer()
    }

    private func received(_ frames: [NSQFrame], from id: ConnectionID) {
        guard let link = self.links[id] else { return }
        switch link.purpose {
        case .consume: self.consumed(frames, from: id)
        case .publish: self.answered(frames, from: id)
        }
    }

    func close(_ id: ConnectionID, _ error: StalkError) {
        self.links[id]?.handler.value.close(error)
    }

    // MARK: Time

    /// Wakes this actor when the next thing is due; to be called after whatever may change that.
    func armTimer() {
        guard !self.isClosed else { return }
        self.scheduleRotation()
        var moments = [self.consumer.nextMoment, self.producer.nextMoment]
        if self.isConsuming { moments.append(self.nodes.nextMoment) }
        guard let moment = moments.compactMap(\.self).min() else { return }
        if let armed = self.timerMoment, armed <= moment { return }
        self.timer?.cancel()
        self.timerMoment = moment
        let sleep = self.clock.sleep
        self.timer = Task { [weak self] in
            guard (try? await sleep(moment)) != nil else { return }
            await self?.timerFired(moment)
        }
    }

    private func scheduleRotation() {
        guard !self.isRotationScheduled, self.consumer.rotates else { return }
        self.isRotationScheduled = true
        self.eventLoop.scheduleTask(in: TimeAmount(self.configuration.rotationInterval)) {
            self.assumeIsolated { $0.rotate() }
        }
    }

    private func rotate() {
        self.isRotationScheduled = false
        guard !self.isClosed, self.consumer.rotates else { return }
        self.perform(self.consumer.rotate(now: self.clock.elapsed()))
        self.armTimer()
    }

    private func timerFired(_ moment: Duration) {
        guard self.timerMoment == moment, !self.isClosed else { return }
        self.timerMoment = nil
        let now = self.clock.elapsed()
        self.perform(self.consumer.advance(to: now))
        self.answer(self.producer.advance(to: now))
        self.pump()
        if self.isConsuming { self.connectConsumers() }
        self.armTimer()
    }

    // MARK: The end

    /// Tells nsqd to send no more, gives everything back that is not finished, and hangs up.
    func close() async {
        guard !self.isClosed else { return }
        self.isClosed = true
        self.lookup?.cancel()
        self.timer?.cancel()
        self.resumeWakers()
        self.closeWaits = Set(self.links.filter { $0.value.purpose == .consume && $0.value.isReady }.keys)
        self.perform(self.consumer.startClosing())
        if !self.closeWaits.isEmpty {
            await withCheckedContinuation { continuation in
                self.closeWaiter = continuation
                self.eventLoop.scheduleTask(in: TimeAmount(self.configuration.connectTimeout)) {
                    self.assumeIsolated { $0.endCloseWait() }
                }
            }
        }
        let flushed = self.perform(self.consumer.close(), promising: true)
        for future in flushed.values { try? await future.get() }
        self.hangUp()
    }

    func endCloseWait() {
        self.closeWaiter?.resume()
        self.closeWaiter = nil
    }

    /// Hangs up without a word.
    func hangUp() {
        self.isClosed = true
        self.lookup?.cancel()
        self.timer?.cancel()
        let error = StalkError(.closed, "The collector of \(self.consumer.queue) was closed.")
        for id in Array(self.links.keys) { self.close(id, error) }
        self.answer(self.producer.disconnected(error) + self.producer.unreachable(error))
        self.perform(self.consumer.startClosing())
    }
}
