import StalkCore
import StalkTesting
import Testing

@testable import StalkLocal

/// The figures of a store, and what they cost the others.
@Suite struct FigureTests {
    @Test func oldestAgeIsThatOfTheFirstInLine() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        try await queue.wake()
        func check(_ place: SourceLocation = #_sourceLocation) async throws {
            let first = try await store.peek(queue.queue, max: 1).first
            let age = first.map { store.core.now.milliseconds - $0.dueAt.millisecondsSince1970 }
            let found = try await store.stats().queues.first?.oldestAge
            #expect(found == age.map { .milliseconds($0) }, sourceLocation: place)
        }
        for start in stride(from: 0, to: 4000, by: 500) {
            try await queue.publish((start..<start + 500).map { Message("\($0)") })
            temporary.clock.advance(by: .seconds(1))
            try await check()
            if start % 1000 == 0 { try await store.checkpoint() }
            try await check()
        }
        // Far more than the window is taken, so that the first in line stands in memory, then in LMDB, then in memory.
        while true {
            let taken = try await queue.take(TakeRequest(max: 300))
            if taken.isEmpty { break }
            for result in try await queue.finish(taken.map { Completion($0.receipt, .acknowledge) }) {
                try result.get()
            }
            try await check()
        }
        try await queue.publish([Message("a", delay: .seconds(60)), Message("b"), Message("c")])
        temporary.clock.advance(by: .seconds(5))
        try await store.delete(try #require(try await store.peek(queue.queue).first).id)
        try await check()
        #expect(try await store.purge(queue.queue) == 2)
        try await check()
        #expect(try await store.stats().queues.first?.oldestAge == nil)
        try await store.close()
    }

    @Test func groupCommitsAndSyncsAreCounted() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        try await queue.publish(Message("a first message makes the queue"))
        try await store.checkpoint()
        let before = try await store.stats().activity
        for number in 0..<5 { try await queue.publish(Message("\(number)")) }
        for number in 0..<3 { try await queue.publish(Message("\(number)"), durability: .written) }
        let after = try await store.stats().activity
        #expect(after.commitCalls.count - before.commitCalls.count == 8)
        #expect(after.commitCalls.sum - before.commitCalls.sum == 8)
        #expect(after.commitCalls.counts[0] - before.commitCalls.counts[0] == 8, "each call was alone in its commit")
        #expect(after.logSyncs.count - before.logSyncs.count == 5)
        #expect(after.logSyncs.sum == 0, "the manual clock stands")
        try await store.close()
    }

    @Test func figuresFallIntoBuckets() {
        var histogram = StoreHistogram(bounds: [1, 10, 100])
        for value in [0, 1, 2, 10, 11, 100, 101, 1000] { histogram.record(value) }
        #expect(histogram.counts == [2, 2, 2, 2])
        #expect(histogram.count == 8 && histogram.sum == 1225)
    }
}
