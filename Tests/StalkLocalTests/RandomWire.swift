// Requests and answers of every kind with random contents.

import StalkCore
import StalkPlatform
import StalkTesting

@testable import StalkLocal

/// Makes up values that the protocol carries.
struct RandomWire {
    private var generator: SeededGenerator

    init(seed: UInt64) {
        self.generator = SeededGenerator(seed: seed)
    }

    // MARK: Requests

    /// Requests of every kind, and of every kind of order, command and disposition.
    mutating func requests() -> [WireRequest] {
        var requests: [WireRequest] = [
            .greeting(self.greeting()),
            .publish(self.queue(), self.several { $0.message() }, self.durability(), answeredBelow: self.number()),
            .take(self.takeRequest(), collector: self.number(), self.durability()),
            .cancel(self.number()),
            .finish(self.completions(), self.queue(), errorQueue: nil, self.durability()),
            .finish(self.completions(), self.queue(), errorQueue: self.queue(), self.durability()),
            .extend(self.several { $0.receipt() }, self.queue(), lease: self.duration()),
            .addCollector(self.number(), self.collector()),
            .removeCollector(self.number()),
            .drained(self.queue()),
            .ping,
            .goodbye,
        ]
        let commands: [CollectorCommand] = [.report, .sleep, .wake, .scale(self.generator.below(1000))]
        requests += commands.map { .control($0, collector: self.number()) }
        requests += self.orders().map { .order($0) }
        return requests
    }

    private mutating func greeting() -> WireGreeting {
        WireGreeting(
            versions: 1...UInt16(1 + self.generator.below(9)),
            client: self.number(),
            collectors: self.several { WireGreeting.Collector(number: $0.number(), state: $0.collector()) },
            leases: self.several { random in
                HeldLease(
                    sequence: random.number(),
                    lease: random.number(),
                    deadline: BootTime(nanoseconds: Int64(truncatingIfNeeded: random.number())),
                    collector: random.number()
                )
            }
        )
    }

    mutating func orders() -> [StoreOrder] {
        var orders: [StoreOrder] = [
            .hasQueue(self.queue()), .stats, .message(self.id()), .countRedrivable(self.queue()), .kick(self.id()),
            .move(self.id(), to: self.queue()), .delete(self.id()), .setPaused(true, self.queue()),
            .setPaused(false, self.queue()), .sync, .checkpoint, .compact, .backup(path: self.text()),
        ]
        for max in [nil, 0, self.generator.below(.max)] {
            orders += [.redrive(self.queue(), max: max), .kickQueue(self.queue(), max: max)]
            let states = Set(MessageState.allCases.filter { _ in self.generator.below(2) == 0 })
            orders.append(.purge(self.queue(), states, max: max))
        }
        orders += MessageState.allCases.map { .peek(self.queue(), $0, max: self.generator.below(1000)) }
        return orders
    }

    private mutating func completions() -> [Completion] {
        let dispositions: [Disposition] = [
            .acknowledge, .release, .retry(after: self.duration(), reason: self.text()),
            .deadLetter(reason: self.text()),
            .acknowledgeAndPublish(self.several { OutgoingMessage($0.message(), to: $0.queue()) }),
        ]
        return dispositions.map { Completion(self.receipt(), $0) }
    }

    // MARK: Answers

    /// Answers of every kind, and of every kind of reply.
    mutating func answers() -> [WireAnswer] {
        let welcome = WireWelcome(
            version: UInt16(truncatingIfNeeded: self.number()),
            store: self.number(),
            epoch: UInt32(truncatingIfNeeded: self.number()),
            maxBodyBytes: self.generator.below(.max),
            verdicts: [.adopted, .ended, .lost].shuffled(using: &self.generator)
        )
        let status = CollectorStatus(
            isAsleep: self.generator.below(2) == 0,
            maxInFlight: self.generator.below(2) == 0 ? nil : self.generator.below(100),
            inFlight: self.generator.below(100)
        )
        let outcomes: [Result<Void, StalkError>] = [.success(()), .failure(self.error()), .success(())]
        let replies = self.replies()
        return [
            .welcome(welcome),
            .failure(self.error()),
            .cancelled,
            .published([.success(MessageID(sequence: self.number())), .failure(self.error())]),
            .deliveries(self.several { $0.delivery() }),
            .outcomes(outcomes),
            .extended(outcomes, deadline: BootTime(nanoseconds: Int64(truncatingIfNeeded: self.number()))),
            .status(status),
            .progress(self.generator.below(.max)),
        ] + replies.map { .reply($0) } + replies.map { .part($0) }
    }

    private mutating func replies() -> [StoreReply] {
        [
            .done,
            .count(self.generator.below(.max)),
            .stats(self.stats()),
            .messages(self.several { $0.storedMessage() }),
            .compaction(CompactionReport(bytesBefore: self.size(), bytesAfter: self.size())),
            .backup(BackupReport(path: self.text(), messages: self.size(), bytes: self.size())),
        ]
    }

    private mutating func delivery() -> LeasedDelivery {
        let sequence = self.number()
        let delivery = Delivery(
            id: MessageID(sequence: sequence),
            queue: self.queue(),
            body: self.body(),
            headers: self.headers(),
            attempt: self.generator.below(1 << 32),
            publishedAt: self.timestamp(),
            receipt: Receipt(token: .local(store: self.number(), sequence: sequence, lease: self.number()))
        )
        return LeasedDelivery(delivery: delivery, deadline: BootTime(nanoseconds: Int64(self.size())))
    }

    private mutating func stats() -> StoreStats {
        StoreStats(
            queues: self.several { random in
                QueueStats(
                    name: random.queue(),
                    ready: random.size(),
                    delayed: random.size(),
                    leased: random.size(),
                    dead: random.size(),
                    bytes: random.size(),
                    oldestAge: random.generator.below(2) == 0 ? nil : random.duration(),
                    isPaused: random.generator.below(2) == 0
                )
            },
            logBytes: self.size(),
            lmdbBytes: self.size(),
            checkpointLag: self.size(),
            owner: Int32(truncatingIfNeeded: self.number()),
            setAside: self.size(),
            activity: StoreActivity(
                frames: self.size(),
                lmdbCommits: self.size(),
                syncs: self.size(),
                logBytesWritten: self.size(),
                commitCalls: self.histogram(),
                logSyncs: self.histogram()
            ),
            scheduleLag: self.duration()
        )
    }

    private mutating func histogram() -> StoreHistogram {
        let bounds = self.several { $0.size() }.sorted()
        let counts = (0...bounds.count).map { _ in self.size() }
        return StoreHistogram(bounds: bounds, counts: counts, sum: self.size())
    }

    private mutating func storedMessage() -> StoredMessage {
        StoredMessage(
            id: self.id(),
            queue: self.queue(),
            state: MessageState.allCases[self.generator.below(4)],
            body: self.body(),
            headers: self.headers(),
            attempts: self.size(),
            publishedAt: self.timestamp(),
            dueAt: self.timestamp(),
            failures: self.several { Failure(attempt: $0.size(), at: $0.timestamp(), reason: $0.text()) },
            diedIn: self.generator.below(2) == 0 ? nil : self.queue()
        )
    }

    // MARK: Parts

    private mutating func several<Value>(_ make: (inout RandomWire) -> Value) -> [Value] {
        (0..<self.generator.below(4)).map { _ in make(&self) }
    }

    private mutating func number() -> UInt64 { self.generator.next() }

    private mutating func size() -> Int { self.generator.below(1 << 50) }

    private mutating func durability() -> Durability { self.generator.below(2) == 0 ? .synced : .written }

    private mutating func duration() -> Duration { .nanoseconds(Int64(truncatingIfNeeded: self.number())) }

    private mutating func timestamp() -> Timestamp {
        Timestamp(millisecondsSince1970: Int64(truncatingIfNeeded: self.number()))
    }

    private mutating func takeRequest() -> TakeRequest {
        TakeRequest(max: self.generator.below(1 << 32), wait: self.duration(), lease: self.duration())
    }

    private mutating func text() -> String {
        String((0..<self.generator.below(20)).map { _ in ["a", "ä", "\n", "🙂", " "][self.generator.below(5)] })
    }

    private mutating func body() -> [UInt8] {
        (0..<self.generator.below(50)).map { _ in UInt8(truncatingIfNeeded: self.number()) }
    }

    private mutating func queue() -> QueueName {
        do throws(StalkError) {
            return try QueueName("q-\(self.generator.below(1000))")
        } catch {
            preconditionFailure("a name of letters and digits")
        }
    }

    private mutating func id() -> MessageID {
        self.generator.below(2) == 0 ? MessageID(sequence: self.number()) : MessageID(self.text())
    }

    private mutating func headers() -> Headers {
        var headers = Headers()
        for number in 0..<self.generator.below(3) { headers["name-\(number)"] = self.text() }
        return headers
    }

    private mutating func message() -> Message {
        Message(self.body(), headers: self.headers(), delay: self.duration())
    }

    private mutating func receipt() -> Receipt {
        self.generator.below(2) == 0
            ? Receipt(token: .opaque(self.text()))
            : Receipt(token: .local(store: self.number(), sequence: self.number(), lease: self.number()))
    }

    private mutating func collector() -> CollectorRecord {
        CollectorRecord(
            queue: self.queue(),
            isAsleep: self.generator.below(2) == 0,
            maxInFlight: self.generator.below(2) == 0 ? nil : self.generator.below(100)
        )
    }

    private mutating func error() -> StalkError {
        let codes: [StalkError.Code] = [.staleReceipt, .storageFull, .bodyTooLarge, .noSuchQueue, .unsupported]
        return StalkError(codes[self.generator.below(codes.count)], self.text())
    }
}
