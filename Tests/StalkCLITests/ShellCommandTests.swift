import Foundation
import StalkCore
import Subprocess
import Testing

@testable import StalkCLI

@Suite("Shell command")
struct ShellCommandTests {
    @Test(
        "The exit code decides",
        arguments: [
            ("exit 0", CommandOutcome.acknowledge), ("echo no >&2; exit 0", .acknowledge),
            ("exit 65", .deadLetter(reason: "exit 65")), ("exit 100", .deadLetter(reason: "exit 100")),
            ("echo bad address >&2; exit 65", .deadLetter(reason: "bad address")),
            ("exit 1", .retry(reason: "exit 1")), ("exit 75", .retry(reason: "exit 75")),
            ("printf 'a\\nb\\n\\n' >&2; exit 2", .retry(reason: "a\nb")),
            ("kill -9 $$", .retry(reason: "killed by signal 9")),
        ]
    )
    func exitCodes(script: String, outcome: CommandOutcome) async throws {
        #expect(try await Self.run(script) == outcome)
    }

    @Test("The body comes on standard input, byte for byte, also when it is larger than a pipe")
    func body() async throws {
        try await withTemporaryDirectory { directory in
            let body = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let outcome = try await Self.run("cat > \(directory)/body", body: body)
            #expect(outcome == .acknowledge)
            #expect(FileManager.default.contents(atPath: directory + "/body") == Data(body))
        }
    }

    @Test("A command that does not read its input breaks nothing")
    func unreadBody() async throws {
        signal(SIGPIPE, SIG_IGN)
        let body = [UInt8](repeating: 0x61, count: 1 << 20)
        #expect(try await Self.run("exec <&-; exit 0", body: body) == .acknowledge)
        #expect(try await Self.run("exit 7", body: body) == .retry(reason: "exit 7"))
    }

    @Test("The message stands in the environment")
    func environment() async throws {
        try await withTemporaryDirectory { directory in
            let script =
                "printf '%s|' $STALK_ID $STALK_QUEUE $STALK_ATTEMPT \"$STALK_HEADER_MY_TYPE\" > \(directory)/env"
            let headers: Headers = ["My.type": "two words", "Nul": "a\u{0}b"]
            let outcome = try await Self.run(script, headers: headers)
            #expect(outcome == .acknowledge)
            let text = FileManager.default.contents(atPath: directory + "/env").map {
                String(decoding: $0, as: UTF8.self)
            }
            #expect(text == "id-1|mail|2|two words|")
        }
    }

    @Test("Header names become names of variables")
    func variableNames() {
        #expect(ShellCommand.variableName(ofHeader: "Content-Type") == "STALK_HEADER_CONTENT_TYPE")
        #expect(ShellCommand.variableName(ofHeader: "a.b_9") == "STALK_HEADER_A_B_9")
    }

    @Test("A command that takes too long is ended, with what it started", .timeLimit(.minutes(10)))
    func timeout() async throws {
        try await withTemporaryDirectory { directory in
            let script = "sleep 60 & echo $! > \(directory)/child; echo start >&2; wait"
            let outcome = try await Self.run(script, timeout: .milliseconds(500))
            #expect(outcome == .retry(reason: "timed out after 500ms"))
            let text = try String(contentsOfFile: directory + "/child", encoding: .utf8)
            let child = try #require(pid_t(text.trimmingCharacters(in: .whitespacesAndNewlines)))
            #expect(Self.isGone(child))
        }
    }

    @Test("A command that ignores SIGTERM is killed", .timeLimit(.minutes(10)))
    func stubborn() async throws {
        let outcome = try await Self.run("trap '' TERM; while :; do sleep 1; done", timeout: .milliseconds(300))
        #expect(outcome == .retry(reason: "timed out after 300ms"))
    }

    @Test("A command that leaves something running in the background has ended all the same", .timeLimit(.minutes(10)))
    func background() async throws {
        #expect(try await Self.run("sleep 20 & exit 3") == .retry(reason: "exit 3"))
    }

    @Test("Cancelling kills the command", .timeLimit(.minutes(10)))
    func cancelled() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory + "/started"
            await withTaskGroup(of: Bool.self) { group in
                group.addTask {
                    do {
                        _ = try await Self.run("trap '' TERM; echo $$ > \(path); sleep 60")
                        return false
                    } catch {
                        return error is CancellationError
                    }
                }
                while !FileManager.default.fileExists(atPath: path) { await Task.yield() }
                group.cancelAll()
                #expect(await group.next() == true)
            }
        }
    }

    @Test("A missing command is found out before anything is taken")
    func missing() {
        for words in [["no-such-command-here"], ["/nonexistent/x"], ["/etc/passwd"], ["/tmp"], [""], []] {
            #expect { try ShellCommand(words, timeout: nil) } throws: { ($0 as? StalkError)?.code == .invalidArgument }
        }
    }

    @Test("A command that can't be started is a reason to retry")
    func notStarted() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory + "/script"
            try Data("#!/nonexistent/interpreter\n".utf8).write(to: URL(fileURLWithPath: path))
            chmod(path, 0o755)
            let outcome = try await ShellCommand([path], timeout: nil).run(Self.delivery())
            guard case .retry(let reason) = outcome else {
                Issue.record("\(outcome)")
                return
            }
            #expect(reason.hasPrefix("can't run "))
        }
    }

    @Test("The reason is the end of standard error, in whole lines where they fit")
    func tail() {
        let tail = StderrTail()
        for number in 1...500 { tail.append(Array("line \(number)\n".utf8)) }
        #expect(tail.text.utf8.count <= StderrTail.maxBytes)
        #expect(tail.text.hasSuffix("line 499\nline 500"))
        #expect(tail.text.hasPrefix("line "))
        let long = StderrTail()
        long.append(Array(String(repeating: "é", count: 2000).utf8))
        #expect(long.text.utf8.count <= StderrTail.maxBytes)
        #expect(long.text.allSatisfy { $0 == "é" })
        #expect(StderrTail().text.isEmpty)
    }

    private static func delivery(body: [UInt8] = [], headers: Headers = [:]) throws -> Delivery {
        Delivery(
            id: MessageID("id-1"),
            queue: try QueueName("mail"),
            body: body,
            headers: headers,
            attempt: 2,
            publishedAt: Timestamp(millisecondsSince1970: 0),
            receipt: Receipt("r")
        )
    }

    private static func run(
        _ script: String,
        body: [UInt8] = [],
        headers: Headers = [:],
        timeout: Duration? = nil
    ) async throws -> CommandOutcome {
        try await ShellCommand(["bash", "-c", script], timeout: timeout).run(
            Self.delivery(body: body, headers: headers)
        )
    }

    /// Whether a process has ended; one that nobody waited for yet has, too.
    private static func isGone(_ process: pid_t) -> Bool {
        for _ in 0..<1000 {
            let status = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
            if status?.contains(") Z ") ?? true { return true }
            usleep(1000)
        }
        return false
    }
}
