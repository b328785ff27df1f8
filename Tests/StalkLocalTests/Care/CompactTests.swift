import Foundation
import StalkCore
import StalkFiles
import StalkTesting
import Testing

@testable import StalkLocal

/// Compacting gives space back and changes nothing else.
@Suite(.timeLimit(.minutes(10))) struct CompactTests {
    /// A store with some messages left of many.
    private static func store(_ temporary: TemporaryStore) async throws -> LocalStore {
        let store = try await temporary.open()
        let queue = try store.queue("q")
        var random = SeededGenerator(seed: 7)
        try await queue.publish(
            (0..<400).map { _ in Message((0..<3000).map { _ in UInt8.random(in: 0...255, using: &random) }) }
        )
        try await store.checkpoint()
        try await queue.wake()
        let taken = try await queue.take(TakeRequest(max: 360))
        for result in try await queue.finish(taken.map { Completion($0.receipt, .acknowledge) }) { try result.get() }
        return store
    }

    @Test func spaceComesBack() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await Self.store(temporary)
        let before = try await SampleStore.contents(of: store)
        let report = try await store.compact()
        #expect(before.count == 40)
        #expect(report.bytesAfter < report.bytesBefore / 2, "\(report)")
        let size = try FileManager.default.attributesOfItem(atPath: temporary.path + "/index/data.mdb")[.size] as? Int
        #expect(size == report.bytesAfter)
        #expect(try await SampleStore.contents(of: store) == before)
        // It goes on, in this life and the next one.
        let id = try await store.queue("q").publish(Message("new"))
        try await store.close()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
        let again = try await temporary.open()
        let after = try await SampleStore.contents(of: again)
        #expect(after.count == 41 && after[id] != nil)
        try await again.close()
    }

    /// The engine does it by itself, when a checkpoint finds that little of a large file is live.
    @Test func engineGivesSpaceBackByItself() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        var random = SeededGenerator(seed: 8)
        for _ in 0..<16 {
            let bodies = (0..<20).map { _ in (0..<60_000).map { _ in UInt8.random(in: 0...255, using: &random) } }
            let results = try await queue.publish(bodies.map { Message($0) }, durability: .written)
            for result in results { _ = try result.get() }
        }
        try await store.checkpoint()
        let path = temporary.path + "/index/data.mdb"
        let size = { try #require(FileManager.default.attributesOfItem(atPath: path)[.size] as? Int) }
        #expect(try size() > CompactionRule.leastFileBytes)

        // With half of it live, the file stays as it is.
        try await queue.wake()
        try await Self.finish(160, of: queue)
        try await Self.checkpointTwice(store, queue)
        #expect(try size() > CompactionRule.leastFileBytes)

        try await Self.finish(150, of: queue)
        try await Self.checkpointTwice(store, queue)
        #expect(try size() < 4 << 20)
        try await store.close()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
        let again = try await temporary.open()
        let left = try await SampleStore.contents(of: again)
        #expect(left.count == 10 + 2)
        try await again.close()
    }

    private static func finish(_ count: Int, of queue: LocalQueue) async throws {
        var left = count
        while left > 0 {
            let taken = try await queue.take(TakeRequest(max: left, wait: .seconds(10)))
            let results = try await queue.finish(taken.map { Completion($0.receipt, .acknowledge) })
            for result in results { try result.get() }
            left -= taken.count
        }
    }

    /// The second one begins when what follows the first one is over.
    private static func checkpointTwice(_ store: LocalStore, _ queue: LocalQueue) async throws {
        try await store.checkpoint()
        try await queue.publish(Message("small"))
        try await store.checkpoint()
    }

    @Test func littleMustBeLiveInALargeFile() {
        let large = 1 << 30
        #expect(!CompactionRule.isWorthwhile(fileBytes: CompactionRule.leastFileBytes - 1, liveBytes: 0, isIdle: true))
        #expect(CompactionRule.isWorthwhile(fileBytes: CompactionRule.leastFileBytes, liveBytes: 0, isIdle: false))
        #expect(!CompactionRule.isWorthwhile(fileBytes: large, liveBytes: large / 4, isIdle: true))
        #expect(CompactionRule.isWorthwhile(fileBytes: large, liveBytes: large / 4 - 1, isIdle: true))
        // While the store works, only what is copied in a moment.
        #expect(!CompactionRule.isWorthwhile(fileBytes: large, liveBytes: large / 4 - 1, isIdle: false))
        #expect(CompactionRule.isWorthwhile(fileBytes: large, liveBytes: large / 16, isIdle: false))
    }

    @Test func workGoesOn() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await Self.store(temporary)
        let queue = try store.queue("q")
        try await queue.wake()
        let working = Task {
            var count = 0
            while !Task.isCancelled {
                try await queue.publish(Message("meanwhile \(count)"))
                _ = try await store.peek(QueueName("q"), max: 3)
                count += 1
            }
            return count
        }
        for _ in 0..<5 { try await store.compact() }
        working.cancel()
        let count = try await working.value
        try await store.close()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
        let again = try await temporary.open()
        #expect(try await SampleStore.contents(of: again).count == 40 + count)
        try await again.close()
    }

    /// A crash before the exchange leaves the copy behind: opening removes it.
    @Test func leftoverIsRemoved() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await Self.store(temporary)
        try await store.close()
        let leftover = temporary.path + "/index/data.mdb.new"
        try "half".write(toFile: leftover, atomically: false, encoding: .utf8)
        let again = try await temporary.open()
        #expect(!FileManager.default.fileExists(atPath: leftover))
        #expect(try await SampleStore.contents(of: again).count == 40)
        try await again.close()
    }

    @Test func roomIsAskedForFirst() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await Self.store(temporary)
        let directory = try RealDirectory(path: temporary.path, createIfMissing: false)
        let error = #expect(throws: StalkError.self) { try StoreCompaction.checkRoom(for: 1 << 60, in: directory) }
        #expect(error?.code == .storageFull)
        #expect(throws: Never.self) { try StoreCompaction.checkRoom(for: 1, in: directory) }
        try await store.close()
    }
}
