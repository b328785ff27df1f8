import StalkCore
import StalkTesting
import Testing

@testable import StalkLocal

/// Messages that are changed by hand: kicked, moved, deleted, purged.
@Suite(.timeLimit(.minutes(10))) struct MessageChangeTests {
    /// Where the messages are when they are changed.
    enum Home: CaseIterable {
        /// In memory and in the log alone.
        case memory
        /// In LMDB, and forgotten by memory as far as that is possible.
        case lmdb
    }

    private static let hour = Duration.seconds(3600)

    private static func texts(
        _ store: LocalStore,
        _ queue: QueueName,
        _ state: MessageState = .ready
    ) async throws -> [String] {
        try await store.peek(queue, state: state, max: 100).map { String(decoding: $0.body, as: UTF8.self) }
    }

    private static func taken(_ queue: LocalQueue) async throws -> [Delivery] {
        try await queue.take(TakeRequest(max: 10))
    }

    /// Opens the store again after a kill.
    private static func reopen(_ store: LocalStore, _ temporary: TemporaryStore) async throws -> LocalStore {
        await store.abandon()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
        return try await temporary.open()
    }

    private static func settle(
        _ home: Home,
        _ store: LocalStore,
        _ temporary: TemporaryStore
    ) async throws -> LocalStore {
        guard home == .lmdb else { return store }
        try await store.close()
        return try await temporary.open()
    }

    @Test(arguments: Home.allCases)
    func kickedMessageIsReadyAtOnceAndKeepsItsAttempts(home: Home) async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        var queue = try store.queue("q")
        try await queue.wake()
        let failed = try await queue.publish(Message("failed once"))
        let delivery = try #require(try await Self.taken(queue).first)
        try await queue.finish(delivery, .retry(after: Self.hour, reason: "not now"))
        let later = try await queue.publish(Message("later", delay: .seconds(60)))
        try await queue.publish(Message("ready"))
        store = try await Self.settle(home, store, temporary)

        temporary.clock.advance(by: .seconds(1))
        #expect(try await store.kick(failed))
        #expect(try await store.kick(failed) == false, "what is ready stays as it is")
        #expect(try await Self.texts(store, queue.queue) == ["ready", "failed once"])
        #expect(try await store.kick(later))
        store = try await Self.reopen(store, temporary)
        queue = try store.queue("q")
        try await queue.wake()
        let deliveries = try await Self.taken(queue) + Self.taken(queue)
        #expect(deliveries.map(\.text) == ["ready", "failed once", "later"])
        #expect(deliveries.map(\.attempt) == [1, 2, 1])
        #expect(try await store.message(failed).failures.map(\.reason) == ["not now"])
        for delivery in deliveries { try await queue.acknowledge(delivery) }
        // Its old time comes, and nothing happens.
        await temporary.advance(store, by: .seconds(7200))
        #expect(try await Self.taken(queue).isEmpty)
        #expect(
            try await store.stats().queues.map { [$0.ready, $0.delayed, $0.leased, $0.dead, $0.bytes] } == [
                [0, 0, 0, 0, 0]
            ]
        )
        try await store.close()
    }

    @Test(arguments: Home.allCases)
    func messageThatIsAlmostDueCanBeChanged(home: Home) async throws {
        // What is due within the horizon is in the wheel already, with a timer of its own.
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        var queue = try store.queue("q")
        let ids = try await queue.publish((0..<4).map { Message("\($0)", delay: .milliseconds(1500 + $0)) }).map {
            try $0.get()
        }
        store = try await Self.settle(home, store, temporary)
        queue = try store.queue("q")
        while store.core.look({ $0.isFeeding || $0.nextUnfed == 0 }) { await Task.yield() }
        if home == .lmdb { #expect(store.core.look { $0.settledTimers.count } == 4) }
        try await store.delete(ids[0])
        try await store.kick(ids[1])
        try await store.move(ids[2], to: QueueName("other"))
        try await store.checkpoint()
        if home == .lmdb { #expect(store.core.look { $0.settledTimers.count } == 1) }
        await temporary.advance(store, by: .seconds(2))
        let stats = try await store.stats().queues
        #expect(stats.map { [$0.ready, $0.delayed, $0.leased, $0.dead] } == [[1, 0, 0, 0], [2, 0, 0, 0]])
        try await queue.wake()
        #expect(try await Self.taken(queue).map(\.text) + Self.taken(queue).map(\.text) == ["1", "3"])
        try await store.close()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
    }

    @Test func whatIsReleasedBeforeTheRestIsCountedOnce() async throws {
        // More messages are due at once than the bounded rate lets go. LMDB calls none of them released before all are, so
        // those that count as ready must be told from those that wait.
        var temporary = TemporaryStore()
        defer { temporary.remove() }
        temporary.options.releaseRate = 1000
        var store = try await temporary.open()
        let published = try await store.queue("q").publish((0..<300).map { Message("\($0)", delay: .seconds(5)) })
        let ids = try published.map { try $0.get() }
        try await store.close()
        temporary.clock.advance(by: .seconds(3.5))
        store = try await temporary.open()
        let name = try QueueName("q")
        func figures() async throws -> QueueStats {
            try #require(try await store.stats().queues.first { $0.name == name })
        }
        while store.core.look({ $0.settledTimers.count }) < 300 {
            temporary.clock.advance(by: .milliseconds(20))
            await store.settleSchedule()
        }
        temporary.clock.advance(by: .seconds(2))
        await store.settleSchedule()
        #expect(store.core.look { $0.queues[1].releasedAhead } > 3)
        let before = try await figures()
        #expect(before.ready > 0 && before.delayed > 100, "some wait, some do not: \(before)")
        for id in [ids[0], ids[1], ids[298], ids[299]] { try await store.delete(id) }
        try await store.move(ids[2], to: QueueName("other"))
        try await store.move(ids[297], to: QueueName("other"))
        #expect(try await store.kick(ids[3]) == false, "it is ready already")
        #expect(try await store.kick(ids[296]))
        var after = try await figures()
        #expect(after.ready + after.delayed == 294)
        try await store.checkpoint()
        store = try await Self.reopen(store, temporary)
        after = try await figures()
        #expect(after.ready + after.delayed == 294)
        #expect(try await store.purge(name) == 294)
        #expect(try await store.stats().queues.map { [$0.ready, $0.delayed, $0.bytes] } == [[2, 0, 4], [0, 0, 0]])
        try await store.close()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
    }

    @Test(arguments: Home.allCases)
    func messagesMoveFromWhereverTheyStand(home: Home) async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        let errors = try QueueName("errors")
        let queue = try store.queue("q", options: LocalQueueOptions(errorQueue: errors))
        let plain = try store.queue("q")
        try await queue.wake()
        let ids = try await queue.publish(["dead", "moved away", "ready"].map { Message($0) }).map { try $0.get() }
        let late = try await queue.publish(Message("late", delay: Self.hour))
        let taken = try await queue.take(TakeRequest(max: 2))
        try await plain.finish(taken[0], .deadLetter(reason: "bad"))
        try await queue.finish(taken[1], .deadLetter(reason: "worse"))
        store = try await Self.settle(home, store, temporary)

        let target = try QueueName("target")
        for id in [ids[2], late, ids[0], ids[1]] { try await store.move(id, to: target) }
        store = try await Self.reopen(store, temporary)
        let moved = try await store.peek(target, max: 10)
        // All of them were moved in one millisecond of the manual clock, so publish order decides.
        let texts = moved.map { String(decoding: $0.body, as: UTF8.self) }
        #expect(texts == ["dead", "moved away", "ready", "late"])
        #expect(moved.allSatisfy { $0.attempts == 0 && $0.diedIn == nil && $0.state == .ready })
        #expect(moved.map { $0.failures.map(\.reason) } == [["bad"], ["worse"], [], []])
        #expect(try await store.redrive(target) == 0, "a move is no failure")
        #expect(
            try await store.stats().queues.map { [$0.ready, $0.delayed, $0.leased, $0.dead] } == [
                [0, 0, 0, 0], [0, 0, 0, 0], [4, 0, 0, 0],
            ]
        )
        try await store.close()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
    }

    @Test(arguments: Home.allCases)
    func kickSendsBackWhatFailedForGood(home: Home) async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        let errors = try QueueName("errors")
        let queue = try store.queue("q", options: LocalQueueOptions(errorQueue: errors))
        let plain = try store.queue("q")
        try await queue.wake()
        let ids = try await queue.publish([Message("dead"), Message("elsewhere")]).map { try $0.get() }
        let taken = try await queue.take(TakeRequest(max: 2))
        try await plain.finish(taken[0], .deadLetter(reason: "bad"))
        try await queue.finish(taken[1], .deadLetter(reason: "worse"))
        store = try await Self.settle(home, store, temporary)
        for id in ids { #expect(try await store.kick(id)) }
        store = try await Self.reopen(store, temporary)
        let back = try await store.peek(QueueName("q"), max: 10)
        #expect(back.map(\.id) == ids && back.allSatisfy { $0.attempts == 0 && $0.diedIn == nil })
        #expect(try await store.peek(errors, max: 10).isEmpty)
        try await store.close()
    }

    @Test(arguments: Home.allCases)
    func deletedMessageNeverComes(home: Home) async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        var queue = try store.queue("q")
        try await queue.wake()
        let ids = try await queue.publish([Message("dead"), Message("ready"), Message("stays")]).map { try $0.get() }
        let late = try await queue.publish(Message("late", delay: Self.hour))
        try await queue.finish(try #require(try await queue.take(TakeRequest()).first), .deadLetter(reason: "bad"))
        store = try await Self.settle(home, store, temporary)
        for id in [ids[0], ids[1], late] {
            try await store.delete(id)
            let error = await #expect(throws: StalkError.self) { try await store.delete(id) }
            #expect(error?.code == .noSuchMessage)
        }
        store = try await Self.reopen(store, temporary)
        queue = try store.queue("q")
        try await queue.wake()
        await temporary.advance(store, by: .seconds(7200))
        #expect(try await Self.taken(queue).map(\.text) == ["stays"])
        #expect(
            try await store.stats().queues.map { [$0.ready, $0.delayed, $0.leased, $0.dead, $0.bytes] } == [
                [0, 0, 1, 0, 5]
            ]
        )
        try await store.close()
    }

    /// A message that was read from LMDB is finished and forgotten by memory before it is changed: what was read is stale.
    @Test func whatWasReadTooEarlyIsReadAgain() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        let id = try await store.queue("q").publish(Message("x"))
        store = try await Self.settle(.lmdb, store, temporary)
        let sequence = try #require(id.sequence)
        let (core, epoch) = (store.core, store.core.look { $0.epoch })
        let found = try #require(try core.tables.message(sequence))
        try await store.delete(id)
        try await store.checkpoint()
        #expect(core.look { $0.entries[sequence] == nil })
        let other = MessageChange.move(to: try QueueName("other"))
        let outcome = core.step { engine, now in
            engine.change(other, one: id, sequence, found: found, epoch: epoch, now: now)
        }
        #expect(try outcome.get() == nil)
        let error = #expect(throws: StalkError.self) {
            try MessageChanges(core: core, change: other).attempt(id)
        }
        #expect(error?.code == .noSuchMessage)
        #expect(try await store.stats().queues.allSatisfy { $0.ready == 0 })
        try await store.close()
    }

    @Test func whatSomebodyWorksOnIsLeftAlone() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        try await queue.wake()
        let id = try await queue.publish(Message("x"))
        let delivery = try #require(try await Self.taken(queue).first)
        let calls: [@Sendable () async throws -> Void] = [
            { try await store.kick(id) }, { try await store.delete(id) },
            { try await store.move(id, to: QueueName("other")) },
        ]
        for call in calls {
            let error = await #expect(throws: StalkError.self) { try await call() }
            #expect(error?.code == .messageLeased)
        }
        #expect(try await store.purge(queue.queue) == 0)
        let error = await #expect(throws: StalkError.self) { try await store.purge(queue.queue, states: [.leased]) }
        #expect(error?.code == .invalidArgument)
        #expect(try await !store.hasQueue(QueueName("other")), "a refused move makes no queue")
        try await queue.acknowledge(delivery)
        for text in ["0000000000009", "no id", ""] {
            let error = await #expect(throws: StalkError.self) { try await store.delete(MessageID(text)) }
            #expect(error?.code == .noSuchMessage)
        }
        try await store.close()
    }

    @Test(arguments: Home.allCases)
    func queueIsKickedInOrderUpToACount(home: Home) async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        let queue = try store.queue("q")
        for minutes in [3, 1, 2] { try await queue.publish(Message("\(minutes)", delay: .seconds(60 * minutes))) }
        try await store.queue("other").publish(Message("other", delay: Self.hour))
        store = try await Self.settle(home, store, temporary)
        #expect(try await store.kick(queue.queue, max: 2) == 2)
        #expect(try await Self.texts(store, queue.queue).sorted() == ["1", "2"])
        #expect(try await store.kick(queue.queue) == 1)
        #expect(try await store.kick(queue.queue) == 0)
        store = try await Self.reopen(store, temporary)
        #expect(try await Self.texts(store, queue.queue).count == 3)
        #expect(try await Self.texts(store, QueueName("other"), .delayed) == ["other"])
        let error = await #expect(throws: StalkError.self) { try await store.kick(QueueName("nobody")) }
        #expect(error?.code == .noSuchQueue)
        try await store.close()
    }

    @Test func purgeEmptiesAQueueOfAnySize() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        let queue = try store.queue("q")
        let other = try store.queue("other")
        try await queue.wake()
        try await other.publish(Message("stays"))
        for start in stride(from: 0, to: 5000, by: 500) {
            try await queue.publish(
                (start..<start + 500).map { Message("\($0)", delay: $0 % 5 == 0 ? Self.hour : .zero) }
            )
            if start % 1500 == 0 { try await store.checkpoint() }
        }
        let dead = try #require(try await queue.take(TakeRequest()).first)
        try await queue.finish(dead, .deadLetter(reason: "bad"))
        let held = try #require(try await queue.take(TakeRequest()).first)
        #expect(try await store.purge(queue.queue, states: [.dead]) == 1)
        #expect(try await store.purge(queue.queue, states: [.delayed], max: 10) == 10)
        #expect(try await store.purge(queue.queue) == 5000 - 1 - 10 - 1)
        #expect(
            try await store.stats().queues.first { $0.name == queue.queue }.map {
                [$0.ready, $0.delayed, $0.leased, $0.dead]
            } == [0, 0, 1, 0]
        )
        #expect(store.core.look { $0.queues[2].first } == nil, "keys of messages that are gone would stay for ever")
        try await queue.acknowledge(held)
        try await queue.drained()
        store = try await Self.reopen(store, temporary)
        #expect(try await store.stats().queues.map(\.bytes).sorted() == [0, 5])
        try await store.close()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
    }

    @Test func waitingTakerGetsWhatIsKicked() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        try await queue.wake()
        let id = try await queue.publish(Message("late", delay: Self.hour))
        async let taken = queue.take(TakeRequest(wait: .seconds(600)))
        while store.core.look({ $0.queues[1].takers.isEmpty }) { await Task.yield() }
        try await store.kick(id)
        #expect(try await taken.map(\.text) == ["late"])
        try await store.close()
    }

    @Test func drainedIsToldWhenTheRestIsDeleted() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        let id = try await queue.publish(Message("late", delay: Self.hour))
        let other = try await queue.publish(Message("ready"))
        async let drained: Void = queue.drained()
        while store.core.look({ $0.queues[1].drainWaiters.isEmpty }) { await Task.yield() }
        try await store.delete(id)
        try await store.move(other, to: QueueName("elsewhere"))
        try await drained
        try await store.close()
    }
}
