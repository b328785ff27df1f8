import StalkCore
import StalkTesting
import Testing

@testable import StalkLocal

/// As many queues as nobody should have.
@Suite(.timeLimit(.minutes(10))) struct ManyQueuesTests {
    private static let count = 10_000

    @Test func tenThousandQueuesOutliveTheirOwner() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        for index in 0..<Self.count {
            try await store.queue("queue-\(index)").publish(Message("\(index)"), durability: .written)
        }
        try await store.sync()
        await store.abandon()

        // Once from the log, once from LMDB.
        for _ in 0..<2 {
            let again = try await temporary.open()
            let queues = try await again.stats().queues
            #expect(queues.count == Self.count)
            #expect(queues.allSatisfy { $0.ready == 1 })
            try await again.close()
        }
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)

        let last = try await temporary.open()
        for index in stride(from: 0, to: Self.count, by: 499) {
            let queue = try last.queue("queue-\(index)")
            try await queue.wake()
            let deliveries = try await queue.take(TakeRequest(max: 2))
            #expect(deliveries.map { String(decoding: $0.body, as: UTF8.self) } == ["\(index)"])
            for delivery in deliveries { try await queue.acknowledge(delivery) }
        }
        #expect(try await last.stats().queues.reduce(0) { $0 + $1.ready } == Self.count - (Self.count + 498) / 499)
        try await last.close()
    }
}
