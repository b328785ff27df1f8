// The binary `stalk` on the server in memory.

import Foundation
import StalkCore
import Subprocess
import Testing

@testable import StalkSQS

@Suite(.timeLimit(.minutes(5))) struct CommandTests {
    static let tool: String = {
        let tests = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return tests.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" } + "/stalk"
    }()

    private static func withServer(_ body: (FakeSQS, Subprocess.Environment) async throws -> Void) async throws {
        let fake = FakeSQS()
        fake.createQueue("mail")
        fake.createQueue("errors")
        let server = try await FakeHTTPServer(fake)
        let environment = Subprocess.Environment.inherit.updating([
            "AWS_ENDPOINT_URL": "http://127.0.0.1:\(server.port)", "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s",
        ])
        let result: Result<Void, any Error>
        do {
            result = .success(try await body(fake, environment))
        } catch {
            result = .failure(error)
        }
        await server.stop()
        try result.get()
    }

    private static func run(
        _ arguments: [String],
        _ environment: Subprocess.Environment,
        input: String = ""
    ) async throws -> (status: TerminationStatus, output: String, errors: String) {
        let result = try await Subprocess.run(
            .name("timeout"),
            arguments: Arguments(["60", Self.tool] + arguments),
            environment: environment,
            input: .inputWriter,
            output: .string(limit: 1 << 20),
            error: .string(limit: 1 << 20)
        ) { await feed(Array(input.utf8), to: $0.standardInputWriter) }
        return (result.terminationStatus, result.standardOutput, result.standardError)
    }

    @Test func putAndGetReachAQueue() async throws {
        try await Self.withServer { fake, environment in
            let put = try await Self.run(["put", "sqs://mail", "--lines"], environment, input: "one\ntwo\nthree\n")
            #expect(put.status == .exited(0), "\(put.errors)")
            #expect(Set(fake.messages("mail").map(\.body)) == ["one", "two", "three"])
            let get = try await Self.run(["get", "sqs://mail", "--max", "0", "--ack"], environment)
            #expect(Set(get.output.split(separator: "\n")) == ["one", "two", "three"], "\(get.errors)")
            #expect(fake.messages("mail").isEmpty)
        }
    }

    @Test func forwardMovesBetweenAnyTwoQueues() async throws {
        try await Self.withServer { fake, environment in
            let path = FileManager.default.temporaryDirectory.path + "/stalk-sqs-\(UUID().uuidString)"
            defer { try? FileManager.default.removeItem(atPath: path) }
            let environment = environment.updating(["STALK_STORE": "\(path)"])
            _ = try await Self.run(["put", "here", "--lines"], environment, input: "one\ntwo\nthree\n")
            for (from, to) in [("here", "sqs://mail"), ("sqs://mail", "sqs://errors"), ("sqs://errors", "back")] {
                let moved = try await Self.run(["forward", from, to, "--drain", "--json"], environment)
                #expect(moved.status == .exited(0) && moved.output.contains(#""forwarded":3,"#), "\(from): \(moved)")
            }
            #expect(fake.messages("mail").isEmpty && fake.messages("errors").isEmpty)
            let get = try await Self.run(["get", "back", "--max", "0", "--ack"], environment)
            #expect(Set(get.output.split(separator: "\n")) == ["one", "two", "three"], "\(get.errors)")
        }
    }

    @Test func whatIsMissingIsSaid() async throws {
        try await Self.withServer { _, environment in
            let gone = try await Self.run(["put", "sqs://nobody"], environment, input: "x")
            #expect(gone.status != .exited(0) && gone.errors.contains("nobody"), "\(gone.errors)")
            // IMDS would be asked for seconds.
            let poor = environment.updating([
                "AWS_ACCESS_KEY_ID": nil, "AWS_SECRET_ACCESS_KEY": nil, "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            ])
            let refused = try await Self.run(["put", "sqs://mail"], poor, input: "x")
            #expect(refused.status != .exited(0) && refused.errors.contains("AWS_ACCESS_KEY_ID"), "\(refused.errors)")
        }
    }

    /// The handler that runs may end, and what was received ahead is visible to others at once.
    @Test func aWorkerThatIsTerminatedGivesBackWhatItPrefetched() async throws {
        try await Self.withServer { fake, environment in
            for number in 0..<5 { fake.put("mail", body: "\(number)") }
            let sign = FileManager.default.temporaryDirectory.path + "/stalk-sqs-\(UUID().uuidString)"
            defer { try? FileManager.default.removeItem(atPath: sign) }
            // Not `timeout`: that one would pass the signal on twice.
            let work = [
                Self.tool, "work", "sqs://mail", "--error-queue", "errors", "-j", "1", "--", "sh",
                "-c", "touch \(sign); sleep 1",
            ]
            let result = try await Subprocess.run(
                .name("env"),
                arguments: Arguments(work),
                environment: environment,
                input: .none,
                output: .discarded,
                error: .string(limit: 1 << 16)
            ) { execution in
                let begun = ContinuousClock.now
                while !FileManager.default.fileExists(atPath: sign) {
                    try #require(begun.duration(to: .now) < .seconds(30), "no handler has begun")
                    try await ContinuousClock().sleep(for: .milliseconds(10))
                }
                try execution.send(signal: .terminate)
            }
            #expect(result.standardError.contains("1 acknowledged"), "\(result.standardError)")
            let (left, now) = (fake.messages("mail"), fake.clock.elapsed())
            #expect(left.count == 4)
            #expect(left.allSatisfy { $0.visibleAt <= now }, "\(left)")
            #expect(fake.messages("errors").isEmpty)
        }
    }
}

/// Writes all input that a command may not read: where it ends before, that is no failure.
///
/// `input: .string` would end the process of the tests then: its writer is thrown away without being closed.
func feed(_ input: [UInt8], to writer: StandardInputWriter) async {
    _ = try? await writer.write(input)
    try? await writer.finish()
}
