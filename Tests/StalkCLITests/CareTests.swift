import Foundation
import StalkCore
import Subprocess
import Testing

@testable import StalkCLI

/// `backup` and `compact` as scripts see them.
@Suite("Care") struct CareTests {
    @Test("backup makes a store that opens, and nothing where something is")
    func backup() async throws {
        try await withTemporaryDirectory { directory in
            let (store, copy) = (directory + "/store", directory + "/copy")
            _ = try await Tool.run("put", "q", "--lines", store: store, input: Array("a\nb\n".utf8))
            let report = try EndToEndTests.object(await Tool.run("backup", copy, "--json", store: store))
            #expect(report["path"] as? String == copy && report["messages"] as? Int == 2)
            #expect((report["bytes"] as? Int ?? 0) > 0)
            #expect(try await Tool.run("verify", store: copy).status == .exited(0))
            #expect(try await Tool.run("get", "q", "--max", "0", store: copy).lines == ["a", "b"])

            let again = try await Tool.run("backup", copy, store: store)
            #expect(again.status == .exited(2) && again.errors.contains("is not empty"))
            let second = try await Tool.run("backup", directory + "/second", store: store)
            #expect(second.status == .exited(0) && second.text.contains("2 messages"))
        }
    }

    @Test("compact says how much came back")
    func compact() async throws {
        try await EndToEndTests.withStore { store in
            let body = [UInt8]((0..<200_000).map { _ in UInt8.random(in: 0...255) })
            _ = try await Tool.run("put", "q", store: store, input: body)
            _ = try await Tool.run("get", "q", "--ack", store: store)
            let report = try EndToEndTests.object(await Tool.run("compact", "--json", store: store))
            let before = try #require(report["bytesBefore"] as? Int)
            let after = try #require(report["bytesAfter"] as? Int)
            #expect(after < before - 150_000)
            let text = try await Tool.run("compact", store: store)
            #expect(text.status == .exited(0) && text.text.contains(" now\n"))
            #expect(try await Tool.run("verify", store: store).status == .exited(0))
        }
    }

    @Test("doctor says what a place is like, and ends with 1 when it is not fit")
    func doctor() async throws {
        try await withTemporaryDirectory { directory in
            let store = directory + "/store"
            _ = try await Tool.run("put", "q", store: store, input: Array("a".utf8))
            let text = try await Tool.run("doctor", store: store)
            #expect(text.text.hasPrefix("\(store)\n") && text.text.contains("there is a store"), "\(text.errors)")
            let report = try EndToEndTests.object(await Tool.run("doctor", "--json", store: store))
            let findings = try #require(report["findings"] as? [[String: Any]])
            let subjects = findings.compactMap { $0["subject"] as? String }
            #expect(
                subjects == [
                    "directory", "store", "file system", "sync", "space", "inodes", "open files", "file size", "kernel",
                    "clock", "liblmdb", "libzstd",
                ]
            )
            #expect((text.status == .exited(0)) == (report["fit"] as? Bool))

            let open = try await Tool.shell("chmod 777 \(store); exec \"$STALK\" doctor", store: store)
            #expect(open.status == .exited(1) && open.text.contains("run chmod 700 on it"))
            let limited = try await Tool.shell("ulimit -n 40; exec \"$STALK\" doctor --json", store: directory + "/new")
            #expect(limited.status == .exited(1) && limited.text.contains("40 descriptors are allowed"))
        }
    }
}
