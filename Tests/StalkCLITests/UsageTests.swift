import Subprocess
import Testing

@testable import StalkCLI

/// What the binary does before it opens a store.
@Suite("Usage")
struct UsageTests {
    @Test("Help and version go to standard output", arguments: [["--help"], ["help", "put"], ["work", "--help"], []])
    func help(arguments: [String]) async throws {
        let outcome = try await Tool.run(arguments)
        #expect(outcome.status == .exited(0))
        #expect(outcome.text.contains("USAGE: stalk"))
        #expect(outcome.errors.isEmpty)
    }

    @Test("The version is one line")
    func version() async throws {
        let outcome = try await Tool.run("--version")
        #expect(outcome.status == .exited(0))
        #expect(outcome.text.wholeMatch(of: /[0-9]+\.[0-9]+\.[0-9]+\n/) != nil)
    }

    @Test("Help names every command and every exit code")
    func helpIsWhole() async throws {
        let text = try await Tool.run("--help").text
        for command in [
            "put", "get", "work", "stats", "peek", "show", "kick", "redrive", "move", "delete", "purge", "verify",
            "repair", "backup", "compact", "bench",
        ] {
            #expect(text.contains("\n  \(command) "))
        }
        #expect(text.split(separator: "\n").allSatisfy { $0.count <= 80 })
    }

    @Test("Wrong usage ends with 2, and says how it is used on standard error")
    func wrongUsage() async throws {
        for arguments in [["put"], ["get", "q", "--wait", "5"], ["nonsense"], ["work", "q"]] {
            let outcome = try await Tool.run(arguments)
            #expect(outcome.status == .exited(2))
            #expect(outcome.output.isEmpty)
            #expect(outcome.errors.hasPrefix("stalk: ") && outcome.errors.contains("Usage: stalk"))
        }
    }

    @Test("An address without an adapter is refused, naming it")
    func unknownAddress() async throws {
        for arguments in [["put", "nats://q"], ["get", "nats://h:1/t"], ["work", "nats://q", "--", "true"]] {
            let outcome = try await Tool.run(arguments)
            #expect(outcome.status == .exited(2))
            #expect(outcome.errors.contains("no adapter for nats"))
        }
    }

    @Test("A remote queue is refused where a command works in the store alone")
    func remoteQueue() async throws {
        for arguments in [
            ["stats", "https://h/q"], ["peek", "sqs://q"], ["redrive", "sqs://q"], ["kick", "sqs://q"],
            ["purge", "sqs://q"], ["move", "1", "--to", "sqs://q"],
            ["work", "q", "--error-queue", "sqs://q", "--", "true"],
        ] {
            let outcome = try await Tool.run(arguments)
            #expect(outcome.status == .exited(2))
            #expect(outcome.errors.contains("only put, get, work and forward go there"))
        }
    }

    @Test("An SQS address that can't be read is refused, saying what is wrong")
    func brokenSQSAddress() async throws {
        for (address, words) in [
            ("sqs://q?colour=red", "colour"), ("sqs://q?region", "name=value"), ("sqs://a b", "0x20"),
            ("sqs://q?endpoint=localhost&region=eu-west-1", "no endpoint"), ("sqs://q?region=a%zz", "a%zz"),
        ] {
            let outcome = try await Tool.run("get", address)
            #expect(outcome.status == .exited(2), "\(address)")
            #expect(outcome.errors.contains(words), "\(outcome.errors)")
        }
    }

    @Test("A bad queue name is refused, naming the byte")
    func queueName() async throws {
        let outcome = try await Tool.run("put", "a/b")
        #expect(outcome.status == .exited(2))
        #expect(outcome.errors.contains("0x2F ('/') at position 1"))
    }

    @Test("Arguments that are not UTF-8 are refused instead of changed")
    func notUTF8() async throws {
        let outcome = try await Tool.shell(#"exec "$STALK" put q --header $'K=\xff' < /dev/null"#)
        #expect(outcome.status == .exited(2))
        #expect(outcome.errors.contains("Argument 4 is not UTF-8"))
    }

    @Test("Only put makes a store; the others say that there is none, and end with 3")
    func noStore() async throws {
        try await withTemporaryDirectory { directory in
            let store = directory + "/store"
            for arguments in [
                ["get", "q"], ["work", "q", "--", "true"], ["stats"], ["peek", "q"], ["show", "1-1"], ["redrive", "q"],
                ["kick", "q"], ["kick", "--id", "1"], ["move", "1", "--to", "q"], ["delete", "1"], ["purge", "q"],
                ["verify"], ["repair"], ["repair", "--apply"], ["backup", directory + "/copy"], ["compact"],
            ] {
                let outcome = try await Tool.run(arguments, store: store)
                #expect(outcome.status == .exited(3), "\(arguments)")
                #expect(outcome.errors.contains("There is no store at \(store)"))
            }
            let nothing = try await Tool.run("put", "q", "--lines", store: store)
            #expect(nothing.status == .exited(0))
            #expect(nothing.errors == "0 messages published\n")
            let exists = try await Tool.shell("test -e \(store)").status == .exited(0)
            #expect(!exists)
        }
    }

    @Test("A missing file and a missing command are found out before a store is made")
    func missing() async throws {
        try await withTemporaryDirectory { directory in
            let file = try await Tool.run("put", "q", directory + "/nothing", store: directory + "/store")
            #expect(file.status == .exited(2))
            #expect(file.errors.contains("No such file or directory"))
            let command = try await Tool.run("work", "q", "--", "no-such-command", store: directory + "/store")
            #expect(command.status == .exited(2))
            #expect(command.errors.contains("was not found in PATH"))
        }
    }
}
