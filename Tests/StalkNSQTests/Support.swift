// What the tests of real connections share.

internal import NIOSSL
internal import StalkCore
internal import StalkNSQ
internal import Testing

#if canImport(Glibc)
    internal import Glibc
#endif

extension NIOSSLContext {
    /// A server's context, that wants a certificate from clients where it is told to.
    static func testServer(wantsClientCertificate: Bool = false) throws -> NIOSSLContext {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMFile(certificate("server.pem")).map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(file: certificate("server.key"), format: .pem))
        )
        if wantsClientCertificate {
            configuration.certificateVerification = .noHostnameVerification
            configuration.trustRoots = .file(certificate("ca.pem"))
        }
        return try NIOSSLContext(configuration: configuration)
    }
}

extension NSQTLS {
    static var test: NSQTLS {
        NSQTLS(
            authorityFile: certificate("ca.pem"),
            certificateFile: certificate("client.pem"),
            privateKeyFile: certificate("client.key")
        )
    }
}

/// Lets a few tests through at a time: each has servers, connections and timers, and a small machine has two cores.
actor Turnstile {
    static let shared = Turnstile(places: 6)

    private var free: Int
    private var waiting: [CheckedContinuation<Void, Never>] = []

    init(places: Int) {
        self.free = places
    }

    func pass<Value: Sendable>(_ body: @Sendable () async throws -> Value) async throws -> Value {
        if self.free > 0 { self.free -= 1 } else { await withCheckedContinuation { self.waiting.append($0) } }
        defer { if self.waiting.isEmpty { self.free += 1 } else { self.waiting.removeFirst().resume() } }
        return try await body()
    }
}

/// Runs a test on scripted nsqds and one collector, and takes them down whatever happens.
func withNSQ(
    servers count: Int = 1,
    options: ScriptedNSQD.Options = ScriptedNSQD.Options(),
    _ change: @escaping @Sendable (inout NSQConfiguration) -> Void = { _ in },
    _ body: @escaping @Sendable ([ScriptedNSQD], NSQCollector) async throws -> Void
) async throws {
    try await Turnstile.shared.pass {
        let servers = (0..<count).map { _ in ScriptedNSQD(options: options) }
        var configuration = NSQConfiguration(topic: "orders")
        for server in servers {
            try await server.start()
            configuration.nsqds.append(await server.address)
        }
        configuration.reconnectCap = .milliseconds(200)
        configuration.rotationInterval = .milliseconds(20)
        change(&configuration)
        let collector = try NSQCollector(configuration)
        let result: Result<Void, any Error>
        do {
            result = .success(try await body(servers, collector))
        } catch {
            result = .failure(error)
        }
        await collector.close()
        for server in servers { await server.stop() }
        try result.get()
    }
}

extension NSQCollector {
    /// Takes until this many came, or fails.
    func takeAll(_ count: Int, finishing: Bool = true) async throws -> [Delivery] {
        var taken: [Delivery] = []
        while taken.count < count {
            let more = try await self.take(TakeRequest(max: min(count - taken.count, 1000), wait: .seconds(20)))
            try #require(!more.isEmpty, "\(count - taken.count) of \(count) messages did not come")
            if finishing { _ = try await self.finish(more.map { Completion($0.receipt, .acknowledge) }) }
            taken += more
        }
        return taken
    }
}

/// The code of the error that a call ends with.
func code(_ call: () async throws -> some Any) async -> StalkError.Code? {
    do {
        _ = try await call()
        return nil
    } catch {
        return (error as? StalkError)?.code
    }
}
