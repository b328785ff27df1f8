import Foundation
import StalkCore
import StalkPlatform
import StalkTesting
import Testing

@testable import StalkLocal

/// A store that two openings share: the first owns it, the second reaches it through the socket.
struct SharedStore: Sendable {
    let temporary: TemporaryStore
    let owner: LocalStore
    let client: LocalStore

    init(_ temporary: TemporaryStore = TemporaryStore()) async throws {
        self.temporary = temporary
        self.owner = try await temporary.open()
        self.client = try await temporary.open()
    }

    func close() async throws {
        try await self.client.close()
        try await self.owner.close()
        self.temporary.remove()
    }
}

/// Reaches a local queue through another owner, for the conformance suite.
final class SharedHarness: CollectorHarness {
    let shared: SharedStore
    private let next = NextNumber()

    init() async throws {
        self.shared = try await SharedStore()
    }

    func makeCollector() async throws -> LocalQueue {
        try self.shared.client.queue("queue-\(self.next.take())")
    }

    func advance(by duration: Duration) async throws {
        await self.shared.temporary.advance(self.shared.owner, by: duration)
    }

    func takeIsWaiting() async throws {
        let core = self.shared.owner.core
        while core.look({ engine in engine.queues.numbers.allSatisfy { engine.queues[$0].takers.isEmpty } }) {
            await Task.yield()
        }
    }

    func deadLetters(of collector: LocalQueue) async throws -> [ConformanceDeadLetter]? {
        try await self.shared.client.peek(collector.queue, state: .dead, max: 100).map { message in
            ConformanceDeadLetter(body: message.body, reason: message.failures.last?.reason ?? "")
        }
    }
}

@Suite(.timeLimit(.minutes(5))) struct SharingTests {
    @Test(arguments: CollectorCheck.allCases)
    func clientKeeps(check: CollectorCheck) async throws {
        let harness = try await SharedHarness()
        let outcome = try await CollectorConformance(harness).run(check)
        let needsLess: Set<CollectorCheck> = [.missingExtensionIsRefused, .missingAtomicPublishIsRefused]
        #expect((outcome == .passed) != needsLess.contains(check), "\(outcome)")
        try await harness.shared.close()
    }

    @Test func bothSeeTheSame() async throws {
        let shared = try await SharedStore()
        #expect(shared.owner.access.owned != nil && shared.client.access.owned == nil)
        let (left, right) = (try shared.owner.queue("q"), try shared.client.queue("q"))
        try await left.publish(Message("from the owner", headers: ["a": "b"]))
        try await right.publish(Message("from the client"))
        try await right.wake()
        let taken = try await right.take(TakeRequest(max: 10))
        #expect(taken.map(\.text) == ["from the owner", "from the client"])
        #expect(taken[0].headers["a"] == "b" && taken[0].attempt == 1 && taken[0].queue == right.queue)
        try await right.finish(taken[0], .deadLetter(reason: "why"))
        try await right.acknowledge(taken[1])
        let (ours, theirs) = (try await shared.owner.stats(), try await shared.client.stats())
        #expect(ours.queues == theirs.queues && ours.queues[0].dead == 1 && ours.owner == theirs.owner)
        #expect(try await shared.client.message(taken[0].id).failures.map(\.reason) == ["why"])
        #expect(try await shared.client.countRedrivable(right.queue) == 1)
        #expect(try await shared.client.redrive(right.queue) == 1)
        #expect(try await shared.client.hasQueue(right.queue))
        try await shared.client.pause(right.queue)
        #expect(try await shared.owner.stats().queues[0].isPaused)
        try await shared.client.resume(right.queue)
        try await shared.client.delete(taken[0].id)
        #expect(try await shared.owner.stats().queues[0].ready == 0)
        await #expect(throws: StalkError.self) { try await shared.client.message(taken[0].id) }
        try await shared.close()
    }

    @Test func careWorksThroughTheOwner() async throws {
        let shared = try await SharedStore()
        let queue = try shared.client.queue("q")
        try await queue.publish((0..<100).map { Message("\($0)") })
        let copy = TemporaryStore()
        let backup = try await shared.client.backup(to: copy.path)
        #expect(backup.messages == 100 && backup.path == copy.path)
        #expect(try await shared.client.compact().bytesAfter > 0)
        // What needs the store alone is turned away.
        for apply in [false, true] {
            let error = await #expect(throws: StalkError.self) {
                try await LocalStore.repair(at: shared.temporary.path, apply: apply)
            }
            #expect(error?.code == .storeBusy)
        }
        await #expect(throws: StalkError.self) { try await LocalStore.verify(at: shared.temporary.path) }
        try await shared.close()
        let store = try await copy.open()
        #expect(try await store.peek(queue.queue, max: 1000).count == 100)
        try await store.close()
        copy.remove()
    }

    @Test func manyMessagesComeInParts() async throws {
        let shared = try await SharedStore()
        let queue = try shared.client.queue("q")
        let bodies = (0..<300).map { [UInt8](repeating: UInt8($0 % 256), count: 60_000) }
        for part in stride(from: 0, to: 300, by: 100) {
            let results = try await queue.publish(bodies[part..<part + 100].map { Message($0) })
            #expect(results.allSatisfy { (try? $0.get()) != nil })
        }
        let seen = try await shared.client.peek(queue.queue, max: 300)
        #expect(seen.map(\.body) == bodies)
        try await queue.wake()
        var taken: [[UInt8]] = []
        while taken.count < 300 { taken += try await queue.take(TakeRequest(max: 1000)).map(\.body) }
        #expect(taken == bodies)
        try await shared.close()
    }

    @Test func whatAClientHeldComesBackWhenItGoes() async throws {
        let shared = try await SharedStore()
        let queue = try shared.client.queue("q")
        try await queue.publish(Message("a"))
        try await queue.wake()
        #expect(try await queue.take(TakeRequest()).count == 1)
        // The process ends: its connection does.
        await shared.client.access.abandon()
        let other = try shared.owner.queue("q")
        try await other.wake()
        let again = try await other.take(TakeRequest(wait: .seconds(3600)))
        #expect(again.map(\.attempt) == [2])
        try await shared.owner.close()
        shared.temporary.remove()
    }

    @Test func aTakerIsServedWhoeverPublishes() async throws {
        let shared = try await SharedStore()
        let (left, right) = (try shared.owner.queue("q"), try shared.client.queue("q"))
        try await right.wake()
        async let taken = right.take(TakeRequest(wait: .seconds(3600)))
        try await left.publish(Message("a"))
        #expect(try await taken.map(\.text) == ["a"])
        try await shared.close()
    }
}

/// A delivery as its holder tells the next owner of it.
private func heldLease(_ delivery: Delivery) throws -> HeldLease {
    guard case .local(_, let sequence, let lease) = delivery.receipt.token else {
        throw StalkError(.invalidArgument, "The delivery is of no local queue: \(delivery.receipt)")
    }
    return HeldLease(sequence: sequence, lease: lease, deadline: BootTime(nanoseconds: .max), collector: 0)
}

@Suite(.timeLimit(.minutes(5))) struct TakeoverTests {
    @Test(arguments: [false, true]) func theClientGoesOnAsTheOwner(closes: Bool) async throws {
        let shared = try await SharedStore()
        let queue = try shared.client.queue("q")
        for body in ["a", "b", "c"] { try await queue.publish(Message(body)) }
        try await queue.wake()
        let held = try await queue.take(TakeRequest(max: 2))
        let other = try shared.owner.queue("q")
        try await other.wake()
        #expect(try await other.take(TakeRequest()).map(\.text) == ["c"])
        if closes { try await shared.owner.close() } else { await shared.owner.access.abandon() }

        // What this process held is still its own, what the other one held comes again.
        try await queue.finish(held[0], .acknowledge)
        try await queue.extend(held[1], lease: .seconds(60))
        #expect(try await queue.take(TakeRequest(wait: .seconds(3600))).map(\.text) == ["c"])
        try await queue.finish(held[1], .retry(after: .zero, reason: "again"))
        let again = try await queue.take(TakeRequest())
        #expect(again.map(\.text) == ["b"] && again[0].attempt == 2)
        #expect(shared.client.access.owned != nil)
        #expect(try await shared.client.stats().queues[0].leased == 2)
        try await shared.client.close()
        shared.temporary.remove()
    }

    /// In an error queue attempts are counted anew, so that a number of them says nothing of which delivery it was.
    @Test(arguments: [false, true]) func whatFailedBeforeIsHeldLikeAnythingElse(settles: Bool) async throws {
        let shared = try await SharedStore()
        let errors = try shared.client.queue("errors")
        let queue = try shared.client.queue("q", options: LocalQueueOptions(errorQueue: errors.queue))
        try await queue.publish(Message("a"))
        try await queue.wake()
        try await errors.wake()
        try await queue.finish(queue.take(TakeRequest())[0], .deadLetter(reason: "no"))
        let held = try await errors.take(TakeRequest())
        #expect(held.map(\.attempt) == [1])
        if settles { try await shared.client.checkpoint() }
        await shared.owner.access.abandon()
        try await errors.acknowledge(held[0])
        #expect(try await shared.client.stats().queues.allSatisfy { $0.ready + $0.leased + $0.dead == 0 })
        try await shared.client.close()
        shared.temporary.remove()
    }

    @Test func aThirdOneFindsTheNewOwner() async throws {
        let shared = try await SharedStore()
        let third = try await shared.temporary.open()
        let (left, right) = (try shared.client.queue("q"), try third.queue("q"))
        for body in ["a", "b"] { try await left.publish(Message(body)) }
        try await left.wake()
        try await right.wake()
        let (one, two) = (try await left.take(TakeRequest()), try await right.take(TakeRequest()))
        #expect(one.map(\.text) == ["a"] && two.map(\.text) == ["b"])
        await shared.owner.access.abandon()
        // Nobody is given what the other one still works on.
        #expect(try await left.take(TakeRequest()).isEmpty)
        #expect(try await right.take(TakeRequest()).isEmpty)
        try await left.acknowledge(one[0])
        try await right.acknowledge(two[0])
        #expect(try await third.stats().queues[0].leased == 0)
        #expect([shared.client, third].count { $0.access.owned != nil } == 1)
        try await third.close()
        try await shared.client.close()
        shared.temporary.remove()
    }

    /// A message that its holder had sent back may be with somebody else before the holder finds the next owner.
    @Test func whatTheLastOwnerEndedIsEndedAlsoWhenItWasTakenAgain() async throws {
        let temporary = TemporaryStore()
        let last = try await temporary.open()
        let queue = try last.queue("q")
        for body in ["a", "b"] { try await queue.publish(Message(body)) }
        try await queue.wake()
        let held = try await queue.take(TakeRequest(max: 2))
        try await queue.finish(held[0], .release)
        await last.access.abandon()

        let next = try await temporary.open()
        let owned = try #require(next.access.owned)
        owned.core.look { $0.awaitHolders() }
        let other = try next.queue("q")
        try await other.wake()
        #expect(try await other.take(TakeRequest(max: 2)).map(\.text) == ["a"])
        #expect(try owned.adopt(heldLease(held[0])) == .ended)

        // Nobody came for the other one in time.
        owned.core.step { engine, now in engine.stopAwaitingHolders(now: now) }
        #expect(try await other.take(TakeRequest()).map(\.text) == ["b"])
        #expect(try owned.adopt(heldLease(held[1])) == .lost)
        #expect(try owned.adopt(heldLease(held[0])) == .ended, "however late its holder comes")
        try await next.close()
        temporary.remove()
    }

    @Test func callsUnderWayAreCarriedOutOnce() async throws {
        let temporary = TemporaryStore()
        let first = [try await temporary.open(), try await temporary.open(), try await temporary.open()]
        let last = try await temporary.open()
        let queue = try last.queue("q")
        let published = PublishedBodies()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for worker in 0..<8 {
                group.addTask {
                    for number in 0..<200 {
                        try await queue.publish(Message("\(worker)-\(number)"))
                        published.bodies.withLock { $0.append("\(worker)-\(number)") }
                    }
                }
            }
            // Each owner goes in the middle of it, until the publisher owns the store itself.
            for store in first {
                let count = published.bodies.withLock { $0.count }
                while published.bodies.withLock({ $0.count }) < min(count + 200, 1600) { await Task.yield() }
                await store.access.abandon()
            }
            try await group.waitForAll()
        }
        let stored = try await last.peek(queue.queue, max: 10_000).map { String(decoding: $0.body, as: UTF8.self) }
        #expect(stored.count == 1600 && Set(stored) == Set(published.bodies.withLock { $0 }))
        try await last.close()
        temporary.remove()
    }

    /// What was refused stands between what was stored: what is repeated must find its own places again.
    @Test func repeatedCallWithRefusalsIsStoredOnce() async throws {
        let temporary = TemporaryStore()
        let first = try await temporary.open()
        let large = Message([UInt8](repeating: 0, count: temporary.options.maxBodyBytes + 1))
        let messages = [Message("a"), large, large, Message("b"), Message("c"), large]
        let call = PublishCall(
            queue: try QueueName("q"),
            messages: messages,
            durability: .synced,
            origin: CallOrigin(client: 7, call: 1, answeredBelow: 1)
        )
        let results = try await #require(first.access.owned).publish(call)
        let ids = results.map { try? $0.get() }
        #expect(ids.map { $0 != nil } == [true, false, false, true, true, false])
        await first.abandon()
        // By the log, then by LMDB.
        for _ in 0..<2 {
            let next = try await temporary.open()
            #expect(try await #require(next.access.owned).publish(call).map { try? $0.get() } == ids)
            let stored = try await next.peek(call.queue, max: 10).map { String(decoding: $0.body, as: UTF8.self) }
            #expect(stored == ["a", "b", "c"])
            try await next.close()
        }
        temporary.remove()
    }

    @Test func headerNameThatIsTooLongIsRefusedByTheOwnerToo() async throws {
        let shared = try await SharedStore()
        let queue = try shared.client.queue("q")
        var headers = Headers()
        headers[String(repeating: "n", count: 70_000)] = "value"
        let results = try await queue.publish([Message("a"), Message("b", headers: headers)])
        #expect((try? results[0].get()) != nil)
        let error = #expect(throws: StalkError.self) { try results[1].get() }
        #expect(error?.code == .invalidArgument)
        #expect(try await shared.client.peek(queue.queue).count == 1)
        try await shared.close()
    }

    @Test func limitBelowZeroDoesNothing() async throws {
        let shared = try await SharedStore()
        let queue = try shared.client.queue("q")
        try await queue.publish(Message("a"))
        #expect(try await shared.client.purge(queue.queue, states: [.ready], max: -1) == 0)
        #expect(try await shared.client.peek(queue.queue).count == 1)
        try await shared.close()
    }
}

/// What several tasks published.
private final class PublishedBodies: Sendable {
    let bodies = Locked<[String]>([])
}
