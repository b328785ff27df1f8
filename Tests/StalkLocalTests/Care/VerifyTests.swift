import Foundation
import StalkCore
import StalkIndex
import StalkTesting
import Testing

@testable import StalkLocal

/// Verify finds what is wrong, names its file, and changes nothing.
@Suite(.timeLimit(.minutes(10))) struct VerifyTests {
    @Test func intactStoreIsIntact() async throws {
        let sample = try await SampleStore()
        defer { sample.remove() }
        let before = try everything(in: sample.path)
        let report = try await LocalStore.verify(at: sample.path)
        #expect(report.problems.isEmpty && report.messages > 0 && report.frames > 0 && report.records > 0)
        #expect(try everything(in: sample.path) == before, "verify left a trace")
    }

    @Test(arguments: StoreDamage.all)
    func damageIsNamed(_ damage: StoreDamage) async throws {
        let sample = try await SampleStore()
        defer { sample.remove() }
        try damage.make(sample)
        let before = try everything(in: sample.path)
        let problems = try await LocalStore.verify(at: sample.path).problems
        #expect(problems.contains { $0.file.hasPrefix(damage.file) }, "\(problems)")
        #expect(try everything(in: sample.path) == before, "verify left a trace")
    }

    /// A message that the schedule has released is ready, though its row still says that it waits for a time.
    @Test func figuresAreThoseOfTheRows() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        try await queue.publish((0..<3).map { Message("early \($0)", delay: .seconds(60)) })
        try await queue.publish([Message("late", delay: .seconds(6000)), Message("at once")])
        try await store.checkpoint()
        await temporary.advance(store, by: .seconds(100))
        try await store.checkpoint()
        let figures = try #require(try await store.stats().queues.first)
        #expect(figures.ready == 4 && figures.delayed == 1)
        try await store.close()
        let tables = try SettledTables(readOnly: temporary.path)
        var waiting = 0
        try tables.forEachPlace(of: 1, isDead: false) { _, isScheduled in
            waiting += isScheduled ? 1 : 0
            return true
        }
        tables.index.close()
        #expect(waiting == 4, "the rows of released messages are to say so no more: this test shows nothing")
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
    }

    @Test func openStoreIsBusy() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let error = await #expect(throws: StalkError.self) { try await LocalStore.verify(at: temporary.path) }
        #expect(error?.code == .storeBusy)
        try await store.close()
    }
}
