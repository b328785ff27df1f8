import StalkCore
import StalkTesting
import Testing

@testable import StalkLocal

/// The engine as a value: no threads, no files.
@Suite struct EngineTests {
    private final class Replies: Sendable {
        let taken = Locked<[Result<[Delivery], any Error>]>([])
        let published = Locked<[Result<[Result<MessageID, StalkError>], StalkError>]>([])
    }

    private static let now = Moment(nanoseconds: 1_700_000_000_000_000_000)

    private static func engine() throws -> Engine {
        var meta = StoreMeta(store: 7)
        meta.storeTime = Self.now.milliseconds
        var engine = Engine(meta: meta, limits: EngineLimits(options: LocalStoreOptions()), now: Self.now)
        let queue = try QueueName("q")
        engine.addQueue(number: 1, name: queue)
        return engine
    }

    private static func publish(_ engine: inout Engine, _ text: String, _ replies: Replies) throws -> Actions {
        let call = PendingPublish(
            queue: try QueueName("q"),
            messages: [Message(text)],
            publishedAt: 0,
            results: [nil],
            durability: .synced
        ) { outcome in replies.published.withLock { $0.append(outcome) } }
        return engine.publish(call, now: Self.now)
    }

    private static func take(_ engine: inout Engine, _ replies: Replies) throws -> Actions {
        let queue = try QueueName("q")
        let collector = engine.addCollector(of: queue)
        _ = engine.control(.wake, of: collector, now: Self.now)
        let taker = Taker(
            id: engine.makeID(),
            collector: collector,
            max: 1,
            lease: .seconds(30),
            durability: .synced,
            isImmediate: true
        ) { outcome in replies.taken.withLock { $0.append(outcome) } }
        return engine.take(taker, from: queue, wait: .zero, now: Self.now)
    }

    /// What the log's thread does, on a disk that never fails.
    private static func commit(_ engine: inout Engine) {
        while case (.write(let frame)?, _) = engine.nextLogJob(now: Self.now, reusing: []) {
            for reply in engine.complete(frame, syncTime: frame.needsSync ? 100 : nil, now: Self.now).replies {
                reply()
            }
        }
    }

    /// Ids are read in both cases, and the letters that look like others are none of theirs.
    @Test func idsAreReadAsTheyWereWritten() {
        var generator = SeededGenerator(seed: 1)
        for _ in 0..<1000 {
            let sequence = generator.next() >> generator.next() % 64
            let id = MessageID(sequence: sequence)
            #expect(id.sequence == sequence)
            #expect(MessageID(id.rawValue.lowercased()).sequence == sequence)
        }
        for character in "ILOUilou@[`{/:-" {
            #expect(MessageID("000000000000\(character)").sequence == nil, "\(character)")
        }
        #expect(MessageID("000000000000").sequence == nil)
    }

    @Test func nothingIsSeenBeforeItIsSafe() throws {
        var engine = try Self.engine()
        let replies = Replies()
        #expect(try Self.publish(&engine, "x", replies).wakesLog)
        #expect(engine.queues[1].stagedReady == 1 && engine.queues[1].ready == 0)
        for reply in try Self.take(&engine, replies).replies { reply() }
        #expect(try replies.taken.withLock { try $0.map { try $0.get().count } } == [0])
        Self.commit(&engine)
        #expect(replies.published.withLock { $0.count } == 1)
        #expect(engine.queues[1].ready == 1)
        // The delivery waits in the same way for its attempt to be safe.
        #expect(try Self.take(&engine, replies).replies.isEmpty)
        Self.commit(&engine)
        #expect(try replies.taken.withLock { try $0.last?.get().map(\.attempt) } == [1])
    }

    @Test func whatFindsNoRoomIsRefusedWhenTheDiskIsFull() throws {
        var engine = try Self.engine()
        let replies = Replies()
        _ = try Self.publish(&engine, "x", replies)
        Self.commit(&engine)
        engine.room.remaining = 0
        #expect(try Self.publish(&engine, "y", replies).wakesKeeper)
        #expect(try Self.take(&engine, replies).wakesKeeper)
        #expect(replies.taken.withLock { $0.isEmpty })
        let full = StalkError(.storageFull, "The disk is full.")
        for reply in engine.refusePending(full, now: Self.now).replies { reply() }
        let refused = try replies.published.withLock { try $0[1].get()[0] }
        guard case .failure(let error) = refused else {
            Issue.record("published without room")
            return
        }
        #expect(error.code == .storageFull)
        let taken = replies.taken.withLock { $0[0] }
        #expect(throws: StalkError.self) { try taken.get() }
        // The message is still there for when there is room.
        engine.room.remaining = 1 << 20
        _ = try Self.take(&engine, replies)
        Self.commit(&engine)
        #expect(try replies.taken.withLock { try $0.last?.get().map(\.text) } == ["x"])
    }

    @Test func failureOfTheLogIsToldToEveryoneAndLasts() throws {
        var engine = try Self.engine()
        let replies = Replies()
        _ = try Self.publish(&engine, "x", replies)
        let (job, _) = engine.nextLogJob(now: Self.now, reusing: [])
        guard case .write(let frame)? = job else {
            Issue.record("nothing to write")
            return
        }
        _ = try Self.publish(&engine, "y", replies)
        let failure = StalkError(.storageFailed, "The disk failed.")
        for reply in engine.fail(failure, includingCallersOf: frame).replies { reply() }
        for reply in try Self.publish(&engine, "z", replies).replies { reply() }
        for reply in try Self.take(&engine, replies).replies { reply() }
        replies.published.withLock { published in
            #expect(published.count == 3)
            for outcome in published { #expect(throws: StalkError.self) { try outcome.get() } }
        }
        let taken = replies.taken.withLock { $0[0] }
        #expect(throws: StalkError.self) { try taken.get() }
    }
}
