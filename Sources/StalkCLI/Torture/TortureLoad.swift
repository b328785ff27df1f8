// Publishers, workers and a housekeeper that use a store as hard as they can and report every step.

internal import StalkCore
internal import StalkLocal
internal import Synchronization

/// A load on a store; the same seed gives the same choices, though not the same order of events.
final class TortureLoad: Sendable {
    /// How many calls may fail before the load gives up.
    private static let mostFailures = 30

    struct Options: Sendable {
        var seed: UInt64
        var publishers: Int
        var workers: Int
        /// Ends after as many messages ended; `nil` runs until killed.
        var messages: Int?
        /// Messages per second of all publishers together; `nil` is as fast as it goes.
        var rate: Int?
        /// How much waits in the store before publishers pause; `nil` leaves it to the seed.
        var backlog: Int?
        var durability: TortureDurability
        var lease = Duration.seconds(30)
        /// Whether other processes use the store at the same time.
        var isShared = false
    }

    let options: Options
    let journal: TortureJournal
    private let numbers: Locked<UInt64>
    /// How much waits in the store before publishers pause: from less than a window to more than memory keeps.
    private let largestBacklog: Int
    private let isOver = Atomic(false)
    private let failures = Atomic(0)

    init(options: Options, journal: TortureJournal) {
        self.options = options
        self.journal = journal
        // The upper half tells the lives apart.
        self.numbers = Locked(options.seed << 32)
        var random = TortureRandom(seed: options.seed &+ 99)
        self.largestBacklog = options.backlog ?? [200, 600, 4000][random.below(3)]
    }

    /// How this life's store is set up: small segments and frequent checkpoints bring more borders into each second.
    static func storeOptions(
        seed: UInt64,
        isSingle: Bool,
        segmentBytes: Int? = nil,
        isShared: Bool = false
    ) -> LocalStoreOptions {
        var random = TortureRandom(seed: seed)
        let chosen = isSingle ? 1 << 18 : [1 << 18, 1 << 20, 8 << 20][random.below(3)]
        let segment = segmentBytes ?? chosen
        return LocalStoreOptions(
            sharing: isShared ? .automatic : .exclusive,
            maxBodyBytes: 1 << 16,
            segmentBytes: segment,
            checkpointBytes: segment * (isSingle ? 4 : 1 + random.below(4)),
            // A script has the same system calls in each run only if nothing happens by time.
            idleCheckpointDelay: isSingle ? .seconds(86_400) : .milliseconds(5 + random.below(300))
        )
    }

    /// Runs the load until it is killed, its messages have ended, or the store has failed.
    ///
    /// - Parameter store: The store; it stays open.
    func run(on store: LocalStore) async throws {
        let stats = try await store.stats()
        self.journal.addOutstanding(stats.queues.reduce(0) { $0 + $1.ready + $1.delayed })
        let takeDurability = self.options.durability.choose(self.options.seed)
        let queues = try await TortureQueues.open(store, takeDurability: takeDurability)
        await withTaskGroup(of: Void.self) { group in
            for index in 0..<self.options.publishers {
                group.addTask { await self.publish(to: queues, index) }
            }
            for index in 0..<self.options.workers {
                group.addTask { await self.work(on: queues, index) }
            }
            group.addTask { await self.keepHouse(store) }
            await group.waitForAll()
        }
    }

    private var isRunning: Bool { !self.isOver.load(ordering: .relaxed) }

    /// Ends the load after a call that failed, unless it was refused for lack of room, which comes back.
    private func endAfter(_ error: any Error) async {
        switch self.journal.noteFailure(error) {
        case nil: break
        case .storageFull?, .unavailable?: try? await Task.sleep(for: .milliseconds(10))
        default:
            // Some calls more are tried, to see that none succeeds.
            let failures = self.failures.add(1, ordering: .relaxed).newValue
            if failures >= Self.mostFailures { self.isOver.store(true, ordering: .relaxed) }
        }
    }

    func nextNumber() -> UInt64 {
        self.numbers.withLock { number in
            number += 1
            return number
        }
    }

    // MARK: Publishing

    private func publish(to queues: [LocalQueue], _ index: Int) async {
        var random = TortureRandom(seed: self.options.seed &* 31 &+ UInt64(index))
        var next = ContinuousClock.now
        while self.isRunning {
            if self.journal.outstanding > self.largestBacklog {
                try? await Task.sleep(for: .milliseconds(2))
                continue
            }
            let queue = queues[random.below(TortureQueues.homes.count)]
            let count = random.below(3) == 0 ? 1 + random.below(20) : 1
            do {
                try await self.publish(count, to: queue, &random)
            } catch {
                await self.endAfter(error)
            }
            if let rate = self.options.rate {
                next += .nanoseconds(1_000_000_000 * Int64(count * self.options.publishers) / Int64(max(rate, 1)))
                next = max(next, .now - .milliseconds(100))
                try? await Task.sleep(until: next, clock: .continuous)
            }
        }
    }

    private func publish(_ count: Int, to queue: LocalQueue, _ random: inout TortureRandom) async throws {
        let isDelayed = random.below(8) == 0
        var messages: [Message] = []
        var numbers: [UInt64] = []
        for _ in 0..<count {
            let number = self.nextNumber()
            let delay = isDelayed ? Duration.milliseconds(1 + random.below(200)) : .zero
            if isDelayed { self.journal.expect(number, notBefore: .now + delay) }
            numbers.append(number)
            messages.append(TortureMessage.make(number, delay: delay))
        }
        self.journal.note(numbers.map { .publishing($0, queue: queue.queue.rawValue) })
        let results = try await queue.publish(messages, durability: self.options.durability.choose(random.next()))
        var stored = 0
        self.journal.note(
            zip(numbers, results).map { number, result in
                switch result {
                case .success(let id):
                    stored += 1
                    return .published(number, id: id.rawValue)
                case .failure(let error):
                    return .unpublished(number, code: error.code.description)
                }
            }
        )
        self.journal.addOutstanding(stored)
        for case .failure(let error) in results { return await self.endAfter(error) }
    }

    // MARK: Working

    private func work(on queues: [LocalQueue], _ index: Int) async {
        let queue = queues[index % queues.count]
        var random = TortureRandom(seed: self.options.seed &* 37 &+ UInt64(index) &+ 1000)
        while self.isRunning {
            do {
                let lease = ContinuousClock.now + self.options.lease
                let request = TakeRequest(
                    max: 1 + random.below(16),
                    wait: .milliseconds(50),
                    lease: self.options.lease
                )
                let deliveries = try await queue.take(request)
                self.journal.noteTaken(deliveries, lease: lease)
                try await self.finish(deliveries, of: queue, &random)
            } catch {
                await self.endAfter(error)
            }
        }
    }

    private func finish(_ deliveries: [Delivery], of queue: LocalQueue, _ random: inout TortureRandom) async throws {
        let endings = deliveries.map { TortureEnding($0, of: self, &random) }
        let isBatch = random.below(2) == 0
        if random.below(16) == 0 { _ = try await queue.extend(deliveries.map(\.receipt), lease: self.options.lease) }
        let size = isBatch ? max(endings.count, 1) : 1
        for start in stride(from: 0, to: endings.count, by: size) {
            let part = endings[start..<min(start + size, endings.count)]
            try await self.finish(part, of: queue, self.options.durability.choose(random.next()))
        }
    }

    func finish(_ endings: ArraySlice<TortureEnding>, of queue: LocalQueue, _ durability: Durability) async throws {
        for ending in endings { self.journal.letGo(ending.delivery) }
        self.journal.note(endings.map(\.announcement))
        let results = try await queue.finish(endings.map(\.completion), durability: durability)
        self.journal.note(zip(endings, results).map { $0.report($1) })
        var ended = 0
        for (ending, result) in zip(endings, results) {
            guard case .success = result else { continue }
            if ending.isEnd { ended += 1 }
            self.journal.addOutstanding(ending.outgoing.count)
        }
        self.journal.addEnded(ended)
        if let most = self.options.messages, self.journal.ended >= most {
            self.isOver.store(true, ordering: .relaxed)
        }
        for case .failure(let error) in results where error.code != .staleReceipt {
            return await self.endAfter(error)
        }
    }

    // MARK: Keeping house

    private func keepHouse(_ store: LocalStore) async {
        var random = TortureRandom(seed: self.options.seed &* 41)
        while self.isRunning {
            try? await Task.sleep(for: .milliseconds(10 + random.below(60)))
            do {
                if self.options.isShared {
                    let queues = try await store.stats().queues
                    self.journal.setOutstanding(queues.reduce(0) { $0 + $1.ready + $1.delayed })
                }
                switch random.below(6) {
                case 0: try await store.sync()
                // What a process that was killed sent back is known to nobody.
                case 1 where self.options.isShared: try await store.checkpoint()
                case 1: try await self.redrive(store, TortureQueues.all[random.below(TortureQueues.all.count)])
                case 2: _ = try await store.stats()
                default:
                    try await store.checkpoint()
                    self.journal.note(.checkpointed)
                }
            } catch {
                await self.endAfter(error)
            }
        }
    }

    func redrive(_ store: LocalStore, _ name: String) async throws {
        let queue = try QueueName(name)
        guard try await store.hasQueue(queue) else { return }
        self.journal.note(.redriving(queue: name))
        let count = try await store.redrive(queue)
        self.journal.note(.redriven(queue: name, count: count))
        self.journal.addOutstanding(name == TortureQueues.errors ? 0 : count)
    }
}
