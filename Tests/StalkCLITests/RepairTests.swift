import Foundation
import StalkCore
import Subprocess
import Testing

@testable import StalkCLI

/// `repair` as scripts see it.
@Suite("Repair") struct RepairTests {
    @Test("repair plans, mends with --apply, and then finds nothing to do")
    func repair() async throws {
        try await EndToEndTests.withStore { store in
            _ = try await Tool.run("put", "q", "--lines", store: store, input: Array("a\nb\n".utf8))
            let intact = try await Tool.run("repair", "--apply", store: store)
            #expect(intact.status == .exited(0) && intact.text.hasPrefix("intact: "))
            try FileManager.default.removeItem(atPath: store + "/STALK")

            let plan = try await Tool.run("repair", store: store)
            #expect(plan.status == .exited(6) && plan.text.hasPrefix("DAMAGED: "), "\(plan.text) \(plan.errors)")
            #expect(!FileManager.default.fileExists(atPath: store + "/STALK"))
            let applied = try await Tool.run("repair", "--apply", "--json", store: store)
            #expect(applied.status == .exited(0), "\(applied.errors)")
            let object = try EndToEndTests.object(applied)
            #expect(object["applied"] as? Bool == true && object["intact"] as? Bool == true)
            #expect((object["problems"] as? [[String: Any]])?.first?["file"] as? String == "STALK")
            #expect(object["messagesKept"] as? Int == 2)

            let again = try EndToEndTests.object(await Tool.run("repair", "--apply", "--json", store: store))
            #expect(again["applied"] as? Bool == false && again["intact"] as? Bool == true)
            #expect(try await Tool.run("verify", store: store).status == .exited(0))
            let bodies = try await Tool.run("get", "q", "--max", "0", "--ack", store: store)
            #expect(bodies.lines == ["a", "b"])
        }
    }
}
