import StalkCore
import StalkTesting
import Testing

@testable import StalkLocal

/// What survives the death of the owner, settled in LMDB or only in the log.
@Suite(.timeLimit(.minutes(10))) struct RecoveryTests {
    /// Where the messages are when the owner dies.
    enum Settling: CaseIterable, Sendable {
        case logOnly
        case checkpointed
        case checkpointedThenChanged
    }

    private static func kill(
        _ store: LocalStore,
        _ temporary: TemporaryStore,
        queue name: String = "q"
    ) async throws -> (LocalStore, LocalQueue) {
        await store.abandon()
        let store = try await temporary.open()
        let queue = try store.queue(name)
        try await queue.wake()
        await store.catchUp()
        return (store, queue)
    }

    @Test(arguments: Settling.allCases)
    func attemptsDueTimesAndHistorySurvive(settling: Settling) async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        var queue = try store.queue("q")
        try await queue.wake()
        try await queue.publish([Message("crashes"), Message("fails"), Message("waits", delay: .seconds(60))])
        if settling == .checkpointed { try await store.checkpoint() }
        let taken = try await queue.take(TakeRequest(max: 2))
        if settling == .checkpointedThenChanged { try await store.checkpoint() }
        try await queue.finish(taken[1], .retry(after: .seconds(30), reason: "no luck"))

        (store, queue) = try await Self.kill(store, temporary)
        // The lease of the dead owner is over at once; its attempt counts.
        let again = try await queue.take(TakeRequest(max: 10))
        #expect(again.map(\.text) == ["crashes"])
        #expect(again.first?.attempt == 2)
        let failed = try await store.message(taken[1].id)
        #expect(failed.state == .delayed)
        #expect(failed.attempts == 1)
        #expect(failed.failures.map(\.reason) == ["no luck"])
        try await queue.acknowledge(again[0])

        await temporary.advance(store, by: .milliseconds(29_999))
        #expect(try await queue.take(TakeRequest(max: 10)).isEmpty)
        await temporary.advance(store, by: .milliseconds(1))
        #expect(try await queue.take(TakeRequest(max: 10)).map(\.text) == ["fails"])
        await temporary.advance(store, by: .milliseconds(29_999))
        #expect(try await queue.take(TakeRequest(max: 10)).isEmpty)
        await temporary.advance(store, by: .milliseconds(1))
        // What memory holds comes at once, what only LMDB holds with the next take.
        var last = try await queue.take(TakeRequest(max: 10)).map(\.text)
        last += try await queue.take(TakeRequest(max: 10)).map(\.text)
        #expect(last == ["fails", "waits"])
        try await store.close()
    }

    @Test func deadLettersAndNamedErrorQueueSurvive() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        let errors = try QueueName("errors")
        let queue = try store.queue("q", options: LocalQueueOptions(errorQueue: errors))
        let plain = try store.queue("q")
        try await queue.wake()
        try await queue.publish([Message("moved"), Message("kept")])
        let taken = try await queue.take(TakeRequest(max: 2))
        try await queue.finish(taken[0], .deadLetter(reason: "broken"))
        try await plain.finish(taken[1], .deadLetter(reason: "worse"))

        await store.abandon()
        store = try await temporary.open()
        let moved = try #require(try await store.peek(errors).first)
        #expect(moved.diedIn?.rawValue == "q")
        #expect(moved.attempts == 0)
        #expect(moved.failures.map(\.reason) == ["broken"])
        let dead = try #require(try await store.peek(QueueName("q"), state: .dead).first)
        #expect(dead.failures.map(\.reason) == ["worse"])
        #expect(try await store.countRedrivable(errors) == 1)
        #expect(try await store.redrive(errors) == 1)
        #expect(try await store.redrive(QueueName("q")) == 1)

        await store.abandon()
        store = try await temporary.open()
        #expect(try await store.peek(QueueName("q")).map(\.id) == taken.map(\.id))
        #expect(try await store.peek(errors).isEmpty)
        try await store.close()
    }

    @Test func acknowledgeAndPublishIsThereAsWholeOrNotAtAll() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        let queue = try store.queue("in")
        try await queue.wake()
        try await queue.publish(Message("order"))
        let order = try await queue.take(TakeRequest())[0]
        let follow = [
            OutgoingMessage(Message("bill"), to: try QueueName("bills")),
            OutgoingMessage(Message("parcel", delay: .seconds(5)), to: try QueueName("parcels")),
        ]
        try await queue.finish(order, .acknowledgeAndPublish(follow))
        // Used twice, it publishes nothing more.
        await #expect(throws: StalkError.self) { try await queue.finish(order, .acknowledgeAndPublish(follow)) }

        await store.abandon()
        store = try await temporary.open()
        let figures = try await store.stats().queues.map { "\($0.name) \($0.ready) \($0.delayed)" }
        #expect(figures == ["bills 1 0", "in 0 0", "parcels 0 1"])
        try await store.close()
    }

    @Test func receiptsOfDeadOwnerAreStale() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        var queue = try store.queue("q")
        try await queue.wake()
        try await queue.publish(Message("x"))
        let old = try await queue.take(TakeRequest())[0]
        (store, queue) = try await Self.kill(store, temporary)
        let error = await #expect(throws: StalkError.self) { try await queue.acknowledge(old) }
        #expect(error?.code == .staleReceipt)
        let new = try await queue.take(TakeRequest())[0]
        #expect(new.receipt != old.receipt)
        await #expect(throws: StalkError.self) { try await queue.acknowledge(old) }
        try await queue.acknowledge(new)
        // Acknowledged twice is harmless, in memory, and when only LMDB could know.
        try await queue.acknowledge(new)
        try await store.checkpoint()
        try await queue.acknowledge(new)
        try await store.close()
    }

    @Test func backlogLargerThanMemoryKeepsItsOrder() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        var queue = try store.queue("q")
        for start in stride(from: 0, to: 6000, by: 500) {
            try await queue.publish((start..<start + 500).map { Message("\($0)") })
            if start % 1500 == 0 { try await store.checkpoint() }
        }
        try await store.checkpoint()
        #expect(store.core.look { $0.entries.count } <= 1024)
        (store, queue) = try await Self.kill(store, temporary)
        var next = 0
        while true {
            let taken = try await queue.take(TakeRequest(max: 300))
            if taken.isEmpty { break }
            #expect(taken.map(\.text) == (next..<next + taken.count).map(String.init))
            next += taken.count
            for result in try await queue.finish(taken.map { Completion($0.receipt, .acknowledge) }) {
                try result.get()
            }
        }
        #expect(next == 6000)
        try await store.close()
    }

    @Test func openingRefusesDamageAndGoesOnWhenToldTo() async throws {
        var temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        let queue = try store.queue("q")
        for number in 0..<5 { try await queue.publish(Message("message \(number)")) }
        await store.abandon()
        try temporary.flipByte(of: "message 1")
        let before = try temporary.fingerprint()
        let error = await #expect(throws: StalkError.self) { try await temporary.open() }
        #expect(error?.code == .storeDamaged)
        #expect(error?.message.contains(".log at byte") == true)
        #expect(try temporary.fingerprint() == before, "a refused store was changed")
        let report = try await LocalStore.verify(at: temporary.path)
        #expect(report.problems.count == 1)

        temporary.options.onDamage = .quarantine
        let mended = try await temporary.open()
        #expect(mended.recovery.quarantinedFrames == 1)
        #expect(
            try await mended.peek(QueueName("q")).map { String(decoding: $0.body, as: UTF8.self) }
                == ["message 0", "message 2", "message 3", "message 4"]
        )
        try await mended.close()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
    }

    @Test func rottenRecordIsSetAsideAlone() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var store = try await temporary.open()
        let queue = try store.queue("q")
        try await queue.publish((0..<5).map { Message("message \($0)") })
        try await store.close()
        try temporary.flipByte(of: "message 1", in: "index/data.mdb")
        store = try await temporary.open()
        let again = try store.queue("q")
        try await again.wake()
        let taken = try await again.take(TakeRequest(max: 10))
        #expect(taken.map(\.text) == ["message 0", "message 2", "message 3", "message 4"])
        #expect(try await store.stats().setAside == 1)
        #expect(try await store.stats().queues.first?.ready == 0)
        for delivery in taken { try await again.acknowledge(delivery) }
        try await again.drained()
        try await store.close()
        let report = try await LocalStore.verify(at: temporary.path)
        #expect(report.problems.count == 1)
    }
}
