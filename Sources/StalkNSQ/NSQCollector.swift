// Messages over NSQ, behind the same calls as a local queue.

internal import NIOCore
internal import NIOPosix
internal import NIOSSL
public import StalkCore

/// A topic and channel of NSQ.
///
/// It publishes to one nsqd at a time and takes from all that it is told of or that nsqlookupd names. Connections are made
/// by the first publish and the first ``StalkCore/Collector/wake()``, and made again when they end, until ``close()``.
/// NSQ delivers at least once and in no order; its delays last an hour at most and are forgotten when nsqd restarts.
/// `docs/adapters.md` says what else it can't do.
public final class NSQCollector: Collector {
    /// The topic, without `#ephemeral`.
    public let queue: QueueName
    /// What NSQ can do, with the limits of the configuration.
    public let capabilities: CollectorCapabilities

    private let engine: Engine
    private let usesEnvelope: Bool

    /// Makes a collector, asleep and not connected.
    ///
    /// - Parameters:
    ///   - configuration: The topic, its servers, and how to talk to them.
    ///   - clock: What leases, waits and pauses are counted by.
    /// - Throws: ``StalkError`` naming a value that can't be, or a certificate that can't be read.
    public init(_ configuration: NSQConfiguration, clock: some Clock<Duration> = ContinuousClock()) throws(StalkError) {
        self.queue = try configuration.validate()
        self.capabilities = configuration.capabilities
        self.usesEnvelope = configuration.envelope
        self.engine = Engine(
            configuration: configuration,
            queue: self.queue,
            identity: .random(in: .min ... .max),
            tls: try configuration.tls?.makeContext(),
            clock: ElapsedClock(clock),
            eventLoop: MultiThreadedEventLoopGroup.singleton.next()
        )
    }

    deinit {
        // Whoever forgot to close it does not keep its connections for ever.
        let engine = self.engine
        engine.eventLoop.execute { engine.assumeIsolated { $0.hangUp() } }
    }

    /// Publishes messages; see ``StalkCore/Collector/publish(_:durability:)``.
    ///
    /// A message whose outcome nobody knows, because nsqd went away before it answered, fails with `interrupted`; one that
    /// was surely not published with another code. NSQ's ids are given at the delivery: without the envelope, the id that
    /// is returned here is not seen again.
    public func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>] {
        guard messages.count <= self.capabilities.maxBatch else {
            throw ConsumerStateMachine.batchTooLarge(messages.count, "messages", self.capabilities)
        }
        var bodies: [OutgoingBody] = []
        bodies.reserveCapacity(messages.count)
        var results: [Result<MessageID, StalkError>] = []
        results.reserveCapacity(messages.count)
        var positions: [Int] = []
        positions.reserveCapacity(messages.count)
        for message in messages {
            do throws(StalkError) {
                let body = try OutgoingBody(message, envelope: self.usesEnvelope, self.capabilities)
                bodies.append(body)
                positions.append(results.count)
                results.append(.success(body.id))
            } catch {
                results.append(.failure(error))
            }
        }
        if bodies.isEmpty { return results }
        for (position, answer) in zip(positions, try await self.engine.publish(bodies)) {
            if case .failure(let error) = answer { results[position] = .failure(error) }
        }
        return results
    }

    /// Takes messages; see ``StalkCore/Collector/take(_:)``.
    ///
    /// A `wait` of zero waits a moment all the same, ``NSQConfiguration/pollGrace``: nsqd pushes and can't be asked.
    public func take(_ request: TakeRequest) async throws -> [Delivery] {
        try await self.engine.take(request)
    }

    /// Ends deliveries; see ``StalkCore/Collector/finish(_:durability:)``.
    ///
    /// nsqd does not answer a FIN: success means that it was sent in time over the connection that the message came by.
    public func finish(_ completions: [Completion], durability: Durability) async throws -> [Result<Void, StalkError>] {
        try await self.engine.finish(completions)
    }

    /// Extends leases; see ``StalkCore/Collector/extend(_:lease:)``.
    public func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        try await self.engine.extend(receipts, lease: lease)
    }

    /// Changes how it delivers; see ``StalkCore/Collector/control(_:)``.
    ///
    /// Waking it connects.
    @discardableResult
    public func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        try await self.engine.control(command)
    }

    /// Gives back what is not finished, so that others get it at once, and hangs up.
    ///
    /// Publishes should be over by then: those that are not are answered as unknown.
    public func close() async {
        await self.engine.close()
    }

    /// How many takes wait for a message, so that tests need not guess.
    package var waitingTakes: Int {
        get async { await self.engine.takers.count }
    }

    /// What an envelope holds, for tests that look into a topic; `nil` where the body has none.
    package static func openEnvelope(_ body: [UInt8]) -> (headers: Headers, body: [UInt8])? {
        Envelope(decoding: body).map { ($0.headers, $0.body) }
    }

    /// FIN, REQ and TOUCH that nsqd refused since the collector was made: each is a message that came twice.
    public var lateRefusals: Int {
        get async { await self.engine.lateRefusals }
    }
}

extension NSQTLS {
    func makeContext() throws(StalkError) -> NIOSSLContext {
        var configuration = TLSConfiguration.makeClientConfiguration()
        do {
            if let file = self.authorityFile { configuration.trustRoots = .file(file) }
            if let file = self.certificateFile {
                configuration.certificateChain = try NIOSSLCertificate.fromPEMFile(file).map { .certificate($0) }
            }
            if let file = self.privateKeyFile {
                configuration.privateKey = .privateKey(try NIOSSLPrivateKey(file: file, format: .pem))
            }
            configuration.certificateVerification =
                switch self.verification {
                case .full: .fullVerification
                case .chain: .noHostnameVerification
                case .none: .none
                }
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw StalkError(.invalidArgument, "Can't use the certificates for NSQ: check the files.", cause: error)
        }
    }
}
