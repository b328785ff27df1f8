import Foundation
import StalkCore
import StalkTesting
import StalkWorker
import Testing

@testable import StalkSQS

/// A server of somebody else that speaks the SQS protocol, as a child of the tests.
final class RealServer: Sendable {
    enum Kind: String, CaseIterable { case moto, ministack }

    private struct Key: Decodable {
        var id: String
        var secret: String
    }

    let configuration: SQSConfiguration
    private let input: FileHandle
    private let process: Process

    /// Where the program is; `nil` where it was not installed.
    static func program(_ kind: Kind) -> String? {
        let tools = PythonTools.root.path + "/.build-tools"
        let named = kind == .moto ? "moto_server" : "ministack"
        let places = [tools + "/sqs/bin/", tools + "/moto/bin/"].map { $0 + named }
        if let place = places.first(where: { FileManager.default.isExecutableFile(atPath: $0) }) { return place }
        let found = try? PythonTools.run("/usr/bin/env which", [named])
        return found.map { String(decoding: $0, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines) }
    }

    /// Both servers' names, as far as they are here, for tests that run on each.
    static let present = Kind.allCases.filter { PythonTools.pythonWithBotocore != nil && RealServer.program($0) != nil }

    init(_ kind: Kind) throws {
        let python = try #require(PythonTools.pythonWithBotocore).split(separator: " ").map { String($0) }
        let port = Int.random(in: 20_000..<32_000)
        let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("Oracle/real_server.py").path
        self.process = Process()
        self.process.executableURL = URL(fileURLWithPath: python[0])
        self.process.arguments =
            python.dropFirst() + [script, kind.rawValue, String(port), try #require(Self.program(kind))]
        let (stdin, stdout) = (Pipe(), Pipe())
        self.process.standardInput = stdin
        self.process.standardOutput = stdout
        try self.process.run()
        self.input = stdin.fileHandleForWriting
        var line = Data()
        while !line.contains(UInt8(ascii: "\n")) {
            let more = stdout.fileHandleForReading.availableData
            if more.isEmpty { throw PythonTools.Failed(status: 1) }
            line += more
        }
        let key = try JSONDecoder().decode(Key.self, from: line)
        self.configuration = SQSConfiguration(
            region: "us-east-1",
            endpoint: "http://127.0.0.1:\(port)",
            credentials: Credentials(accessKeyID: key.id, secretAccessKey: key.secret)
        )
    }

    /// Makes a queue; a collector makes none.
    func createQueue(_ name: String, _ attributes: [String: String] = [:]) async throws {
        let transport = HTTPTransport()
        var request = SignableRequest(
            headers: [
                (name: "Host", value: try Endpoint(self.configuration.endpoint ?? "").authority),
                (name: "Content-Type", value: "application/x-amz-json-1.0"),
                (name: "X-Amz-Target", value: "AmazonSQS.CreateQueue"),
            ]
        )
        let members: [String: JSON] = [
            "QueueName": .string(name), "Attributes": .object(attributes.mapValues { .string($0) }),
        ]
        request.body = JSON.object(members).written
        var signer = Signer(region: "us-east-1", service: "sqs")
        let credentials = try #require(self.configuration.credentials)
        request.headers += signer.sign(request, with: credentials, at: .system())
        let call = HTTPCall(
            url: "\(self.configuration.endpoint ?? "")/",
            headers: request.headers,
            body: request.body,
            timeout: .seconds(10)
        )
        let answer = try await transport.send(call)
        await transport.close()
        try #require(answer.status == 200, "\(String(decoding: answer.body, as: UTF8.self))")
    }

    func stop() {
        try? self.input.close()
        self.process.waitUntilExit()
    }
}

/// Reaches a collector on a real server, in real time.
struct RealHarness: CollectorHarness {
    let server: RealServer
    private let names = Atomic64()

    init(server: RealServer) {
        self.server = server
    }

    var timing: ConformanceTiming {
        ConformanceTiming(unit: .seconds(2), tolerance: .milliseconds(900), patience: .seconds(30))
    }

    func makeCollector() async throws -> SQSCollector {
        let name = "queue-\(self.names.increment())-\(UInt32.random(in: .min ... .max))"
        try await self.server.createQueue(name)
        try await self.server.createQueue("errors-\(name)")
        var configuration = self.server.configuration
        configuration.errorQueue = "errors-\(name)"
        return try await SQSCollector.open(name, configuration: configuration)
    }

    func advance(by duration: Duration) async throws { try await ContinuousClock().sleep(for: duration) }

    func takeIsWaiting() async throws { try await ContinuousClock().sleep(for: .milliseconds(300)) }

    func finishUp(_ collector: SQSCollector) async throws { await collector.close() }
}

@Suite(.serialized) struct RealServerTests {
    /// Where the servers themselves keep less than SQS's documentation says.
    private static let knownGaps: [RealServer.Kind: Set<CollectorCheck>] = [
        // Its threads look whether a message is visible and hide it in two steps, without a lock.
        .moto: [.takersShareWithoutDuplicates]
    ]

    @Test(
        .enabled(if: !RealServer.present.isEmpty, "no other SQS server is installed: see tools/lib/requirements.sh"),
        .timeLimit(.minutes(10)),
        arguments: RealServer.present
    )
    func conforms(kind: RealServer.Kind) async throws {
        let server = try RealServer(kind)
        defer { server.stop() }
        let harness = RealHarness(server: server)
        let gaps = Self.knownGaps[kind] ?? []
        try await withThrowingTaskGroup(of: Void.self) { group in
            // moto serves one request at a time.
            let width = kind == .moto ? 6 : 16
            for (index, check) in CollectorCheck.allCases.enumerated() {
                if index >= width { try await group.next() }
                group.addTask {
                    await withKnownIssue("\(kind) keeps less here", isIntermittent: true) {
                        do {
                            _ = try await CollectorConformance(harness).run(check)
                        } catch {
                            Issue.record(error, "\(kind) \(check)")
                        }
                    } when: {
                        gaps.contains(check)
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    /// A handler of ten seconds on a lease of three; of 180 on 30 with `STALK_SQS_HANDLER_SECONDS=180`.
    @Test(
        .enabled(if: RealServer.present.contains(.ministack), "MiniStack is not installed"),
        .timeLimit(.minutes(10))
    )
    func aHandlerOutlivesItsLeaseAndAStopGivesBackWhatWasPrefetched() async throws {
        let seconds = ProcessInfo.processInfo.environment["STALK_SQS_HANDLER_SECONDS"].flatMap { Int($0) } ?? 10
        let server = try RealServer(.ministack)
        defer { server.stop() }
        try await server.createQueue("long")
        var configuration = server.configuration
        configuration.prefetch = 10
        let collector = try await SQSCollector.open("long", configuration: configuration)
        _ = try await collector.publish((0..<5).map { Message("\($0)") })
        let (begun, starting) = AsyncStream.makeStream(of: Delivery.self)
        let (stop, stopping) = AsyncStream.makeStream(of: Never.self)
        let worker = Worker(
            collector: collector,
            options: WorkerOptions(lease: .seconds(max(3, seconds / 6))),
            until: { for await _ in stop {} },
            handler: { delivery in
                starting.yield(delivery)
                try await ContinuousClock().sleep(for: .seconds(seconds))
                return .acknowledge
            }
        )
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await worker.run() }
            for await _ in begun { break }
            // Three leases later the first handler still has its message, and the others wait behind it.
            stopping.finish()
            try await group.waitForAll()
        }
        #expect(worker.counters.acknowledged == 1)
        #expect(worker.counters.lostLeases == 0)
        await collector.close()
        let other = try await SQSCollector.open("long", configuration: server.configuration)
        try await other.wake()
        let rest = try await other.take(TakeRequest(max: 10, wait: .seconds(2)))
        #expect(rest.count == 4, "\(rest.map(\.text))")
        await other.close()
    }
}
