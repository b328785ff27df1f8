import Foundation
import StalkCore
import Subprocess
import Testing

@testable import StalkCLI

/// The binary against a real store.
@Suite("End to end", .timeLimit(.minutes(10)))
struct EndToEndTests {
    @Test("One message is put, seen, taken, and gone")
    func oneMessage() async throws {
        try await Self.withStore { store in
            let put = try await Tool.run(
                "put",
                "mail",
                "--header",
                "Lang=en",
                store: store,
                input: Array("hello\n".utf8)
            )
            #expect(put.status == .exited(0) && put.errors.isEmpty)
            let id = try #require(put.lines.first)
            #expect(put.text == id + "\n")
            let mode = try FileManager.default.attributesOfItem(atPath: store)[.posixPermissions] as? Int
            #expect(mode == 0o700)

            let show = try Self.object(await Tool.run("show", id, "--json", store: store))
            #expect(show["body"] as? String == "hello\n" && show["state"] as? String == "ready")
            #expect(show["headers"] as? [String: String] == ["Lang": "en"] && show["attempts"] as? Int == 0)

            let get = try await Tool.run("get", "mail", "--ack", "--format", "json", store: store)
            #expect(try Self.object(get)["id"] as? String == id)
            #expect(try Self.object(get)["attempt"] as? Int == 1)

            let empty = try await Tool.run("get", "mail", store: store)
            #expect(empty.status == .exited(0) && empty.output.isEmpty && empty.errors.isEmpty)
            let gone = try await Tool.run("show", id, store: store)
            #expect(gone.status == .exited(3) && gone.errors.hasPrefix("stalk: "))
        }
    }

    @Test("Sixty thousand lines come back byte for byte")
    func manyLines() async throws {
        try await Self.withStore { store in
            let text = (1...60_000).map { "line \($0) é \(String(repeating: "x", count: $0 % 50))\n" }.joined()
            let put = try await Tool.run("put", "q", "--lines", store: store, input: Array(text.utf8))
            #expect(put.status == .exited(0) && put.output.isEmpty)
            #expect(put.errors == "60000 messages published\n")
            let get = try await Tool.run("get", "q", "--ack", "--max", "0", store: store)
            #expect(get.status == .exited(0))
            #expect(get.output == Array(text.utf8))
            let stats = try Self.object(await Tool.run("stats", "q", "--json", store: store))
            let queue = (stats["queues"] as? [[String: Any]])?.first
            #expect(queue?["ready"] as? Int == 0 && queue?["leased"] as? Int == 0)
        }
    }

    @Test("Ids are printed in input order, and the messages are behind them")
    func ids() async throws {
        try await Self.withStore { store in
            let text = (1...3000).map { "\($0)\n" }.joined()
            let put = try await Tool.run("put", "q", "--lines", "--ids", store: store, input: Array(text.utf8))
            #expect(put.errors.isEmpty)
            let get = try await Tool.run("get", "q", "--max", "0", "--format", "json", "--ack", store: store)
            let objects = try Self.objects(get)
            #expect(objects.compactMap { $0["id"] as? String } == put.lines)
            #expect(objects.compactMap { $0["body"] as? String } == (1...3000).map(String.init))
        }
    }

    @Test("Bytes of any kind go through, framed by NUL")
    func nulFraming() async throws {
        try await Self.withStore { store in
            let input: [UInt8] = [0xFF, 10, 13, 0, 0, 0x61, 0]
            let put = try await Tool.run("put", "q", "--null", "--json", store: store, input: input)
            #expect(put.text == "{\"published\":3}\n")
            let get = try await Tool.run("get", "q", "--max", "0", "--format", "json", store: store)
            let objects = try Self.objects(get)
            #expect(objects.map { $0["bodyBase64"] as? String } == ["/woN", nil, nil])
            #expect(objects.map { $0["body"] as? String } == [nil, "", "a"])
        }
    }

    @Test("A bad line of JSON stops there; what stands before it is durable")
    func badLine() async throws {
        try await Self.withStore { store in
            let text = "{\"body\":\"a\"}\n{\"body\":\"b\",\"priority\":3}\n{\"body\":\"c\"}\n"
            let put = try await Tool.run("put", "q", "--jsonl", store: store, input: Array(text.utf8))
            #expect(put.status == .exited(2))
            #expect(put.errors.contains("line 2: ") && put.errors.contains("\"priority\""))
            #expect(put.errors.contains("1 message is durable."))
            #expect(try await Tool.run("get", "q", "--max", "0", store: store).text == "a\n")
        }
    }

    @Test("Without --ack a message returns, and its attempt is not counted")
    func release() async throws {
        try await Self.withStore { store in
            _ = try await Tool.run("put", "q", "--lines", store: store, input: Array("a\nb\n".utf8))
            #expect(try await Tool.run("get", "q", "--max", "0", store: store).text == "a\nb\n")
            let again = try Self.objects(await Tool.run("get", "q", "--max", "0", "--format", "json", store: store))
            #expect(again.compactMap { $0["body"] as? String } == ["a", "b"])
            #expect(again.compactMap { $0["attempt"] as? Int } == [1, 1])
        }
    }

    @Test("A reader that leaves early ends the command quietly, and what it did not see stays")
    func closedPipe() async throws {
        try await Self.withStore { store in
            let text = (1...20_000).map { "line \($0)\n" }.joined()
            _ = try await Tool.run("put", "q", "--lines", store: store, input: Array(text.utf8))
            let head = try await Tool.shell("\"$STALK\" get q --ack --max 0 | head -n 1", store: store)
            #expect(head.text == "line 1\n" && head.errors.isEmpty)
            let rest = try await Tool.run("get", "q", "--ack", "--max", "0", store: store)
            let first = try #require(rest.lines.first?.split(separator: " ").last.flatMap { Int($0) })
            // What the pipe held was written and acknowledged: 64 KiB by default.
            #expect(first > 1 && first < 10_000)
            #expect(rest.lines.last == "line 20000")
            #expect(rest.lines.count == 20_000 - first + 1)
        }
    }

    @Test("A delayed message is not there yet, and waiting for it helps")
    func delay() async throws {
        try await Self.withStore { store in
            _ = try await Tool.run("put", "q", "--delay", "1h", store: store, input: Array("later".utf8))
            #expect(try await Tool.run("get", "q", store: store).output.isEmpty)
            let peek = try Self.objects(await Tool.run("peek", "q", "--state", "delayed", "--json", store: store))
            #expect(peek.first?["state"] as? String == "delayed")
            _ = try await Tool.run("put", "q", "--delay", "500ms", store: store, input: Array("sooner".utf8))
            #expect(try await Tool.run("get", "q", "--wait", "30s", "--ack", store: store).text == "sooner\n")
        }
    }

    @Test("A queue that is not there ends with 3")
    func noQueue() async throws {
        try await Self.withStore { store in
            _ = try await Tool.run("put", "q", store: store)
            for arguments in [
                ["get", "p"], ["peek", "p"], ["stats", "p"], ["redrive", "p"], ["work", "p", "--", "true"],
                ["show", "no-such-id"], ["kick", "p"], ["purge", "p"], ["kick", "--id", "no-such-id"],
                ["move", "no-such-id", "--to", "q"], ["delete", "no-such-id"],
            ] {
                let outcome = try await Tool.run(arguments, store: store)
                #expect(outcome.status == .exited(3), "\(arguments): \(outcome.errors)")
                #expect(outcome.output.isEmpty && outcome.errors.hasPrefix("stalk: "))
            }
        }
    }

    @Test("A message over the limit is refused, and nothing of it is written")
    func tooLarge() async throws {
        try await Self.withStore { store in
            let body = [UInt8](repeating: 0x61, count: (1 << 20) + 1)
            let put = try await Tool.run("put", "q", store: store, input: body)
            #expect(put.status == .exited(2) && put.output.isEmpty)
            #expect(put.errors.contains("1.0 MiB"))
            let largest = try await Tool.run("put", "q", store: store, input: Array(body.dropLast()))
            #expect(largest.status == .exited(0))
            #expect(try await Tool.run("get", "q", "--ack", store: store).output == body.dropLast() + [10])
        }
    }

    @Test(
        "An id comes out while the input is still open, and a signal then ends put in order",
        arguments: ["TERM", "INT"]
    )
    func interrupted(signal: String) async throws {
        try await Self.withStore { store in
            let put = try await Tool.shell(
                """
                exec 4>&2
                coproc PUT { exec "$STALK" put q --lines --ids 2>&4; }
                echo a >&"${PUT[1]}"
                read -r id <&"${PUT[0]}"
                kill -\(signal) $PUT_PID
                wait $PUT_PID; code=$?
                echo "$id"
                exit $code
                """,
                store: store
            )
            #expect(put.status == .exited(1))
            #expect(put.errors == "stalk: Interrupted: 1 message is durable.\n")
            let id = try #require(put.lines.first)
            #expect(try await Tool.run("show", id, store: store).status == .exited(0))
        }
    }

    @Test("Another process looks into a store that is in use, and takes from it")
    func shared() async throws {
        try await Self.withStore { store in
            let outcome = try await Tool.shell(
                """
                coproc PUT { exec "$STALK" put q --lines --ids; }
                echo a >&"${PUT[1]}"
                read -r id <&"${PUT[0]}"
                "$STALK" stats q --json | grep -o '"ready":1'
                "$STALK" get q --ack
                kill $PUT_PID
                """,
                store: store
            )
            #expect(outcome.lines == [#""ready":1"#, "a"], "\(outcome.errors)")
        }
    }

    @Test("verify finds an intact store intact")
    func verify() async throws {
        try await Self.withStore { store in
            _ = try await Tool.run("put", "q", "--lines", store: store, input: Array("a\nb\n".utf8))
            let text = try await Tool.run("verify", store: store)
            #expect(text.status == .exited(0) && text.text.hasPrefix("intact: "))
            let json = try Self.object(await Tool.run("verify", "--json", store: store))
            #expect(json["intact"] as? Bool == true)
        }
    }

    @Test("verify names the damage, and ends with 6")
    func damage() async throws {
        try await Self.withStore { store in
            let body = "a body that is stored as it is"
            _ = try await Tool.run("put", "q", store: store, input: Array(body.utf8))
            let paths = try FileManager.default.subpathsOfDirectory(atPath: store).map { store + "/" + $0 }
            var flipped = 0
            for path in paths {
                guard var bytes = FileManager.default.contents(atPath: path),
                    let range = bytes.range(of: Data(body.utf8))
                else { continue }
                bytes[range.lowerBound] ^= 1
                try bytes.write(to: URL(fileURLWithPath: path))
                flipped += 1
            }
            try #require(flipped > 0)
            let text = try await Tool.run("verify", store: store)
            #expect(text.status == .exited(6), "\(text.text) \(text.errors)")
            #expect(text.text.hasPrefix("DAMAGED: "))
            let json = try Self.object(await Tool.run("verify", "--json", store: store))
            #expect(json["intact"] as? Bool == false)
            #expect((json["problems"] as? [[String: Any]])?.isEmpty == false)
        }
    }

    static func withStore(_ body: (String) async throws -> Void) async throws {
        try await withTemporaryDirectory { try await body($0 + "/store") }
    }

    static func object(_ outcome: Tool.Outcome) throws -> [String: Any] {
        let objects = try Self.objects(outcome)
        return try #require(objects.count == 1 ? objects[0] : nil, "\(outcome.text) \(outcome.errors)")
    }

    static func objects(_ outcome: Tool.Outcome) throws -> [[String: Any]] {
        try outcome.output.split(separator: 10).map { line in
            try #require(JSONSerialization.jsonObject(with: Data(line)) as? [String: Any])
        }
    }
}
