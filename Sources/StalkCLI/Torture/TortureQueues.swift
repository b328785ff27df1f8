// The queues of the torture.

internal import StalkCore
internal import StalkLocal

/// Two queues that keep what fails for good, one that sends it to an error queue, and that error queue.
enum TortureQueues {
    /// Where messages are published.
    static let homes = ["torture-0", "torture-1", "torture-2"]
    /// Where the second one sends what failed for good.
    static let errors = "torture-errors"
    static let all = homes + [errors]

    /// Where a message stands after it failed for good.
    static func placeOfDead(from queue: String) -> TorturePlace {
        queue == Self.homes[1]
            ? TorturePlace(queue: Self.errors, isDead: false) : TorturePlace(queue: queue, isDead: true)
    }

    /// Collectors on all of them, awake.
    static func open(_ store: LocalStore, takeDurability: Durability) async throws -> [LocalQueue] {
        var queues: [LocalQueue] = []
        for name in Self.all {
            let errorQueue = name == Self.homes[1] ? try QueueName(Self.errors) : nil
            let queue = try store.queue(
                name,
                options: LocalQueueOptions(errorQueue: errorQueue, takeDurability: takeDurability)
            )
            try await queue.wake()
            queues.append(queue)
        }
        return queues
    }
}

/// Where a message stands: in which queue, and whether it can be taken from there sooner or later.
struct TorturePlace: Hashable {
    var queue: String
    var isDead: Bool
}
