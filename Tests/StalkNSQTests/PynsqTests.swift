// The official Python client, pynsq, against the scripted nsqd: what it accepts, nsqd would say; and the same client at
// the other end of topics that this one writes and reads.

internal import StalkCore
internal import StalkNSQ
internal import Subprocess
internal import Testing

#if canImport(Glibc)
    internal import Glibc
#endif

/// Where `tools/lib/requirements.sh` put a Python with pynsq.
private enum Pynsq {
    static let root = #filePath.split(separator: "/").dropLast(3).reduce("") { "\($0)/\($1)" }
    static let python = root + "/.build-tools/nsq/bin/python"
    static let isHere = access(python, X_OK) == 0

    /// Runs the client to its end and returns what it printed.
    static func run(
        _ action: String,
        _ server: ScriptedNSQD,
        _ count: Int,
        _ options: [String] = []
    ) async throws -> String {
        let script = Self.root + "/Tests/StalkNSQTests/Oracle/pynsq_client.py"
        let address = await "127.0.0.1:\(server.port)"
        let result = try await Subprocess.run(
            .name("timeout"),
            arguments: Arguments(["60", Self.python, script, action, address, "orders", "\(count)"] + options),
            output: .string(limit: 1 << 20),
            error: .string(limit: 1 << 20)
        )
        try #require(result.terminationStatus.isSuccess, "pynsq: \(result.standardError)")
        return result.standardOutput
    }

    /// The attempts by number, as the client printed them.
    static func attempts(_ text: String) throws -> [Int: Int] {
        guard case .object(let members) = try JSON(parsing: text.utf8.filter { $0 != 0x0A }) else { return [:] }
        return Dictionary(
            uniqueKeysWithValues: members.compactMap { name, value in
                guard let number = Int(name), let attempts = value.integer else { return nil }
                return (number, attempts)
            }
        )
    }

    /// What the client is to have counted.
    static func expected(_ count: Int) -> [Int: Int] {
        Dictionary(uniqueKeysWithValues: (0..<count).map { ($0, $0 % 7 == 0 ? 2 : 1) })
    }
}

@Suite(
    .enabled(if: Pynsq.isHere, "there is no pynsq here: tools/test installs it where PyPI can be reached"),
    .timeLimit(.minutes(10))
) struct PynsqTests {
    enum Layers: CaseIterable {
        case plain, deflate, tls, tlsDeflateAuth
    }

    private static func options(of layers: Layers) throws -> (ScriptedNSQD.Options, [String]) {
        var options = ScriptedNSQD.Options()
        var arguments: [String] = []
        if layers == .deflate || layers == .tlsDeflateAuth { arguments.append("--deflate") }
        if layers == .tls || layers == .tlsDeflateAuth {
            options.tls = try .testServer(wantsClientCertificate: true)
            arguments += ["--certificates", certificate("").split(separator: "/").reduce("") { "\($0)/\($1)" }]
        }
        if layers == .tlsDeflateAuth {
            options.authSecret = "open sesame"
            arguments += ["--auth", "open sesame"]
        }
        return (options, arguments)
    }

    @Test(arguments: Layers.allCases)
    func pynsqWorksOnTheScriptedServer(layers: Layers) async throws {
        let (options, arguments) = try Self.options(of: layers)
        try await withNSQ(options: options) { servers, _ in
            #expect(try await Pynsq.run("publish", servers[0], 60, arguments).contains("60"))
            #expect(await servers[0].published(to: "orders") == 60)
            let attempts = try Pynsq.attempts(try await Pynsq.run("consume", servers[0], 60, arguments))
            #expect(attempts == Pynsq.expected(60))
            #expect(await servers[0].unfinished("orders", "stalk") == 0)
        }
    }

    @Test func collectorReadsWhatPynsqWrites() async throws {
        try await withNSQ { servers, collector in
            _ = try await Pynsq.run("publish", servers[0], 60)
            try await collector.wake()
            let taken = try await collector.takeAll(60)
            #expect(Set(taken.compactMap { Int($0.text) }) == Set(0..<60))
        }
    }

    @Test func pynsqReadsWhatCollectorWrites() async throws {
        try await withNSQ { servers, collector in
            for result in try await collector.publish((0..<59).map { Message("\($0)") }) { _ = try result.get() }
            try await collector.publish(Message("59", delay: .milliseconds(100)))
            let attempts = try Pynsq.attempts(try await Pynsq.run("consume", servers[0], 60))
            #expect(attempts == Pynsq.expected(60))
        }
    }
}
