import Foundation
import StalkCore
import Subprocess
import Testing

@testable import StalkCLI

/// `stalk verify` outlives whatever LMDB does with a damaged file.
@Suite("Verify") struct VerifyTests {
    @Test("A page that LMDB would crash on is damage: nothing crashes, and it ends with 6")
    func pageThatLMDBWouldCrashOn() async throws {
        try await withTemporaryDirectory { directory in
            let store = directory + "/store"
            var random = SystemRandomNumberGenerator()
            let body = (0..<50_000).map { _ in UInt8.random(in: 0...255, using: &random) }
            _ = try await Tool.run("put", "q", store: store, input: body)
            let intact = try await Tool.run("verify", store: store)
            #expect(intact.status == .exited(0), "\(intact.text)")
            // The node of a value on pages of its own: size, flags, size of the key, key. LMDB believes the size.
            let path = store + "/index/data.mdb"
            var data = try #require(FileManager.default.contents(atPath: path))
            let node = Data([1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1])
            var place = data.startIndex
            var changed = 0
            while let found = data[place...].range(of: node) {
                data[found.lowerBound - 1] = 0x30
                place = found.upperBound
                changed += 1
            }
            try #require(changed > 0)
            try data.write(to: URL(fileURLWithPath: path))

            let reader = try await Tool.run("verify-reader", store: store)
            #expect(reader.status == .exited(0), "\(reader.status) \(reader.text)")
            let text = try await Tool.run("verify", store: store)
            #expect(text.status == .exited(6), "\(text.text) \(text.errors)")
            #expect(text.text.contains("index/data.mdb") && text.text.contains("table messages"), "\(text.text)")
            // The processes that serve refuse the store by the same check.
            let stats = try await Tool.run("stats", store: store)
            #expect(stats.status == .exited(6), "\(stats.text) \(stats.errors)")
            #expect(stats.errors.contains("data.mdb is damaged at byte"), "\(stats.errors)")
            let json = try await Tool.run("verify", "--json", store: store)
            #expect(json.status == .exited(6))
            let object = try EndToEndTests.object(json)
            #expect(object["intact"] as? Bool == false)
            let problems = try #require(object["problems"] as? [[String: Any]])
            #expect(problems.contains { $0["file"] as? String == "index/data.mdb" && $0["offset"] is Int })
        }
    }

    @Test("Missing parts are damage", arguments: ["index", "log", "STALK"])
    func missingPart(name: String) async throws {
        try await withTemporaryDirectory { directory in
            let store = directory + "/store"
            _ = try await Tool.run("put", "q", store: store, input: [1, 2, 3])
            try FileManager.default.removeItem(atPath: "\(store)/\(name)")
            let outcome = try await Tool.run("verify", store: store)
            #expect(
                outcome.status == .exited(6) && outcome.text.contains("  \(name)"),
                "\(outcome.text) \(outcome.errors)"
            )
        }
    }

    @Test("A reader that dies, hangs, or refuses")
    func endsOfTheReader() async throws {
        try await withTemporaryDirectory { directory in
            let report = #"{"report":{"frames":1,"records":2,"messages":3,"tornBytes":0,"problems":[]}}"#
            let table = #"{"table":"ready","rows":7}"#
            func reader(
                _ name: String,
                _ script: String,
                patience: Duration = .seconds(120)
            ) throws -> VerifyReader {
                let path = "\(directory)/\(name)"
                try "#!/bin/sh\n\(script)\n".write(toFile: path, atomically: false, encoding: .utf8)
                try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: path)
                return VerifyReader(path: directory, program: path, patience: patience)
            }
            let whole = try await reader("whole", "echo '\(report)'").run { _, _ in }
            #expect(whole.problems.isEmpty && whole.messages == 3)

            let dead = try await reader("dead", "echo '\(report)'; echo '\(table)'; kill -SEGV $$").run { _, _ in }
            #expect(dead.messages == 3)
            #expect(
                dead.problems.map(\.what)
                    == ["LMDB crashed with SIGSEGV while reading it; last read: table ready, row 7"]
            )
            let early = try await reader("early", "kill -SEGV $$").run { _, _ in }
            #expect(early.problems.map(\.what) == ["the reader crashed with SIGSEGV while reading it"])

            let hung = try reader("hung", "echo '\(report)'; exec sleep 600", patience: .milliseconds(300))
            let problems = try await hung.run { _, _ in }.problems
            #expect(problems.count == 1 && problems[0].what.contains("hung while reading it and was killed"))

            let refusing = try reader("refusing", "exit 4")
            let exit = await #expect(throws: SilentExit.self) { try await refusing.run { _, _ in } }
            #expect(exit?.status == .storeBusy)
            let silent = try reader("silent", "exit 0")
            await #expect(throws: StalkError.self) { try await silent.run { _, _ in } }
        }
    }
}
