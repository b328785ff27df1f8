// What the callers of a simulated store do, and what they make of the answers.

import StalkCore
import StalkTesting

@testable import StalkLocal

extension Simulation {
    /// What a caller does, by a number below 100.
    mutating func act(_ choice: Int) throws {
        switch choice {
        case ..<56: self.publish()
        case ..<60: try self.changeSome()
        case ..<72:
            let wait = self.random.below(4) == 0 ? Int64(self.random.below(4000)) : 0
            let queue = self.random.below(Self.queues.count)
            self.take(queue, max: 1 + self.random.below(6), lease: Int64(1 + self.random.below(8000)), wait: wait)
        case ..<86: try self.finishSome()
        case ..<90: self.clock.advance(by: .milliseconds(self.random.below(3000)))
        case ..<92: self.extendOne()
        case ..<94: self.sync([])
        case ..<95:
            self.ask(.checkpoint) { core, reply in
                core.step { engine, _ in engine.requestCheckpoint { outcome in reply(.done(outcome)) } }
            }
        case ..<97:
            self.note("redrive")
            try self.redrive()
        case ..<98: self.clock.jumpWall(by: .seconds(self.random.below(7200) - 3600))
        default: if self.random.below(4) == 0, !self.isFull { try self.settle() }
        }
    }

    private mutating func randomCertainty() -> Certainty { self.random.below(3) == 0 ? .written : .synced }

    // MARK: Publishing

    private mutating func message(to queue: Int) -> (number: Int, message: Message) {
        let now = self.store?.now ?? 0
        let delay = self.random.below(3) == 0 ? Int64(1 + self.random.below(6000)) : 0
        let bytes = self.random.below(8) == 0 ? self.random.below(4000) : self.random.below(60)
        let name = Self.queues[queue].rawValue
        let (number, body) = self.model.ask(to: name, dueAt: delay == 0 ? .min : now + delay, bytes: bytes)
        return (number, Message(body, delay: .milliseconds(delay)))
    }

    private mutating func publish() {
        let queue = self.random.below(2)
        let parts = (0...self.random.below(5)).map { _ in self.message(to: queue) }
        let certainty = self.randomCertainty()
        self.ask(.publish(parts.map(\.number), certainty)) { core, reply in
            let call = PendingPublish(
                queue: Self.queues[queue],
                messages: parts.map(\.message),
                publishedAt: core.wall,
                results: parts.map { _ in nil },
                durability: certainty == .synced ? .synced : .written
            ) { outcome in reply(.published(outcome)) }
            core.step { engine, now in engine.publish(call, now: now) }
        }
    }

    // MARK: Taking

    mutating func take(_ queue: Int, max: Int, lease: Int64, wait: Int64) {
        guard let now = self.store?.now else { return }
        let collector = self.collectors[queue]
        self.note("take \(max) of \(queue) for \(lease), wait \(wait)")
        self.ask(.take(queue: queue, max: max, askedAt: now, lease: lease)) { core, reply in
            let id = core.look { $0.makeID() }
            let taker = Taker(
                id: id,
                collector: collector,
                max: max,
                lease: .milliseconds(lease),
                durability: .synced,
                isImmediate: wait == 0
            ) { outcome in
                switch outcome {
                case .success(let deliveries): reply(.taken(deliveries, nil))
                case .failure(let error): reply(.taken([], error as? StalkError ?? .storeClosed))
                }
            }
            core.step { engine, now in engine.take(taker, from: Self.queues[queue], wait: .milliseconds(wait), now: now)
            }
        }
    }

    private mutating func extendOne() {
        guard let store = self.store, let item = self.model.items.first(where: { $0.receipt != nil }),
            let receipt = item.receipt, let queue = try? QueueName(item.current.queue)
        else { return }
        let outcome = store.core.step { engine, now in
            engine.extend([receipt], of: queue, lease: .milliseconds(5000), now: now)
        }
        if case .success(let outcomes) = outcome, case .done? = outcomes.first {
            self.model.extendLease(item.number, until: store.now + 5000)
        } else {
            self.model.forgetReceipt(item.number)
        }
    }

    // MARK: Finishing

    private mutating func finishSome() throws {
        let held = self.model.items.filter { $0.receipt != nil }
        guard let now = self.store?.now, !held.isEmpty else { return }
        let item = held[self.random.below(held.count)]
        let certainty = self.randomCertainty()
        switch self.random.below(12) {
        case 0..<4: try self.finish(item.number, .acknowledge, certainty)
        case 4..<6:
            let sure = held.filter { $0.leasedUntil > now && $0.current.queue == item.current.queue }
            self.acknowledge(sure, certainty)
        case 6: try self.finish(item.number, .release, certainty)
        case 7: try self.finish(item.number, .deadLetter(reason: "bad"), certainty)
        case 8: try self.finish(item.number, .acknowledgeAndPublish(self.outgoing()), certainty)
        case 9: try self.finish(item.number, .retry(after: .zero, reason: "again"), certainty)
        default:
            let delay = Int64(1 + self.random.below(4000))
            try self.finish(item.number, .retry(after: .milliseconds(delay), reason: "later"), certainty)
        }
    }

    private mutating func outgoing() -> [OutgoingMessage] {
        (0...self.random.below(2)).map { _ in
            let queue = self.random.below(2)
            return OutgoingMessage(self.message(to: queue).message, to: Self.queues[queue])
        }
    }

    /// Ends one delivery.
    mutating func finish(_ number: Int, _ disposition: Disposition, _ certainty: Certainty) throws {
        let item = self.model.items[number]
        guard let receipt = item.receipt, let now = self.store?.now else { return }
        var after = item.current
        var published: [Int] = []
        var options = LocalQueueOptions()
        switch disposition {
        case .acknowledge: after.place = .nowhere
        case .acknowledgeAndPublish(let messages):
            after.place = .nowhere
            for outgoing in messages { published.append(try self.model.number(of: outgoing.message.body)) }
        case .release: after.attempts -= 1
        case .retry(let delay, _): after.place = .alive(dueAt: now + delay.wholeMillisecondsRoundedUp)
        case .deadLetter:
            after.place = .dead
            // Those of the first queue move into a queue of their own.
            if after.queue == Self.queues[0].rawValue {
                options.errorQueue = Self.queues[2]
                after = ItemState(queue: Self.queues[2].rawValue, place: .alive(dueAt: .min), attempts: 0)
            }
        }
        if case .retry(.zero, _) = disposition { after.place = .alive(dueAt: .min) }
        let queue = try QueueName(item.current.queue)
        let fact = self.model.askEnd(number, after, publishing: published)
        let end = End(
            number: number,
            fact: fact,
            receipt: receipt,
            leasedUntil: item.leasedUntil,
            published: published,
            isBatched: false
        )
        self.send([end], [Completion(receipt, disposition)], of: queue, options, certainty)
    }

    /// Ends several deliveries of one queue whose leases are not over.
    private mutating func acknowledge(_ items: [Item], _ certainty: Certainty) {
        guard let first = items.first, let queue = try? QueueName(first.current.queue) else { return }
        var ends: [End] = []
        var completions: [Completion] = []
        for item in items {
            guard let receipt = item.receipt else { continue }
            var after = item.current
            after.place = .nowhere
            let fact = self.model.askEnd(item.number, after)
            ends.append(
                End(
                    number: item.number,
                    fact: fact,
                    receipt: receipt,
                    leasedUntil: item.leasedUntil,
                    published: [],
                    isBatched: true
                )
            )
            completions.append(Completion(receipt, .acknowledge))
        }
        self.send(ends, completions, of: queue, LocalQueueOptions(), certainty)
    }

    private mutating func send(
        _ ends: [End],
        _ completions: [Completion],
        of queue: QueueName,
        _ options: LocalQueueOptions,
        _ certainty: Certainty
    ) {
        self.ask(.finish(ends, certainty)) { core, reply in
            core.step { engine, now in
                engine.finish(
                    completions,
                    of: queue,
                    as: options,
                    certainty == .synced ? .synced : .written,
                    now: now,
                    wall: core.wall
                ) { outcome in reply(.finished(outcome)) }
            }
        }
    }

    // MARK: Everything else

    mutating func sync(_ facts: [(number: Int, fact: Int)]) {
        self.ask(.sync(facts)) { core, reply in
            core.step { engine, _ in engine.waitForSync { outcome in reply(.done(outcome)) } }
        }
    }

    /// Sends dead messages back, and what was moved into the error queue.
    private mutating func redrive() throws {
        guard let store = self.store else { return }
        let queue = self.random.below(Self.queues.count)
        guard let number = store.core.look({ $0.queueNumbers[Self.queues[queue]] }) else { return }
        let redrive = Redrive(core: store.core, queue: number, max: 100)
        var facts: [(number: Int, fact: Int)] = []
        for pass in Redrive.Pass.allCases {
            let before = Dictionary(uniqueKeysWithValues: try store.contents().map { ($0.id, $0) })
            guard let done = try? redrive.attempt(.first(pass), limit: 1 + self.random.below(4)), done.count > 0 else {
                continue
            }
            var moved = 0
            for message in try store.contents() {
                // One that was ready and stays in its queue was served: who waited behind those that went back is first.
                guard let old = before[message.id], old.queue != message.queue || old.state == .dead,
                    message.state == .ready || message.state == .leased
                else { continue }
                // Those that a waiting taker got at once are in its hands by now.
                let number = try self.model.number(of: message.body)
                let target = old.diedIn ?? old.queue
                guard message.queue == target else { throw Violation("\(number) went back to \(message.queue)") }
                let state = ItemState(queue: message.queue.rawValue, place: .alive(dueAt: .min), attempts: 0)
                facts.append((number, self.model.askEnd(number, state)))
                moved += 1
            }
            guard moved == done.count else { throw Violation("redrive says \(done.count), \(moved) moved") }
        }
        if !facts.isEmpty { self.sync(facts) }
    }

    // MARK: Hearing

    mutating func hear(_ answer: Answer, to call: Call) throws {
        switch (call, answer) {
        case (.publish(let numbers, let certainty), .published(let outcome)):
            try self.hear(outcome, numbers, certainty)
        case (.take(let queue, let max, let askedAt, let lease), .taken(let deliveries, let error)):
            if let error {
                self.doubtfulTakes[Self.queues[queue].rawValue, default: 0] += max
                return try self.judge(error)
            }
            try self.hear(deliveries, max: max, askedAt: askedAt, lease: lease)
        case (.finish(let ends, let certainty), .finished(let outcome)):
            try self.hear(outcome, ends, certainty)
        case (.sync(let facts), .done(let outcome)):
            guard try self.isSuccess(outcome) else { return }
            for (number, fact) in facts { self.model.raise(number, fact: fact, .synced) }
            self.model.syncWhatIsWritten()
        case (.checkpoint, .done(let outcome)):
            _ = try self.isSuccess(outcome)
        default: throw Violation("\(answer) answers \(call)")
        }
    }

    /// Whether a call succeeded; one that failed without a cause is a violation.
    private func isSuccess<Value>(_ outcome: Result<Value, StalkError>) throws -> Bool {
        switch outcome {
        case .success: return true
        case .failure(let error):
            try self.judge(error)
            return false
        }
    }

    func judge(_ error: StalkError) throws {
        let hasFailed = self.store?.core.look { $0.failure } != nil
        switch error.code {
        case .storageFailed where hasFailed, .closed: return
        // The store may take a moment to notice that there is space again.
        case .storageFull where self.wasFull: return
        default: throw Violation("a call failed without a cause: \(error)")
        }
    }

    private mutating func hear(
        _ outcome: Result<[Result<MessageID, StalkError>], StalkError>,
        _ numbers: [Int],
        _ certainty: Certainty
    ) throws {
        guard try self.isSuccess(outcome), case .success(let results) = outcome else { return }
        // A call of which nothing was stored tells nothing about the disk.
        var isStored = false
        for (number, result) in zip(numbers, results) {
            switch result {
            case .success(let id):
                try self.model.notePublished(number, id, certainty)
                isStored = true
            case .failure(let error):
                try self.judge(error)
                self.model.noteRefused(number)
            }
        }
        self.note("published \(numbers.count)")
        if isStored, certainty == .synced { self.model.syncWhatIsWritten() }
    }

    private mutating func hear(
        _ deliveries: [Delivery],
        max: Int,
        askedAt: Int64,
        lease: Int64
    ) throws {
        guard let now = self.store?.now else { return }
        guard deliveries.count <= max else { throw Violation("\(deliveries.count) deliveries for \(max)") }
        self.note("taken \(deliveries.map(\.id.rawValue))")
        for delivery in deliveries {
            let number = try self.model.number(of: delivery.body)
            try self.revertEnd(of: number)
            if try self.model.noteTaken(delivery, askedAt: askedAt, lease: lease, now: now, .synced) { continue }
            self.doubtfulTakes[delivery.queue.rawValue, default: 0] += 1
        }
        if !deliveries.isEmpty { self.model.syncWhatIsWritten() }
    }

    /// A delivery whose end was asked for came again before the answer: then it must have been refused.
    mutating func revertEnd(of number: Int) throws {
        for case .finish(let ends, _) in self.calls.values {
            guard let end = ends.first(where: { $0.number == number && $0.isBatched }) else { continue }
            guard !self.mustBeRefused.contains(number) else { continue }
            self.mustBeRefused.insert(number)
            try self.model.noteEndRefused(number, fact: end.fact, end.receipt, leasedUntil: end.leasedUntil)
            self.model.forgetReceipt(number)
        }
    }

    private mutating func hear(
        _ outcome: Result<[FinishOutcome], StalkError>,
        _ ends: [End],
        _ certainty: Certainty
    ) throws {
        guard try self.isSuccess(outcome), case .success(let outcomes) = outcome else { return }
        var isStored = false
        for (end, outcome) in zip(ends, outcomes) {
            let wasTakenAgain = self.mustBeRefused.remove(end.number) != nil
            if case .done = outcome {
                if wasTakenAgain { throw Violation("\(end.number) was finished and delivered") }
                self.model.raise(end.number, fact: end.fact, certainty)
                isStored = true
                for number in end.published { self.model.raise(number, fact: 0, certainty) }
                continue
            }
            if case .refused(let error) = outcome, error.code != .staleReceipt, error.code != .unavailable {
                try self.judge(error)
            }
            for number in end.published { self.model.noteRefused(number) }
            guard !wasTakenAgain else { continue }
            try self.model.noteEndRefused(end.number, fact: end.fact, end.receipt, leasedUntil: end.leasedUntil)
            if case .refused(let error) = outcome, error.code == .staleReceipt { self.model.forgetReceipt(end.number) }
            if case .notInMemory = outcome { self.model.forgetReceipt(end.number) }
        }
        self.note("finished \(ends.count)")
        if isStored, certainty == .synced { self.model.syncWhatIsWritten() }
    }
}
