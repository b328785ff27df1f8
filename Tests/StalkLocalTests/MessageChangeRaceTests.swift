import StalkCore
import StalkTesting
import Synchronization
import Testing

@testable import StalkLocal

/// Changes by hand under real threads, beside workers and checkpoints: every message ends in exactly one way.
@Suite(.timeLimit(.minutes(10))) struct MessageChangeRaceTests {
    /// How messages ended, and whether the workers are to end.
    private final class Ends: Sendable {
        let acknowledged = Locked<[MessageID]>([])
        let deleted = Locked<[MessageID]>([])
        let isOver = Atomic(false)
    }

    private static let count = 3000

    /// Takes and finishes until told to stop: half of the first deliveries come again in an hour.
    private static func work(_ queue: LocalQueue, _ ends: Ends) async throws {
        while !ends.isOver.load(ordering: .relaxed) {
            for delivery in try await queue.take(TakeRequest(max: 7)) {
                let number = Int(delivery.text) ?? 0
                if delivery.attempt == 1, number % 2 == 0 {
                    try await queue.finish(delivery, .retry(after: .seconds(3600), reason: "later"))
                } else {
                    try await queue.acknowledge(delivery)
                    ends.acknowledged.withLock { $0.append(delivery.id) }
                }
            }
            await Task.yield()
        }
    }

    /// Kicks, moves and deletes messages by chance.
    private static func change(_ store: LocalStore, _ ids: [MessageID], _ ends: Ends, seed: UInt64) async throws {
        var random = SeededGenerator(seed: seed)
        let queues = try [QueueName("a"), QueueName("b")]
        for turn in 0..<1500 {
            let id = ids[random.below(ids.count)]
            do {
                switch random.below(4) {
                case 0:
                    try await store.delete(id)
                    ends.deleted.withLock { $0.append(id) }
                case 1: try await store.move(id, to: queues[random.below(2)])
                default: try await store.kick(id)
                }
            } catch let error as StalkError where [.noSuchMessage, .messageLeased].contains(error.code) {
                // It was finished, or somebody works on it.
            }
            if turn % 100 == 0 { _ = try await store.kick(queues[random.below(2)], max: 20) }
            if turn % 50 == 0 { try await store.checkpoint() }
        }
    }

    @Test func everyMessageEndsInOneWay() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        let queues = try ["a", "b"].map { try store.queue($0) }
        for queue in queues { try await queue.wake() }
        var ids: [MessageID] = []
        for queue in queues {
            let published = try await queue.publish((0..<Self.count / 2).map { Message("\($0)") })
            ids += try published.map { try $0.get() }
        }
        let ends = Ends()
        let (open, all) = (store, ids)
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for queue in queues {
                group.addTask {
                    try await Self.work(queue, ends)
                    return false
                }
            }
            for seed in 0..<2 as Range<UInt64> {
                group.addTask {
                    try await Self.change(open, all, ends, seed: seed)
                    return true
                }
            }
            var changers = 2
            for try await isChanger in group where isChanger {
                changers -= 1
                if changers == 0 { ends.isOver.store(true, ordering: .relaxed) }
            }
        }
        let left = try await store.stats().queues.reduce(0) { $0 + $1.ready + $1.delayed + $1.leased + $1.dead }
        let (acknowledged, deleted) = (ends.acknowledged.withLock(\.self), ends.deleted.withLock(\.self))
        #expect(!deleted.isEmpty && acknowledged.count > Self.count / 4 && left > 0)
        #expect(Set(acknowledged).count == acknowledged.count && Set(deleted).count == deleted.count)
        #expect(Set(acknowledged).isDisjoint(with: deleted))
        #expect(acknowledged.count + deleted.count + left == Self.count)

        await store.abandon()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
        store = try await temporary.open()
        var found: [StoredMessage] = []
        for queue in queues {
            for state in MessageState.allCases { found += try await store.peek(queue.queue, state: state, max: .max) }
        }
        #expect(Set(found.map(\.id)) == Set(ids).subtracting(acknowledged).subtracting(deleted))
        #expect(found.count == left)
        try await store.close()
    }
}
