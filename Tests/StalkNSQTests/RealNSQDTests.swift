// A real nsqd, where there is one on PATH: the conformance suite, and every layer of a connection.

internal import NIOCore
internal import StalkCore
internal import StalkNSQ
internal import StalkTesting
internal import Subprocess
internal import Testing

#if canImport(Glibc)
    internal import Glibc
#endif

/// The program on PATH.
enum RealNSQD {
    static let path: String? = {
        let places = getenv("PATH").map { String(cString: $0) } ?? ""
        return places.split(separator: ":").map { "\($0)/nsqd" }.first { access($0, X_OK) == 0 }
    }()

    /// Runs an nsqd in a directory of its own for as long as `body` runs.
    static func run(
        _ options: [String] = [],
        _ body: @escaping @Sendable (NSQAddress) async throws -> Void
    ) async throws {
        let directory = "/tmp/stalk-nsqd-\(String(UInt64.random(in: 0 ... .max), radix: 16))"
        try #require(mkdir(directory, 0o700) == 0)
        let address = NSQAddress(host: "127.0.0.1", port: Int.random(in: 20_000..<32_000))
        let arguments = [
            "--tcp-address=\(address)", "--http-address=127.0.0.1:\(address.port + 1)", "--data-path=\(directory)",
            "--https-address=127.0.0.1:\(address.port + 2)", "--broadcast-address=127.0.0.1",
        ]
        let outcome = try await Subprocess.run(
            .name("nsqd"),
            arguments: Arguments(arguments + options),
            input: .none,
            output: .discarded,
            error: .discarded
        ) { execution in
            let result: Result<Void, any Error>
            do {
                try await Self.wait(for: address)
                result = .success(try await body(address))
            } catch {
                result = .failure(error)
            }
            try execution.send(signal: .terminate)
            return result
        }
        _ = try await Subprocess.run(.name("rm"), arguments: ["-r", directory], output: .discarded)
        try outcome.closureResult.get()
    }

    private static func wait(for address: NSQAddress) async throws {
        var configuration = NSQConfiguration(topic: "is-it-there", nsqds: [address])
        configuration.connectTimeout = .milliseconds(500)
        let probe = try NSQCollector(configuration)
        try await eventually("nsqd listens") {
            if let error = await code({ try await probe.publish(Message("?")) }) { return error != .unavailable }
            return true
        }
        await probe.close()
    }
}

/// Queues on a real nsqd, in real time.
private struct RealHarness: CollectorHarness {
    let address: NSQAddress

    var timing: ConformanceTiming { .real }

    func makeCollector() async throws -> NSQCollector {
        var configuration = NSQConfiguration(topic: "topic-\(UInt64.random(in: 0 ... .max))", nsqds: [self.address])
        configuration.envelope = true
        return try NSQCollector(configuration)
    }

    func advance(by duration: Duration) async throws { try await Task.sleep(for: duration) }

    func takeIsWaiting() async throws { try await Task.sleep(for: .milliseconds(100)) }

    func finishUp(_ collector: NSQCollector) async throws { await collector.close() }
}

@Suite(.enabled(if: RealNSQD.path != nil, "there is no nsqd on PATH"), .timeLimit(.minutes(10)))
struct RealNSQDTests {
    @Test func collectorKeepsItsPromises() async throws {
        try await RealNSQD.run { address in
            let passed = await withTaskGroup(of: Int.self) { group in
                // They mostly wait.
                for check in CollectorCheck.allCases {
                    group.addTask {
                        do {
                            let outcome = try await CollectorConformance(RealHarness(address: address)).run(check)
                            return outcome == .passed ? 1 : 0
                        } catch {
                            Issue.record(error, "\(check)")
                            return 0
                        }
                    }
                }
                return await group.reduce(0, +)
            }
            print("\(passed) of \(CollectorCheck.allCases.count) checks passed on the nsqd at \(RealNSQD.path ?? "")")
            #expect(passed == CollectorCheck.allCases.count - 6)
        }
    }

    @Test(arguments: [false, true], [nil, 6] as [Int?])
    func layersWorkTogether(tls: Bool, deflateLevel: Int?) async throws {
        let options =
            tls
            ? [
                "--tls-cert=\(certificate("server.pem"))", "--tls-key=\(certificate("server.key"))",
                "--tls-root-ca-file=\(certificate("ca.pem"))", "--tls-client-auth-policy=require-verify",
                "--tls-required=true",
            ] : []
        try await RealNSQD.run(options.filter { _ in tls }) { address in
            var configuration = NSQConfiguration(topic: "layers", nsqds: [address])
            configuration.tls = tls ? .test : nil
            configuration.deflateLevel = deflateLevel
            let collector = try NSQCollector(configuration)
            let bodies = (0..<500).map { Array("message \($0) \(String(repeating: "x", count: $0 * 10))".utf8) }
            for result in try await collector.publish(bodies.map { Message($0) }) { _ = try result.get() }
            try await collector.wake()
            #expect(Set(try await collector.takeAll(500).map(\.body)) == Set(bodies))
            await collector.close()
        }
    }
}
