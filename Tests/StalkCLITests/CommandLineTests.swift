import ArgumentParser
import StalkCore
import Testing

@testable import StalkCLI

@Suite("Command line")
struct CommandLineTests {
    @Test(
        "Every kind of failure has its exit code",
        arguments: [
            (2, [.invalidArgument, .invalidQueueName, .bodyTooLarge, .delayOutOfRange, .unsupported, .foreignReceipt]),
            (3, [.noSuchStore, .noSuchQueue, .noSuchMessage]), (4, [.storeBusy]), (5, [.storageFull]),
            (6, [.storeDamaged, .corruptValue]),
            (
                1,
                [
                    .staleReceipt, .storageFailed, .newerFormat, .notAStore, .networkFileSystem, .permissionDenied,
                    .closed, .unavailable, .interrupted,
                ]
            ),
        ] as [(Int32, [StalkError.Code])]
    )
    func exitStatus(status: Int32, codes: [StalkError.Code]) {
        for code in codes { #expect(ExitStatus(code).rawValue == status, "\(code)") }
    }

    @Test("An error is one sentence, with what caused it below")
    func errorText() {
        let cause = StalkError(.storageFailed, "The disk failed.")
        let failure = CommandFailure(StalkError(.storageFull, "No room.", cause: cause))
        #expect(failure.text == "stalk: No room.\n  because: The disk failed.\n")
        #expect(CommandFailure(OutputClosed()).text == nil)
        #expect(CommandFailure(OutputClosed()).status == .success)
    }

    @Test("The store is named by the option, then by the environment")
    func storePath() throws {
        func path(_ option: String?, _ environment: [String: String]) throws -> String {
            try StoreOptions.path(option: option) { environment[$0] }
        }
        let all = ["STALK_STORE": "/s", "XDG_STATE_HOME": "/x", "HOME": "/h"]
        #expect(try path("o", all) == "o")
        #expect(try path(nil, all) == "/s")
        #expect(try path(nil, ["STALK_STORE": "", "XDG_STATE_HOME": "/x", "HOME": "/h"]) == "/x/stalk")
        #expect(try path(nil, ["XDG_STATE_HOME": "relative", "HOME": "/h"]) == "/h/.local/state/stalk")
        #expect(throws: StalkError.self) { try path(nil, [:]) }
        #expect(throws: StalkError.self) { try path("", all) }
    }

    @Test("The store may be named before and behind the command")
    func storeOption() throws {
        let before = try StalkCommand.parseAsRoot(["--store", "/a", "get", "q"])
        #expect((before as? GetCommand)?.storeOptions.store == "/a")
        let behind = try StalkCommand.parseAsRoot(["get", "q", "--store", "/a"])
        #expect((behind as? GetCommand)?.storeOptions.store == "/a")
    }

    @Test(
        "URLs of remote queues are refused, and bad names too",
        arguments: [
            ("sqs://q?region=eu-west-1", StalkError.Code.unsupported), ("nsq://h:4150/t", .unsupported),
            ("https://sqs.eu-west-1.amazonaws.com/1/q", .unsupported), ("a b", .invalidQueueName),
            ("", .invalidQueueName),
        ]
    )
    func queueArgument(text: String, code: StalkError.Code) {
        #expect { try localQueueName(text) } throws: { ($0 as? StalkError)?.code == code }
    }

    @Test("The options of put")
    func putOptions() throws {
        let put = try PutCommand.parse([
            "q", "-", "--jsonl", "--ids", "--delay", "2m", "--header", "A=b=c", "--header", "D=", "--durability",
            "written",
        ])
        #expect(put.file == "-" && put.framing == .jsonl && put.ids && put.delay == .seconds(120))
        #expect(put.headers.map(\.name) == ["A", "D"] && put.headers.map(\.value) == ["b=c", ""])
        #expect(put.durability.durability == .written)
        #expect(try PutCommand.parse(["q"]).durability.durability == .synced)
    }

    @Test(
        "Wrong usage is refused",
        arguments: [
            ["put"], ["put", "q", "--lines", "--null"], ["put", "q", "--delay", "5"], ["put", "q", "--header", "x"],
            ["put", "q", "--header", "a b=c"], ["put", "q", "--durability", "no"], ["get", "q", "--max", "-1"],
            ["get", "q", "--wait", "1"], ["get", "q", "--format", "xml"], ["work", "q"], ["work", "q", "true"],
            ["work", "q", "-j", "0", "--", "true"], ["work", "q", "--timeout", "0s", "--", "true"],
            ["work", "q", "--max-attempts", "0", "--", "true"], ["peek", "q", "--state", "lost"],
            ["peek", "q", "--max", "0"], ["redrive", "q", "--max", "0"], ["show"], ["nonsense"], ["verify", "q"],
            ["kick"], ["kick", "q", "--id", "1"], ["kick", "--id", "1", "--max", "2"], ["kick", "q", "--max", "0"],
            ["move"], ["move", "1"], ["move", "--to", "q"], ["delete"], ["purge"], ["purge", "q", "--max", "0"],
            ["purge", "q", "--state", "leased"],
        ]
    )
    func wrongUsage(arguments: [String]) {
        #expect { try StalkCommand.parseAsRoot(arguments) } throws: { error in
            let failure = CommandFailure(error)
            return failure.status == .wrongUsage && failure.text?.hasPrefix("stalk: ") == true
        }
    }

    @Test("The options of work, and the command behind them as it stands")
    func workOptions() throws {
        let work = try WorkCommand.parse(
            [
                "q", "-j", "4", "--max-attempts", "3", "--retry-interval", "500ms", "--drain", "--", "sh", "-c",
                "--json", "--",
            ])
        #expect(work.jobs == 4 && work.drain && !work.json)
        #expect(work.command == ["sh", "-c", "--json", "--"])
        #expect(try work.retryPolicy() == .fixed(.milliseconds(500), maxAttempts: 3))
        let plain = try WorkCommand.parse(["q", "--", "true"])
        #expect(try plain.retryPolicy() == .standard)
    }
}
