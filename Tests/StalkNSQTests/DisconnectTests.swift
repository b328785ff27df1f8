// Many messages while connections drop at random: what was said to be published arrives.

internal import StalkCore
internal import StalkNSQ
internal import StalkTesting
internal import Synchronization
internal import Testing

#if canImport(Glibc)
    internal import Glibc
#endif

@Suite(.timeLimit(.minutes(10))) struct DisconnectTests {
    private struct Tally: Sendable {
        /// Told to be published.
        var published: Set<Int> = []
        /// Nobody knows.
        var unknown: Set<Int> = []
        var seen: [Int: Int] = [:]
    }

    private final class Ledger: Sendable {
        let tally = Locked(Tally())
    }

    /// The full run of 200,000 messages is for `STALK_NSQ_MESSAGES`; the smaller one is for each run of the tests.
    private static var count: Int {
        getenv("STALK_NSQ_MESSAGES").flatMap { Int(String(cString: $0)) } ?? 6000
    }

    /// Chooses, by a seed, which commands end in a hang-up: before, instead of, or after they are carried out.
    private final class Chance: Sendable {
        private let generator: Locked<SeededGenerator>
        private let isOn = Atomic(true)

        init(seed: UInt64) { self.generator = Locked(SeededGenerator(seed: seed)) }

        func stop() { self.isOn.store(false, ordering: .releasing) }

        func react(to command: NSQCommand) -> Reaction {
            guard self.isOn.load(ordering: .acquiring) else { return .obey }
            return self.generator.withLock { generator in
                switch command {
                case .publish, .multiPublish:
                    switch Int.random(in: 0..<100, using: &generator) {
                    case 0: .hangUp
                    case 1: .obeyAndHangUp
                    case 2: .refuse("E_PUB_FAILED for a moment")
                    default: .obey
                    }
                case .finish, .touch, .ready:
                    Int.random(in: 0..<2000, using: &generator) == 0 ? .hangUp : .obey
                default: .obey
                }
            }
        }
    }

    @Test(arguments: [11, 12, 13] as [UInt64])
    func nothingIsLost(seed: UInt64) async throws {
        let tally = try await Self.run(seed: seed)
        let lost = tally.published.subtracting(tally.seen.keys)
        #expect(lost.isEmpty, "\(lost.count) of \(tally.published.count) messages were lost")
        #expect(tally.published.union(tally.unknown).isSuperset(of: tally.seen.keys))
        #expect(!tally.unknown.isEmpty, "the run had no disconnect that mattered")
        let again = tally.seen.values.count { $0 > 1 }
        print("seed \(seed): \(tally.published.count) published, \(tally.unknown.count) unknown, \(again) came again")
    }

    /// The control: a server that says OK and forgets is noticed.
    @Test func lossIsNoticed() async throws {
        let tally = try await Self.run(seed: 14, forgets: true)
        #expect(!tally.published.subtracting(tally.seen.keys).isEmpty)
    }

    private static func run(seed: UInt64, forgets: Bool = false) async throws -> Tally {
        let count = Self.count
        let ledger = Ledger()
        var options = ScriptedNSQD.Options()
        // What a lost connection holds comes again after this.
        options.messageTimeout = .seconds(1)
        try await withNSQ(servers: 2, options: options) {
            $0.publishDeadline = .seconds(30)
            $0.maxBatch = 20
        } _: { servers, collector in
            let chance = Chance(seed: seed)
            for server in servers {
                await server.react { command, _ in
                    if forgets, case .publish = command { return .forget }
                    return chance.react(to: command)
                }
            }
            try await collector.wake()
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    try await Self.publish(count, to: collector, ledger)
                    chance.stop()
                }
                group.addTask { try await Self.consume(from: collector, ledger, count) }
                try await group.waitForAll()
            }
        }
        return ledger.tally.withLock { $0 }
    }

    /// Publishes each message until it is published or its outcome is unknown.
    private static func publish(_ count: Int, to collector: NSQCollector, _ ledger: Ledger) async throws {
        var waiting = Array(0..<count)[...]
        while !waiting.isEmpty {
            let batch = Array(waiting.prefix(100))
            waiting = waiting.dropFirst(batch.count)
            // Some alone, some together.
            let parts = batch.count > 3 ? [Array(batch[..<1]), Array(batch[1...])] : [batch]
            for part in parts {
                let results = try await collector.publish(part.map { Message("\($0)") })
                for (number, result) in zip(part, results) {
                    switch result {
                    case .success: ledger.tally.withLock { _ = $0.published.insert(number) }
                    case .failure(let error) where error.code == .interrupted:
                        ledger.tally.withLock { _ = $0.unknown.insert(number) }
                    case .failure: waiting.append(number)
                    }
                }
            }
        }
    }

    private static func consume(
        from collector: NSQCollector,
        _ ledger: Ledger,
        _ count: Int
    ) async throws {
        let start = ContinuousClock.now
        var quiet = 0
        // Until everything was answered and all of it came, or nothing came for longer than nsqd's time-out.
        while start.duration(to: .now) < .seconds(400) {
            let deliveries = (try? await collector.take(TakeRequest(max: 100, wait: .milliseconds(500)))) ?? []
            quiet = deliveries.isEmpty ? quiet + 1 : 0
            for delivery in deliveries {
                guard let number = Int(delivery.text) else { continue }
                ledger.tally.withLock { $0.seen[number, default: 0] += 1 }
            }
            _ = try? await collector.finish(deliveries.map { Completion($0.receipt, .acknowledge) })
            let isOver = ledger.tally.withLock { tally in
                tally.published.count + tally.unknown.count == count
                    && (quiet >= 6 || quiet >= 1 && tally.published.isSubset(of: tally.seen.keys))
            }
            if isOver { return }
        }
    }
}
