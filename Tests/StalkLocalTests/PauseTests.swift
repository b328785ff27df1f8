import StalkCore
import StalkTesting
import Testing

@testable import StalkLocal

/// A queue that is paused gives nothing out, whatever happens, until it is resumed.
@Suite(.timeLimit(.minutes(10))) struct PauseTests {
    private static func taken(_ queue: LocalQueue) async throws -> [String] {
        try await queue.take(TakeRequest(max: 10)).map(\.text)
    }

    @Test(arguments: [true, false])
    func pauseSurvivesRestart(isClosed: Bool) async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let name = try QueueName("work")
        var store = try await temporary.open()
        try await store.queue(name).publish(Message("1"))
        try await store.queue("other").publish(Message("2"))
        // Settled first, so that the pause alone is what the checkpoint has to write.
        try await store.checkpoint()
        try await store.pause(name)
        try await store.pause(name)
        if isClosed { try await store.close() } else { await store.abandon() }

        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
        store = try await temporary.open()
        #expect(try await store.stats().queues.map(\.isPaused) == [false, true])
        let queue = store.queue(name)
        try await queue.wake()
        #expect(try await Self.taken(queue) == [])
        try await queue.publish(Message("3"))
        #expect(try await Self.taken(queue) == [])
        let other = try store.queue("other")
        try await other.wake()
        #expect(try await Self.taken(other) == ["2"])
        try await store.resume(name)
        try await store.resume(name)
        #expect(try await Self.taken(queue) == ["1", "3"])
        try await store.close()

        store = try await temporary.open()
        #expect(try await store.stats().queues.allSatisfy { !$0.isPaused })
        try await store.close()
    }

    @Test func waitingTakerIsServedByResume() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("work")
        try await queue.publish(Message("1"))
        try await queue.wake()
        try await store.pause(queue.queue)
        async let taken = queue.take(TakeRequest(wait: .seconds(60)))
        while store.core.look({ $0.queues[1].takers.isEmpty }) { await Task.yield() }
        try await store.resume(queue.queue)
        #expect(try await taken.map(\.text) == ["1"])
        try await store.close()
    }

    @Test func whatRunsCanBeFinishedAndFailed() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("work")
        try await queue.publish([Message("1"), Message("2")])
        try await queue.wake()
        let deliveries = try await queue.take(TakeRequest(max: 2))
        try await store.pause(queue.queue)
        try await queue.acknowledge(deliveries[0])
        try await queue.finish(deliveries[1], .retry(after: .zero, reason: "again"))
        #expect(try await Self.taken(queue) == [])
        #expect(try await store.stats().queues[0].ready == 1)
        try await store.resume(queue.queue)
        #expect(try await Self.taken(queue) == ["2"])
        try await store.close()
    }

    @Test func backlogBehindTheWindowWaitsToo() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        let name = try QueueName("work")
        for _ in 0..<3 {
            try await store.queue(name).publish((0..<1000).map { Message("\($0)") })
            try await store.checkpoint()
        }
        try await store.pause(name)
        try await store.close()
        store = try await temporary.open()
        let queue = store.queue(name)
        try await queue.wake()
        #expect(try await Self.taken(queue) == [])
        try await store.resume(name)
        var count = 0
        while true {
            let some = try await queue.take(TakeRequest(max: 1000))
            if some.isEmpty { break }
            count += some.count
            try await queue.finish(some.map { Completion($0.receipt, .acknowledge) })
        }
        #expect(count == 3000)
        try await store.close()
    }

    @Test func unknownQueueIsRefused() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let nobody = try QueueName("nobody")
        for call in [store.pause, store.resume] {
            let error = await #expect(throws: StalkError.self) { try await call(nobody) }
            #expect(error?.code == .noSuchQueue)
        }
        try await store.close()
    }

    @Test func pauseSurvivesRepair() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        let name = try QueueName("work")
        try await store.queue(name).publish(Message("1"))
        try await store.pause(name)
        try await store.close()
        _ = try await LocalStore.repair(at: temporary.path, apply: true)
        store = try await temporary.open()
        #expect(try await store.stats().queues[0].isPaused)
        try await store.close()
    }
}
