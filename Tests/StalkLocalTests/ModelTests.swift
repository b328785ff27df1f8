import StalkCore
import StalkTesting
import Testing

@testable import StalkLocal

/// Plays random histories, kills and reopenings included, against a model that says at every step what must be there.
@Suite struct ModelTests {
    @Test(.timeLimit(.minutes(10)), arguments: 0..<24 as Range<UInt64>)
    func historyFollowsModel(seed: UInt64) async throws {
        var history = try await History(seed: seed)
        for _ in 0..<150 { try await history.step() }
        try await history.finish()
    }
}

/// A random history of one queue, and what the queue must hold after each step.
private struct History {
    private struct Item {
        var body: [UInt8]
        var dueAt: Int64
        var number: Int
        var attempts = 0
        var leasedUntil: Int64?
        var isDead = false
        var failures = 0
        var receipt: Receipt?

        func isReady(at now: Int64) -> Bool { !self.isDead && self.leasedUntil == nil && self.dueAt <= now }
    }

    private let temporary: TemporaryStore
    private var store: LocalStore
    private var queue: LocalQueue
    private var random: SeededGenerator
    private var items: [MessageID: Item] = [:]
    private var published = 0
    private var now: Int64 = 0

    init(seed: UInt64) async throws {
        self.random = SeededGenerator(seed: seed)
        var temporary = TemporaryStore()
        // Small windows and segments, so that every path is taken with few messages.
        temporary.options.segmentBytes = 256 << 10
        temporary.options.maxBodyBytes = 16 << 10
        temporary.options.checkpointBytes = 256 << 10
        self.temporary = temporary
        self.store = try await temporary.open()
        self.queue = try self.store.queue("history")
        self.store.core.look { $0.limits.windowMessages = 16 }
        try await self.queue.wake()
    }

    mutating func step() async throws {
        switch Int.random(in: 0..<100, using: &self.random) {
        case 0..<25: try await self.publish()
        case 25..<50: try await self.take()
        case 50..<75: try await self.finishSome()
        case 75..<87: await self.advance()
        case 87..<92: try await self.store.checkpoint()
        case 92..<95: try await self.extendOne()
        case 95..<98: try await self.reopen { await $0.abandon() }
        default: try await self.reopen { try await $0.close() }
        }
        try await self.checkFigures()
    }

    mutating func finish() async throws {
        try await self.reopen { try await $0.close() }
        try await self.checkFigures()
        try await self.store.close()
        let report = try await LocalStore.verify(at: self.temporary.path)
        #expect(report.problems.isEmpty)
        #expect(report.messages == self.items.count)
        self.temporary.remove()
    }

    private mutating func publish() async throws {
        let count = Int.random(in: 1...40, using: &self.random)
        let messages = (0..<count).map { _ in
            let size = Int.random(in: 0...3, using: &self.random) == 0 ? 2000 : 30
            let body = (0..<Int.random(in: 0...size, using: &self.random)).map { UInt8(truncatingIfNeeded: $0 * 7) }
            let isDelayed = Int.random(in: 0..<3, using: &self.random) == 0
            let delay = isDelayed ? Int64.random(in: 1...20_000, using: &self.random) : 0
            return Message(body, headers: ["n": "\(body.count)"], delay: .milliseconds(delay))
        }
        let durability: Durability = Bool.random(using: &self.random) ? .synced : .written
        for (message, result) in zip(messages, try await self.queue.publish(messages, durability: durability)) {
            let dueAt = self.now + message.delay.wholeMillisecondsRoundedUp
            self.items[try result.get()] = Item(body: message.body, dueAt: dueAt, number: self.published)
            self.published += 1
        }
    }

    private mutating func take() async throws {
        let most = Int.random(in: 1...30, using: &self.random)
        let lease = Int64.random(in: 1...15_000, using: &self.random)
        let expected = self.items.filter { $0.value.isReady(at: self.now) }
            .sorted { ($0.value.dueAt, $0.value.number) < ($1.value.dueAt, $1.value.number) }
        let taken = try await self.queue.take(TakeRequest(max: most, lease: .milliseconds(lease)))
        #expect(taken.count <= most)
        #expect(taken.isEmpty == expected.isEmpty)
        #expect(taken.map(\.id) == expected.prefix(taken.count).map(\.key), "out of order")
        for delivery in taken {
            let attempts = try #require(self.items[delivery.id]).attempts
            #expect(delivery.attempt == attempts + 1)
            #expect(delivery.body == self.items[delivery.id]?.body)
            #expect(delivery.headers["N"] == "\(delivery.body.count)")
            self.items[delivery.id]?.attempts += 1
            self.items[delivery.id]?.leasedUntil = self.now + lease
            self.items[delivery.id]?.receipt = delivery.receipt
        }
    }

    private mutating func finishSome() async throws {
        let leased = self.items.filter { $0.value.leasedUntil != nil }.sorted { $0.value.number < $1.value.number }
        for (id, item) in leased where Bool.random(using: &self.random) {
            guard let receipt = item.receipt else { continue }
            let disposition = self.disposition()
            let result = try await self.queue.finish([Completion(receipt, disposition)])[0]
            #expect(throws: Never.self) { try result.get() }
            self.items[id]?.leasedUntil = nil
            switch disposition {
            case .acknowledge: self.items[id] = nil
            case .acknowledgeAndPublish: self.items[id] = nil
            case .release: self.items[id]?.attempts -= 1
            case .retry(let delay, _):
                self.items[id]?.dueAt = self.now + delay.wholeMillisecondsRoundedUp
                self.items[id]?.failures = min(item.failures + 1, 8)
            case .deadLetter:
                self.items[id]?.isDead = true
                self.items[id]?.failures = min(item.failures + 1, 8)
            }
        }
    }

    private mutating func disposition() -> Disposition {
        switch Int.random(in: 0..<10, using: &self.random) {
        case 0..<5: .acknowledge
        case 5: .release
        case 6: .deadLetter(reason: "bad")
        case 7: .retry(after: .zero, reason: "again")
        default: .retry(after: .milliseconds(Int64.random(in: 1...10_000, using: &self.random)), reason: "later")
        }
    }

    private mutating func extendOne() async throws {
        guard
            let (id, item) = self.items.filter({ $0.value.leasedUntil != nil }).min(by: {
                $0.value.number < $1.value.number
            }),
            let receipt = item.receipt
        else { return }
        let result = try await self.queue.extend([receipt], lease: .seconds(20))[0]
        #expect(throws: Never.self) { try result.get() }
        self.items[id]?.leasedUntil = self.now + 20_000
    }

    private mutating func advance() async {
        let step = Int64.random(in: 1...8_000, using: &self.random)
        self.now += step
        await self.temporary.advance(self.store, by: .milliseconds(step))
        await self.store.catchUp()
        for (id, item) in self.items where item.leasedUntil.map({ $0 <= self.now }) ?? false {
            self.items[id]?.leasedUntil = nil
        }
    }

    private mutating func reopen(_ end: (LocalStore) async throws -> Void) async throws {
        try await end(self.store)
        if Bool.random(using: &self.random) {
            let step = Int64.random(in: 1...5_000, using: &self.random)
            self.now += step
            self.temporary.clock.advance(by: .milliseconds(step))
        }
        self.store = try await self.temporary.open()
        self.store.core.look { $0.limits.windowMessages = 16 }
        self.queue = try self.store.queue("history")
        try await self.queue.wake()
        await self.store.catchUp()
        for id in self.items.keys { self.items[id]?.leasedUntil = nil }
    }

    private func checkFigures() async throws {
        let stats = try await self.store.stats().queues.first
        let values = self.items.values
        let leased = values.filter { $0.leasedUntil != nil }.count
        let ready = values.filter { $0.isReady(at: self.now) }.count
        let dead = values.filter { $0.isDead }.count
        #expect(stats?.ready ?? 0 == ready)
        #expect(stats?.leased ?? 0 == leased)
        #expect(stats?.dead ?? 0 == dead)
        #expect(stats?.delayed ?? 0 == values.count - ready - leased - dead)
        #expect(stats?.bytes ?? 0 == values.reduce(0) { $0 + $1.body.count })
        guard let (id, item) = self.items.max(by: { $0.value.failures < $1.value.failures }) else { return }
        let stored = try await self.store.message(id)
        #expect(stored.failures.count == item.failures)
        #expect(stored.attempts == item.attempts)
        #expect(stored.body == item.body)
    }
}
