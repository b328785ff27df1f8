import StalkCore
import Testing

@testable import StalkLocal

/// What a store asks of the disk is counted, so that benchmarks can hold it.
@Suite struct ActivityTests {
    @Test func countsWhatWasAskedOfTheDisk() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        try await queue.publish(Message("a first message makes the queue"))
        // Segments are prepared by now, and no checkpoint comes by itself under a manual clock.
        try await store.checkpoint()
        let start = try await store.stats().activity

        try await queue.publish(Message("kept by the system"), durability: .written)
        let written = try await store.stats().activity
        #expect(written.frames == start.frames + 1)
        #expect(written.syncs == start.syncs)
        #expect(written.lmdbCommits == start.lmdbCommits)
        #expect(written.logBytesWritten - start.logBytesWritten > "kept by the system".utf8.count)

        try await queue.publish(Message("kept by the disk"))
        let synced = try await store.stats().activity
        #expect(synced.frames == written.frames + 1)
        #expect(synced.syncs == written.syncs + 1)
        #expect(synced.lmdbCommits == written.lmdbCommits)

        try await store.checkpoint()
        #expect(try await store.stats().activity.lmdbCommits == synced.lmdbCommits + 1)
        try await store.close()
    }
}
