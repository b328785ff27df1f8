// One task that does a fixed series of operations: the same system calls in each run, for faults at each of them.

internal import StalkCore
internal import StalkLocal

/// A script of operations that follows from a seed.
struct TortureScript {
    /// How many calls are tried after one failed, to see that none succeeds.
    private static let triesAfterFailure = 6

    let load: TortureLoad
    private var random: TortureRandom
    private var ready = [0, 0, 0]
    private var failures = 0
    /// How many operations were done; a take and its finish are two.
    private var operations = 0

    init(load: TortureLoad) {
        self.load = load
        self.random = TortureRandom(seed: load.options.seed &+ 7)
    }

    /// Does the operations, one after the other.
    ///
    /// - Parameters:
    ///   - count: How many.
    ///   - store: The store; it stays open.
    mutating func run(_ count: Int, on store: LocalStore) async throws {
        let queues = try await TortureQueues.open(store, takeDurability: self.load.options.durability.choose(0))
        while self.operations < count, self.failures < Self.triesAfterFailure {
            self.operations += 1
            do {
                try await self.step(queues, store)
            } catch {
                self.load.journal.noteFailure(error)
                self.failures += 1
            }
        }
    }

    private mutating func step(_ queues: [LocalQueue], _ store: LocalStore) async throws {
        switch self.random.below(30) {
        case 0, 1:
            try await store.checkpoint()
            return self.load.journal.note(.checkpointed)
        case 2: return try await self.load.redrive(store, TortureQueues.all[self.random.below(4)])
        default: break
        }
        let index = self.random.below(3)
        guard self.ready[index] > 0, self.random.below(2) == 0 else {
            return try await self.publish(to: queues[index], index)
        }
        let deliveries = try await queues[index].take(TakeRequest(wait: .milliseconds(200), lease: .seconds(3600)))
        self.load.journal.noteTaken(deliveries, lease: .now)
        self.ready[index] -= deliveries.count
        for delivery in deliveries {
            self.operations += 1
            let ending = self.ending(of: delivery, index)
            try await self.load.finish([ending][...], of: queues[index], self.durability())
            self.ready[index] += ending.ending == .retry || ending.ending == .release ? 1 : 0
        }
    }

    private mutating func durability() -> Durability { self.load.options.durability.choose(self.random.next()) }

    private mutating func publish(to queue: LocalQueue, _ index: Int) async throws {
        let count = 1 + self.random.below(3)
        // Due at once, or not before the script is over.
        let delay: Duration = self.random.below(6) == 0 ? .seconds(3600) : .zero
        let numbers = (0..<count).map { _ in self.load.nextNumber() }
        self.load.journal.note(numbers.map { .publishing($0, queue: queue.queue.rawValue) })
        let results = try await queue.publish(
            numbers.map { TortureMessage.make($0, delay: delay) },
            durability: self.durability()
        )
        self.load.journal.note(
            zip(numbers, results).map { number, result in
                switch result {
                case .success(let id): .published(number, id: id.rawValue)
                case .failure(let error): .unpublished(number, code: error.code.description)
                }
            }
        )
        if delay == .zero { self.ready[index] += results.count { (try? $0.get()) != nil } }
        for case .failure(let error) in results { throw error }
    }

    private mutating func ending(of delivery: Delivery, _ index: Int) -> TortureEnding {
        switch self.random.below(6) {
        case 0: TortureEnding(delivery, .retry)
        case 1: TortureEnding(delivery, .dead)
        case 2: TortureEnding(delivery, .release)
        case 3:
            TortureEnding(
                delivery,
                .publish,
                outgoing: [
                    TortureEvent.Outgoing(number: self.load.nextNumber(), queue: TortureQueues.homes[(index + 1) % 3])
                ]
            )
        default: TortureEnding(delivery, .acknowledge)
        }
    }
}
