import Foundation
import StalkCore
import StalkLog
import StalkTesting
import Testing

@testable import StalkLocal

/// Stores that earlier builds wrote open, whole; those of a newer format are not touched.
@Suite(.timeLimit(.minutes(10))) struct GoldenTests {
    /// Unpacks a store of `Golden/`.
    private static func unpack(_ name: String) throws -> TemporaryStore {
        // Its clock is behind that of the golden store, whose own goes on from where it was: what is late stays so.
        let temporary = TemporaryStore()
        let golden = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Golden")
        try FileManager.default.createDirectory(
            atPath: temporary.path,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
        let tar = Process()
        tar.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        tar.arguments = [
            "tar", "-xJf", golden.appendingPathComponent("format-1-\(name).tar.xz").path, "-C", temporary.path,
            "--strip-components=1",
        ]
        try tar.run()
        tar.waitUntilExit()
        try #require(tar.terminationStatus == 0, "tar can't unpack: are tar and xz-utils installed?")
        return temporary
    }

    @Test(arguments: ["settled": [], "killed": ["four", "five"]])
    func everyMessageIsThere(name: String, inLog: [String]) async throws {
        let temporary = try Self.unpack(name)
        defer { temporary.remove() }
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
        let store = try await temporary.open()
        #expect((store.recovery.replayedRecords > 0) == !inLog.isEmpty)
        let ready = try await store.peek(QueueName("work"), state: .ready, max: 100)
        let large = String(repeating: "x", count: 9000)
        #expect(
            ready.map { String(decoding: $0.body, as: UTF8.self) }
                == ["one", "two", "three", "with a header", large] + inLog
        )
        #expect(ready[3].headers["kind"] == "test")
        let delayed = try await store.peek(QueueName("work"), state: .delayed, max: 100)
        #expect(delayed.map { String(decoding: $0.body, as: UTF8.self) } == ["much later"])
        let dead = try await store.peek(QueueName("failed"), state: .dead, max: 100)
        #expect(dead.map { String(decoding: $0.body, as: UTF8.self) } == ["bad"])
        #expect(dead[0].attempts == 1 && dead[0].failures.map(\.reason) == ["broken"])
        try await store.queue("work").publish(Message("new"))
        try await store.close()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
    }

    @Test func changesByHandAreInTheLog() async throws {
        let temporary = try Self.unpack("changed")
        defer { temporary.remove() }
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
        let store = try await temporary.open()
        // A move in its own queue, a new queue, a move to that, and a delete.
        #expect(store.recovery.replayedRecords == 4)
        let work = try await store.peek(QueueName("work"), max: 100)
        #expect(work.map { String(decoding: $0.body, as: UTF8.self) } == ["stays", "kicked"])
        let other = try await store.peek(QueueName("other"), max: 100)
        #expect(other.map { String(decoding: $0.body, as: UTF8.self) } == ["moved"])
        #expect(try await store.stats().queues.map { [$0.ready, $0.delayed, $0.dead] } == [[1, 0, 0], [2, 0, 0]])
        try await store.close()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
    }

    @Test func callsOfOtherProcessesAreInTheLog() async throws {
        let temporary = try Self.unpack("shared")
        defer { temporary.remove() }
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
        let store = try await temporary.open()
        // A session, a queue, six messages, three calls, an attempt and its acknowledgement.
        #expect(store.recovery.replayedRecords == 13)
        let ready = try await store.peek(QueueName("work"), max: 100)
        #expect(ready.map { String(decoding: $0.body, as: UTF8.self) } == ["one", "two", "three", "with a header"])
        let delayed = try await store.peek(QueueName("work"), state: .delayed, max: 100)
        #expect(delayed.map { String(decoding: $0.body, as: UTF8.self) } == ["later"])
        let calls = store.core.look { $0.meta.calls.records }
        #expect(calls.map(\.count) == [3, 1, 1] && Set(calls.map(\.client)).count == 3)
        // The first process asks again: nothing is stored twice.
        let again = PublishCall(
            queue: try QueueName("work"),
            messages: ["one", "two", "three"].map { Message($0) },
            durability: .synced,
            origin: CallOrigin(client: calls[0].client, call: calls[0].call, answeredBelow: calls[0].answeredBelow)
        )
        let ids = try await #require(store.access.owned).publish(again).map { try $0.get() }
        #expect(ids == ready[..<3].map(\.id))
        try await store.close()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
    }

    @Test(arguments: ["settled", "killed"])
    func newerFormatIsNotTouched(name: String) async throws {
        let temporary = try Self.unpack(name)
        defer { temporary.remove() }
        let marker = temporary.path + "/STALK"
        let text = try String(contentsOfFile: marker, encoding: .utf8)
        try text.replacing("format 1", with: "format 2").write(toFile: marker, atomically: false, encoding: .utf8)
        let before = try everything(in: temporary.path)
        let calls: [@Sendable () async throws -> Void] = [
            { _ = try await temporary.open() },
            { _ = try await LocalStore.verify(at: temporary.path) },
            { _ = try await LocalStore.repair(at: temporary.path, apply: false) },
            { _ = try await LocalStore.repair(at: temporary.path, apply: true) },
        ]
        for call in calls {
            let error = await #expect(throws: StalkError.self) { try await call() }
            #expect(error?.code == .newerFormat)
            #expect(try everything(in: temporary.path) == before, "a store of a newer format was changed")
        }
        // The same store with its own format is no newer one.
        try text.write(toFile: marker, atomically: false, encoding: .utf8)
        try await temporary.open().close()
        #expect(try everything(in: temporary.path) != before)
    }
}
