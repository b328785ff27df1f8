// A few messages that nobody gets rid of, beside very many that come and go: they must not hold the log back.

import Foundation
import StalkCore
import StalkFiles
import StalkIndex
import StalkLog
import StalkTesting
import Synchronization
import Testing

@testable import StalkLocal

/// How many messages come and go: STALK_POISON_MESSAGES asks for more.
private let messages = environmentNumber("STALK_POISON_MESSAGES") ?? 200_000

/// Messages that stay a year beside others; the log is simulated, LMDB is real, time is virtual.
@Suite struct PoisonTests {
    @Test("Messages that stay for a year hold back neither the log nor LMDB", .timeLimit(.minutes(60)))
    func poisonPinsNothing() throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "stalk-poison-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        var year = try PoisonedYear(indexPath: directory.path)
        try year.begin()
        let rounds = max(1, messages / PoisonedYear.batch)
        // A part of the traffic each day, so that checkpoints come from a log that fills and from quiet hours as well.
        for day in 1...PoisonedYear.days {
            for _ in (day - 1) * rounds / PoisonedYear.days..<day * rounds / PoisonedYear.days { try year.round() }
            try year.nextDay()
        }
        #expect(year.daysPassed == PoisonedYear.days)
        #expect(year.passed == rounds * PoisonedYear.batch)
        // Enough went through the log that it was used again and again.
        #expect(year.segmentsUsed > 2 * UInt64(PoisonedYear.segmentsMax), "\(year.segmentsUsed)")
        try year.checkPoison()
        try year.reopen()
        try year.checkPoison()
        print(
            "\(year.passed) messages, \(year.segmentsUsed) segments used, at most \(year.segmentsMost) at a time, "
                + "LMDB at most \(year.indexBytesMost) bytes, \(year.checkpoints) commits"
        )
    }
}

/// A store that lives through a year with messages that stay.
private struct PoisonedYear {
    static let batch = 100
    static let days = 365
    private static let dayMillis: Int64 = 86_400_000
    private static let segmentBytes = 64 << 10
    private static let checkpointBytes = 4 * segmentBytes
    /// Twice what the log needs: four that a checkpoint waits for, two that are written meanwhile, and ten spares.
    ///
    /// The spares are twice four and two: see `KeeperWorker.worthKeeping`.
    static let segmentsMax = 2 * (4 + 2 + 10)
    /// LMDB holds a handful of messages and its own pages; a checkpoint brings what it finds unfinished.
    private static let indexBytesMax = 1 << 20

    private static let delayed = Array("delayed for a year".utf8)
    private static let retried = Array("retried every hundred days".utf8)
    private static let dead = Array("dead".utf8)

    private let queue: QueueName
    private let indexPath: String
    private let clock: ManualClock
    private let mailbox = Mailbox()
    private var disk = SimulatedDisk()
    private var store: SimulatedStore
    private var index: any Index
    private var collector: UInt64 = 0
    private let begun: Int64
    private var day = 0
    private var attempts = 0
    private var ids: [[UInt8]: MessageID] = [:]
    private(set) var passed = 0
    private(set) var segmentsUsed: UInt64 = 0
    private(set) var segmentsMost = 0
    private(set) var indexBytesMost = 0
    var checkpoints: UInt64 { self.index.commitCount }

    /// The time that has passed, in whole days.
    var daysPassed: Int64 { (self.store.now - self.begun) / Self.dayMillis }

    init(indexPath: String) throws {
        self.queue = try QueueName("work")
        self.indexPath = indexPath
        self.clock = ManualClock(bootID: "boot")
        (self.store, self.index) = try Self.open(self.disk, self.clock, indexPath)
        self.begun = self.store.now
    }

    private static func open(
        _ disk: SimulatedDisk,
        _ clock: ManualClock,
        _ indexPath: String
    ) throws(StalkError) -> (SimulatedStore, any Index) {
        let options = LocalStoreOptions(
            maxBodyBytes: 4 << 10,
            segmentBytes: Self.segmentBytes,
            checkpointBytes: Self.checkpointBytes,
            clock: clock
        )
        let store = try SimulatedStore(on: disk, clock: clock, options: options) { create throws(StalkError) in
            try Environment(
                path: indexPath,
                mapBytes: 16 << 20,
                tables: SettledTables.names,
                createIfMissing: create
            )
        }
        return (store, store.core.tables.index)
    }

    /// Publishes the messages that stay, and lets two of them fail.
    mutating func begin() throws {
        self.enter()
        try self.publish([
            Message(Self.delayed, delay: .seconds(366 * 86_400)), Message(Self.retried), Message(Self.dead),
        ])
        let deliveries = try self.take()
        guard deliveries.count == 2 else { throw Violation("\(deliveries.count) came instead of two") }
        for delivery in deliveries where delivery.body == Self.dead {
            try self.finish([Completion(delivery.receipt, .deadLetter(reason: "poison"))])
        }
        try self.finish(self.poison(in: deliveries))
        for message in try self.store.contents() { self.ids[message.body] = message.id }
        guard self.ids.count == 3 else { throw Violation("\(self.ids.count) of three messages are there") }
    }

    private mutating func enter() {
        self.collector = self.store.core.look { [queue] engine in
            let id = engine.addCollector(of: queue)
            engine.collectors[id]?.isAsleep = false
            return id
        }
    }

    /// Publishes a batch, takes it and acknowledges it.
    mutating func round() throws {
        let first = self.passed
        try self.publish((first..<first + Self.batch).map { Message("message \($0)") })
        var left = Self.batch
        while left > 0 {
            let deliveries = try self.take()
            let others = deliveries.filter { $0.body != Self.retried }
            guard !deliveries.isEmpty else { throw Violation("\(left) messages are there and do not come") }
            left -= others.count
            try self.finish(others.map { Completion($0.receipt, .acknowledge) } + self.poison(in: deliveries))
        }
        guard left == 0 else { throw Violation("\(-left) messages came twice") }
        self.passed += Self.batch
        try self.checkDisk()
    }

    /// Lets time go to the next day; whoever sleeps until a moment on the way wakes then.
    mutating func nextDay() throws {
        self.day += 1
        let end = self.begun + Int64(self.day) * Self.dayMillis
        while self.store.now < end {
            let next = min(end, max(self.store.nextDeadline ?? end, self.store.now + 1))
            self.clock.advance(by: .milliseconds(next - self.store.now))
            try self.settle()
        }
        // What became ready again is taken even when nothing else comes.
        let deliveries = try self.take()
        try self.finish(self.poison(in: deliveries))
        guard deliveries.allSatisfy({ $0.body == Self.retried }) else {
            throw Violation("something else came on day \(self.day)")
        }
        try self.checkDisk()
    }

    /// Closes with a kill and opens again.
    mutating func reopen() throws {
        self.index.close()
        self.disk = self.disk.kill()
        (self.store, self.index) = try Self.open(self.disk, self.clock, self.indexPath)
        self.enter()
        try self.settle()
    }

    /// The messages that stay must be there, unchanged, and nothing else.
    func checkPoison() throws {
        let contents = try self.store.contents()
        let byBody = Dictionary(grouping: contents, by: \.body)
        #expect(contents.count == 3)
        // At the start, and on days 100, 200 and 300.
        #expect(self.attempts == 4)
        for (body, state, attempts) in [
            (Self.delayed, MessageState.delayed, 0), (Self.retried, .delayed, 4), (Self.dead, .dead, 1),
        ] {
            let found = byBody[body]?.first
            #expect(found?.id == self.ids[body])
            #expect(found?.state == state)
            #expect(found?.attempts == attempts)
        }
        #expect(byBody[Self.retried]?.first?.failures.count == 4)
        #expect(byBody[Self.dead]?.first?.failures.last?.reason == "poison")
    }

    // MARK: Parts

    private mutating func poison(in deliveries: [Delivery]) -> [Completion] {
        deliveries.filter { $0.body == Self.retried }.map { delivery in
            self.attempts += 1
            return Completion(delivery.receipt, .retry(after: .seconds(100 * 86_400), reason: "poison"))
        }
    }

    private mutating func checkDisk() throws {
        let segments = try self.disk.list(Segment.directory).compactMap { Segment.number(inName: $0) }
        self.segmentsUsed = max(self.segmentsUsed, segments.max() ?? 0)
        self.segmentsMost = max(self.segmentsMost, segments.count)
        self.indexBytesMost = max(self.indexBytesMost, self.index.fileBytes)
        guard segments.count <= Self.segmentsMax else {
            throw Violation("the log has \(segments.count) segments after \(self.passed) messages")
        }
        guard self.index.fileBytes <= Self.indexBytesMax else {
            throw Violation("LMDB takes \(self.index.fileBytes) bytes after \(self.passed) messages")
        }
    }

    private mutating func settle() throws {
        guard self.store.settle() else { throw Violation("the workers never come to rest") }
    }

    private mutating func answer() throws -> Answer {
        try self.settle()
        let answers = self.mailbox.take()
        guard let answer = answers.first?.answer, answers.count == 1 else {
            throw Violation("\(answers.count) answers to one call")
        }
        return answer
    }

    private mutating func publish(_ messages: [Message]) throws {
        let core = self.store.core
        let call = PendingPublish(
            queue: self.queue,
            messages: messages,
            publishedAt: core.wall,
            results: messages.map { _ in nil },
            durability: .written
        ) { [mailbox] outcome in mailbox.put(0, .published(outcome)) }
        core.step { engine, now in engine.publish(call, now: now) }
        guard case .published(let outcome) = try self.answer() else { throw Violation("not an answer to a publish") }
        for result in try outcome.get() { _ = try result.get() }
    }

    private mutating func take() throws -> [Delivery] {
        let core = self.store.core
        let taker = Taker(
            id: core.look { $0.makeID() },
            collector: self.collector,
            max: Self.batch,
            lease: .seconds(60),
            durability: .written,
            isImmediate: true
        ) { [mailbox] outcome in
            switch outcome {
            case .success(let deliveries): mailbox.put(0, .taken(deliveries, nil))
            case .failure(let error): mailbox.put(0, .taken([], error as? StalkError ?? .storeClosed))
            }
        }
        core.step { [queue] engine, now in engine.take(taker, from: queue, wait: .zero, now: now) }
        guard case .taken(let deliveries, let error) = try self.answer() else {
            throw Violation("not an answer to a take")
        }
        if let error { throw error }
        return deliveries
    }

    private mutating func finish(_ completions: [Completion]) throws {
        guard !completions.isEmpty else { return }
        let core = self.store.core
        core.step { [queue, mailbox] engine, now in
            engine.finish(
                completions,
                of: queue,
                as: LocalQueueOptions(),
                .written,
                now: now,
                wall: core.wall
            ) { outcome in mailbox.put(0, .finished(outcome)) }
        }
        guard case .finished(let outcome) = try self.answer() else { throw Violation("not an answer to a finish") }
        for outcome in try outcome.get() {
            guard case .done = outcome else { throw Violation("finishing was refused: \(outcome)") }
        }
    }
}
