import Foundation
import Subprocess
import Testing

@testable import StalkCLI

/// `stalk kick`, `move`, `delete` and `purge` against a real store.
@Suite("Changes by hand, end to end", .timeLimit(.minutes(10)))
struct ChangeTests {
    private static func put(_ text: String, _ more: String..., store: String) async throws -> String {
        let put = try await Tool.run(["put", "q"] + more, store: store, input: Array(text.utf8))
        return try #require(put.lines.first)
    }

    private static func figures(_ queue: String, store: String) async throws -> [Int] {
        let stats = try EndToEndTests.object(await Tool.run("stats", queue, "--json", store: store))
        let figures = (stats["queues"] as? [[String: Any]])?.first ?? [:]
        return ["ready", "delayed", "leased", "dead"].map { figures[$0] as? Int ?? -1 }
    }

    @Test("Delayed messages are kicked, by queue and by id")
    func kick() async throws {
        try await EndToEndTests.withStore { store in
            for text in ["1", "2", "3"] { _ = try await Self.put(text, "--delay", "1h", store: store) }
            let last = try await Self.put("4", "--delay", "2h", store: store)
            let plan = try await Tool.run("kick", "q", "--max", "3", "--dry-run", "--json", store: store)
            #expect(plan.text == "{\"wouldKick\":3}\n")
            #expect(try await Self.figures("q", store: store) == [0, 4, 0, 0])
            #expect(try await Tool.run("kick", "q", "--max", "2", store: store).text == "2\n")
            #expect(try await Self.figures("q", store: store) == [2, 2, 0, 0])
            let one = try await Tool.run("kick", "--id", last, "--id", last, "--json", store: store)
            #expect(one.text == "{\"kicked\":1}\n")
            #expect(try await Tool.run("kick", "--id", last, store: store).text == "0\n")
            let taken = try await Tool.run("get", "q", "--max", "0", "--ack", store: store)
            #expect(taken.lines == ["1", "2", "4"])
        }
    }

    @Test("Messages are moved, all of them or none")
    func move() async throws {
        try await EndToEndTests.withStore { store in
            let ready = try await Self.put("ready", store: store)
            let late = try await Self.put("late", "--delay", "1h", store: store)
            let wrong = try await Tool.run("move", ready, "0000000000099", "--to", "other", store: store)
            #expect(wrong.status == .exited(3) && wrong.errors.contains("0000000000099"))
            #expect(try await Self.figures("q", store: store) == [1, 1, 0, 0])
            let plan = try await Tool.run("move", ready, late, "--to", "other", "--dry-run", store: store)
            #expect(plan.text == "2\n")
            let moved = try await Tool.run("move", ready, late, "--to", "other", "--json", store: store)
            #expect(moved.text == "{\"moved\":2}\n")
            #expect(try await Self.figures("q", store: store) == [0, 0, 0, 0])
            #expect(try await Self.figures("other", store: store) == [2, 0, 0, 0])
        }
    }

    @Test("Messages are deleted by id, and a queue is purged")
    func deleteAndPurge() async throws {
        try await EndToEndTests.withStore { store in
            let first = try await Self.put("first", store: store)
            for text in ["a", "b"] { _ = try await Self.put(text, store: store) }
            _ = try await Self.put("late", "--delay", "1h", store: store)
            #expect(
                try await Tool.run("delete", first, "--dry-run", "--json", store: store).text == "{\"wouldDelete\":1}\n"
            )
            #expect(try await Tool.run("delete", first, "--json", store: store).text == "{\"deleted\":1}\n")
            #expect(try await Tool.run("delete", first, store: store).status == .exited(3))
            let some = try await Tool.run("purge", "q", "--state", "delayed", "--json", store: store)
            #expect(some.text == "{\"purged\":1}\n")
            #expect(
                try await Tool.run("purge", "q", "--dry-run", "--json", store: store).text == "{\"wouldPurge\":2}\n"
            )
            #expect(try await Tool.run("purge", "q", "--max", "1", store: store).text == "1\n")
            #expect(try await Tool.run("purge", "q", store: store).text == "1\n")
            #expect(try await Self.figures("q", store: store) == [0, 0, 0, 0])
            #expect(try await Tool.run("verify", store: store).status == .exited(0))
        }
    }
}
