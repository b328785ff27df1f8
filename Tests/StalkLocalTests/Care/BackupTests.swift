import Foundation
import StalkCore
import StalkTesting
import Testing

@testable import StalkLocal

/// A backup is a whole store or is not there.
@Suite(.timeLimit(.minutes(10))) struct BackupTests {
    private static func copy(of temporary: TemporaryStore, at path: String) -> TemporaryStore {
        var copy = TemporaryStore(clock: temporary.clock, path: path)
        copy.options = temporary.options
        return copy
    }

    @Test func copyHoldsEverything() async throws {
        let sample = try await SampleStore()
        let copy = Self.copy(of: sample.temporary, at: sample.path + "-copy")
        defer {
            sample.remove()
            copy.remove()
        }
        let store = try await sample.temporary.open()
        // A slash at the end means the same directory.
        let report = try await store.backup(to: copy.path + "/")
        #expect(report.path == copy.path && report.messages == sample.expected.count && report.bytes > 0)
        #expect(!FileManager.default.fileExists(atPath: copy.path + ".partial"))
        // The original goes on, and the copy knows nothing of it.
        let later = try await store.queue("work").publish(Message("later"))
        #expect(try await LocalStore.verify(at: copy.path).problems.isEmpty)
        let opened = try await copy.open()
        #expect(try await SampleStore.contents(of: opened) == sample.expected)
        let own = try await opened.queue("work").publish(Message("own"))
        #expect(own != later, "one id for two messages")
        try await opened.close()
        try await store.close()
    }

    @Test func copyIsAnotherStore() async throws {
        let temporary = TemporaryStore()
        let copy = Self.copy(of: temporary, at: temporary.path + "-copy")
        defer {
            temporary.remove()
            copy.remove()
        }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        try await queue.publish(Message("x"))
        try await queue.wake()
        let delivery = try #require(try await queue.take(TakeRequest(max: 1)).first)
        try await store.backup(to: copy.path)
        let opened = try await copy.open()
        let other = try opened.queue("q")
        try await other.wake()
        let result = try await other.finish([Completion(delivery.receipt, .acknowledge)])[0]
        #expect(throws: StalkError.self) { try result.get() }
        // What was leased is ready in the copy.
        #expect(try await other.take(TakeRequest(max: 1)).map(\.text) == ["x"])
        try await opened.close()
        try await store.close()
    }

    @Test func publishingGoesOn() async throws {
        let temporary = TemporaryStore()
        let copy = Self.copy(of: temporary, at: temporary.path + "-copy")
        defer {
            temporary.remove()
            copy.remove()
        }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        let before = try await queue.publish((0..<300).map { Message("before \($0)") })
        let publishing = Task {
            var count = 0
            while !Task.isCancelled {
                try await queue.publish(Message("meanwhile \(count)"))
                count += 1
            }
            return count
        }
        try await store.backup(to: copy.path)
        publishing.cancel()
        let count = try await publishing.value
        try await store.close()
        let opened = try await copy.open()
        let found = try await SampleStore.contents(of: opened)
        #expect(try before.allSatisfy { try found[$0.get()] != nil })
        #expect(found.count <= 300 + count)
        try await opened.close()
    }

    @Test func placeThatHoldsSomethingIsRefused() async throws {
        let temporary = TemporaryStore()
        let copy = Self.copy(of: temporary, at: temporary.path + "-copy")
        defer {
            temporary.remove()
            copy.remove()
        }
        try FileManager.default.createDirectory(atPath: copy.path, withIntermediateDirectories: true)
        try "x".write(toFile: copy.path + "/letter", atomically: false, encoding: .utf8)
        let before = try everything(in: copy.path)
        let store = try await temporary.open()
        let error = await #expect(throws: StalkError.self) { try await store.backup(to: copy.path) }
        #expect(error?.code == .invalidArgument && error?.message.contains("letter") == true)
        #expect(try everything(in: copy.path) == before)
        try await store.close()
    }

    /// What a killed backup left behind is in nobody's way.
    @Test func killedBackupIsRepeated() async throws {
        let sample = try await SampleStore(settled: 3, logged: 1)
        let copy = Self.copy(of: sample.temporary, at: sample.path + "-copy")
        defer {
            sample.remove()
            copy.remove()
        }
        try FileManager.default.createDirectory(
            atPath: copy.path + ".partial/index",
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
        try "half".write(toFile: copy.path + ".partial/index/data.mdb", atomically: false, encoding: .utf8)
        let store = try await sample.temporary.open()
        try await store.backup(to: copy.path)
        try await store.close()
        let opened = try await copy.open()
        #expect(try await SampleStore.contents(of: opened) == sample.expected)
        try await opened.close()
    }

    @Test func damagedStoreGivesNoBackup() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        try await store.queue("q").publish((0..<5).map { Message("message \($0)") })
        try await store.close()
        try temporary.flipByte(of: "message 3", in: "index/data.mdb")
        let damaged = try await temporary.open()
        let error = await #expect(throws: StalkError.self) { try await damaged.backup(to: temporary.path + "-copy") }
        #expect(error?.code == .storeDamaged)
        for suffix in ["-copy", "-copy.partial"] {
            #expect(!FileManager.default.fileExists(atPath: temporary.path + suffix))
        }
        try await damaged.close()
    }
}
