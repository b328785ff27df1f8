// The binary `stalk` on the scripted nsqd.

internal import FoundationEssentials
internal import StalkCore
internal import Subprocess
internal import Testing

@testable internal import StalkCLI
@testable internal import StalkNSQ

@Suite(.timeLimit(.minutes(5))) struct CommandTests {
    static let tool: String = {
        let tests = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return tests.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" } + "/stalk"
    }()

    private struct Outcome {
        var status: TerminationStatus
        var output: String
        var errors: String
    }

    private static func run(
        _ arguments: String...,
        input: String = "",
        host: String? = nil,
        seconds: Int = 60
    ) async throws -> Outcome {
        try await Self.run(arguments, input: input, host: host, seconds: seconds)
    }

    private static func run(
        _ arguments: [String],
        input: String = "",
        host: String? = nil,
        seconds: Int = 60
    ) async throws -> Outcome {
        let result = try await Subprocess.run(
            .name("timeout"),
            arguments: Arguments(["\(seconds)", Self.tool] + arguments),
            environment: .inherit.updating(["NSQ_HOST": host]),
            input: .inputWriter,
            output: .string(limit: 1 << 20),
            error: .string(limit: 1 << 20)
        ) { await feed(Array(input.utf8), to: $0.standardInputWriter) }
        return Outcome(status: result.terminationStatus, output: result.standardOutput, errors: result.standardError)
    }

    @Test func putAndGetReachATopic() async throws {
        try await withNSQ { servers, _ in
            let queue = await "nsq://127.0.0.1:\(servers[0].port)/mail"
            let put = try await Self.run("put", queue, "--lines", input: "one\ntwo\nthree\n")
            #expect(put.status == .exited(0), "\(put.errors)")
            #expect(await servers[0].published(to: "mail") == 3)
            // Without --ack they return.
            let look = try await Self.run("get", queue, "--max", "3")
            #expect(Set(look.output.split(separator: "\n")) == ["one", "two", "three"], "\(look.errors)")
            let get = try await Self.run("get", queue, "--max", "0", "--ack", "--format", "json")
            #expect(get.status == .exited(0), "\(get.errors)")
            #expect(get.output.split(separator: "\n").count == 3)
            #expect(get.output.contains(#""attempt":2"#))
            #expect(await servers[0].unfinished("mail", "stalk") == 0)
        }
    }

    @Test func getOfOneRaisesNoOthersAttempts() async throws {
        try await withNSQ { servers, _ in
            let queue = await "nsq://127.0.0.1:\(servers[0].port)/mail?channel=c"
            await servers[0].put((0..<10).map { Array("\($0)".utf8) }, "mail", delay: .zero)
            _ = try await Self.run("get", queue, "--ack")
            let rest = try await Self.run("get", queue, "--max", "0", "--ack", "--format", "json")
            #expect(rest.output.split(separator: "\n").count == 9)
            #expect(!rest.output.contains(#""attempt":2"#), "\(rest.output)")
        }
    }

    @Test func workSendsPoisonToTheErrorTopic() async throws {
        try await withNSQ { servers, _ in
            let queue = await "nsq://127.0.0.1:\(servers[0].port)/mail"
            await servers[0].put(["good", "poison"].map { Array($0.utf8) }, "mail", delay: .zero)
            let script = "read line; test $line = good || exit 65"
            async let work = Self.run(
                "work",
                queue,
                "--error-queue",
                "broken",
                "--",
                "sh",
                "-c",
                script,
                seconds: 10
            )
            try await eventually("both are done") {
                let published = await servers[0].published(to: "broken")
                let unfinished = await servers[0].unfinished("mail", "stalk")
                return published == 1 && unfinished == 0
            }
            #expect(await servers[0].backlog(of: "broken") == [Array("poison".utf8)])
            // `timeout` sends the SIGTERM that lets a worker finish.
            let outcome = try await work
            #expect(outcome.errors.contains("1 acknowledged, 0 retried, 1 dead-lettered"), "\(outcome)")
        }
    }

    @Test func hostComesFromTheEnvironment() async throws {
        try await withNSQ { servers, _ in
            let host = await "127.0.0.1:\(servers[0].port)"
            let put = try await Self.run("put", "nsq:///mail", input: "hello", host: host)
            #expect(put.status == .exited(0), "\(put.errors)")
            #expect(await servers[0].published(to: "mail") == 1)
        }
    }

    @Test func whatNSQCannotDoIsRefused() async throws {
        let queue = "nsq://127.0.0.1:1/mail"
        for (arguments, words) in [
            (["put", "nsq://127.0.0.1:1"], "no topic"), (["put", "nsq://127.0.0.1:1/a%20b"], "0x25"),
            (["get", queue + "?colour=red"], "colour"), (["get", "nsq://h:x/mail"], "h:x"),
            (["work", queue, "--drain", "--", "true"], "leave --drain out"),
            (["put", queue + "?channel"], "name=value"),
            (["work", queue, "--error-queue", "sqs://q", "--", "true"], "topic"),
            (["stats", queue], "only put, get, work and forward"),
        ] {
            let outcome = try await Self.run(arguments, input: "x")
            #expect(outcome.status == .exited(2), "\(arguments)")
            #expect(outcome.errors.contains(words), "\(arguments): \(outcome.errors)")
        }
        // Nobody there is another failure than a wrong question.
        let away = try await Self.run("put", queue, input: "x")
        #expect(away.status == .exited(1), "\(away.errors)")
    }

    @Test func addressesAreRead() throws {
        func configuration(_ text: String, _ environment: [String: String] = [:]) throws -> NSQConfiguration? {
            let isLookupd = text.hasPrefix("nsq+lookupd")
            guard let separator = text.firstRange(of: "://"),
                case .nsq(let configuration) = try QueueArgument.nsq(
                    text[separator.upperBound...],
                    isLookupd: isLookupd,
                    environment: environment
                )
            else { return nil }
            return configuration
        }
        let many = try configuration("nsq://a:1,[::1]:2,c/t?channel=x&envelope=on&deflate=3&ca=%2Fca.pem")
        #expect(many?.nsqds.map(\.description) == ["a:1", "[::1]:2", "c:4150"])
        #expect(many?.channel == "x" && many?.envelope == true && many?.deflateLevel == 3)
        #expect(many?.tls?.authorityFile == "/ca.pem" && many?.tls?.verification == .full)
        #expect(try configuration("nsq+lookupd://l/t#ephemeral")?.lookupds.map(\.port) == [4161])
        #expect(
            try configuration("nsq:///t", ["NSQ_HOST": "q.example"])?.nsqds.map(\.description) == ["q.example:4150"]
        )
        #expect(try configuration("nsq:///t")?.nsqds.map(\.description) == ["127.0.0.1:4150"])
        #expect(throws: StalkError.self) { try configuration("nsq+lookupd:///t") }
    }
}

/// Writes all input that a command may not read: where it ends before, that is no failure.
///
/// `input: .string` would end the process of the tests then: its writer is thrown away without being closed.
func feed(_ input: [UInt8], to writer: StandardInputWriter) async {
    _ = try? await writer.write(input)
    try? await writer.finish()
}
