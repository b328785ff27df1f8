// Ten minutes of an outage by a clock that stands still, with a store on a real disk, and the drain after it.

import Foundation
import StalkCore
import StalkPlatform
import StalkTesting
import Testing

@testable import StalkFailover
@testable import StalkLocal

#if canImport(Glibc)
    import Glibc
#endif

@Suite(.serialized, .timeLimit(.minutes(30))) struct LongOutageTests {
    /// How much anonymous memory a drain may add, whatever waits.
    static let bound = 48 << 20
    /// Messages of 1 KiB that keep all of themselves in memory go well beyond it.
    static let count = 50_000

    /// In a process of its own, since the memory of the whole process is measured.
    ///
    /// `STALK_FAILOVER_MESSAGES` says how many messages there are.
    @Test func tenMinutesOfAnOutageDrainWithFlatMemory() async throws {
        let result = try await #require(processExitsWith: .success, observing: [\.standardOutputContent]) {
            let variable = ProcessInfo.processInfo.environment["STALK_FAILOVER_MESSAGES"]
            let outage = try LongOutage(count: variable.flatMap { Int($0) } ?? Self.count)
            let figures = try await outage.run()
            print(figures)
            #expect(figures.growth < Self.bound)
        }
        if ProcessInfo.processInfo.environment["STALK_FAILOVER_REPORT"] != nil {
            print(String(decoding: result.standardOutputContent, as: UTF8.self))
        }
    }

    /// The negative control: what keeps all that is drained is found out.
    @Test func aDrainThatKeepsEverythingIsSeen() async throws {
        await #expect(processExitsWith: .success) {
            let outage = try LongOutage(count: Self.count, keepsAll: true)
            let growth = try await outage.run().growth
            #expect(growth > Self.bound)
        }
    }
}

/// A remote that remembers which message of each group must come next, and no more, unless it is told to keep all.
private final class ThriftyRemote: Collector {
    struct State {
        var isAway = true
        /// When it was asked while it was away, and for how many messages.
        var calls: [(at: Duration, size: Int)] = []
        var next: [String: Int] = [:]
        var arrived = 0
        /// Messages that came twice, before their turn, or changed.
        var wrong = 0
        var kept: [Message] = []
    }

    static let groups = 4

    let queue: QueueName
    let state = Locked(State())
    private let clock: ElapsedClock
    private let keepsAll: Bool

    init(_ queue: QueueName, clock: ElapsedClock, keepsAll: Bool) {
        self.queue = queue
        self.clock = clock
        self.keepsAll = keepsAll
    }

    var capabilities: CollectorCapabilities {
        var capabilities = CollectorCapabilities.likeSQS
        capabilities.maxBatch = 1000
        return capabilities
    }

    /// 1 KiB that differ from message to message.
    static func body(_ number: Int) -> [UInt8] {
        var generator = SeededGenerator(seed: UInt64(number))
        let word = generator.next()
        return (0..<128).flatMap { index in
            withUnsafeBytes(of: word &* (UInt64(index) | 1) &+ UInt64(number)) { Array($0) }
        }
    }

    func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>] {
        let now = self.clock.elapsed()
        try self.state.withLock { state in
            guard !state.isAway else {
                state.calls.append((now, messages.count))
                throw StalkError(.unavailable, "away")
            }
            for message in messages {
                let group = message.headers["Stalk-Group"] ?? ""
                let number = state.next[group] ?? Int(group) ?? -1
                if message.headers["Number"] != "\(number)" || message.body != Self.body(number) { state.wrong += 1 }
                state.next[group] = number + Self.groups
                state.arrived += 1
                if self.keepsAll { state.kept.append(message) }
            }
        }
        return messages.map { .success(MessageID($0.id)) }
    }

    func take(_ request: TakeRequest) async throws -> [Delivery] { [] }

    func finish(_ completions: [Completion], durability: Durability) async throws -> [Result<Void, StalkError>] { [] }

    func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] { [] }

    func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        CollectorStatus(isAsleep: false, maxInFlight: nil, inFlight: 0)
    }
}

/// One outage of ten minutes, in which messages are published all along, and its end.
private struct LongOutage {
    struct Figures: CustomStringConvertible {
        var count: Int
        var trials: Int
        var logBytes: Int
        var lmdbBytes: Int
        var published: Duration
        var drained: Duration
        /// Anonymous memory: at the most while publishing, before the drain, and at the most in it.
        var publishingPeak: Int
        var before: Int
        var peak: Int

        var growth: Int { self.peak - self.before }

        var description: String {
            """
            \(self.count) messages in \(self.published), \(self.trials) trials; log \(self.logBytes >> 20) MiB, \
            LMDB \(self.lmdbBytes >> 20) MiB; drained in \(self.drained); anonymous memory \
            \(self.publishingPeak >> 20) MiB at most while publishing, \(self.before >> 20) MiB before the drain, \
            \(self.peak >> 20) MiB at most in it
            """
        }
    }

    let count: Int
    private let path = FileManager.default.temporaryDirectory.path + "/stalk-outage-\(UUID().uuidString)"
    private let clock = ManualClock()
    private let remote: ThriftyRemote

    init(count: Int, keepsAll: Bool = false) throws {
        self.count = count
        self.remote = ThriftyRemote(try QueueName("orders"), clock: ElapsedClock(self.clock), keepsAll: keepsAll)
    }

    func run() async throws -> Figures {
        defer { try? FileManager.default.removeItem(atPath: self.path) }
        let store = try await LocalStore.open(at: self.path, options: LocalStoreOptions(clock: self.clock))
        let clock = self.clock
        var options = FailoverOptions()
        options.forwarding.order = .group
        let collector = try FailoverCollector(
            primary: self.remote,
            spool: store,
            options: options,
            clock: ElapsedClock(clock),
            wallTime: { clock.wallTime() },
            logger: nil
        )
        let real = ContinuousClock()
        let begun = real.now
        let publishingPeak = try await self.publish(to: collector)
        let published = begun.duration(to: real.now)
        let trials = try await self.checkTheOutage(collector)
        let disk = try await store.stats()
        // What settled in LMDB is compressed.
        #expect(disk.logBytes + disk.lmdbBytes > self.count * 256)
        // What publishing left free would hide what the drain takes.
        returnFreeMemory()
        let before = try #require(anonymousBytes())
        let start = real.now
        let peak = try await self.drain(collector)
        let figures = Figures(
            count: self.count,
            trials: trials,
            logBytes: disk.logBytes,
            lmdbBytes: disk.lmdbBytes,
            published: published,
            drained: start.duration(to: real.now),
            publishingPeak: publishingPeak,
            before: before,
            peak: max(peak, before)
        )
        await collector.close()
        try await store.close()
        return figures
    }

    /// Publishes all messages, an equal part in each of 600 seconds.
    private func publish(to collector: FailoverCollector) async throws -> Int {
        var peak = 0
        for second in 0..<600 {
            let numbers = Array(self.count * second / 600..<self.count * (second + 1) / 600)
            for part in numbers.parts(of: 500) {
                let messages = part.map { number in
                    let group = "\(number % ThriftyRemote.groups)"
                    return Message(
                        ThriftyRemote.body(number),
                        headers: ["Stalk-Group": group, "Number": "\(number)"]
                    )
                }
                for result in try await collector.publish(messages) { _ = try result.get() }
            }
            self.clock.advance(by: .seconds(1))
            // A trial takes a few turns of the scheduler.
            try await Task.sleep(for: .milliseconds(2))
            peak = max(peak, try #require(anonymousBytes()))
        }
        return peak
    }

    /// - Returns: How often the remote was tried.
    private func checkTheOutage(_ collector: FailoverCollector) async throws -> Int {
        let stats = try await collector.stats()
        #expect(stats.waiting == self.count && stats.stored == self.count && stats.direct == 0)
        #expect(stats.breaker != .closed && stats.forwarding.opened == 1 && stats.forwarding.ambiguous == 0)
        #expect(stats.timeToEmpty == nil && stats.setAside == 0)
        // Three failures open it. From then on it is tried after at most 60 s, with ten messages at most; full jitter makes
        // about twenty trials of ten minutes.
        let trials = self.remote.state.withLock { $0.calls.dropFirst(3) }
        #expect((5...60).contains(trials.count), "\(trials)")
        #expect(trials.allSatisfy { $0.size <= 10 }, "\(trials)")
        for (one, next) in zip(trials, trials.dropFirst()) {
            // The clock goes in steps of a second.
            #expect(next.at - one.at <= .seconds(62), "\(trials)")
        }
        return trials.count
    }

    /// - Returns: The most anonymous memory.
    private func drain(_ collector: FailoverCollector) async throws -> Int {
        let start = ContinuousClock.now
        var peak = 0
        self.remote.state.withLock { $0.isAway = false }
        while self.remote.state.withLock({ $0.arrived }) < self.count {
            try #require(start.duration(to: .now) < .seconds(600), "it does not drain")
            let isClosed = collector.forwarder.breaker == .closed
            self.clock.advance(by: .milliseconds(isClosed ? 1 : 200))
            try await Task.sleep(for: .milliseconds(1))
            peak = max(peak, try #require(anonymousBytes()))
        }
        while try await collector.stats().waiting > 0 {
            try #require(start.duration(to: .now) < .seconds(600), "it is not recorded")
            try await Task.sleep(for: .milliseconds(1))
        }
        let (arrived, wrong) = self.remote.state.withLock { ($0.arrived, $0.wrong) }
        // In order, once each, as they were published: each was compared with the one whose turn it was.
        #expect(arrived == self.count && wrong == 0)
        let stats = try await collector.stats()
        #expect(stats.forwarding.ambiguous == 0 && stats.forwarding.setAside == 0 && stats.breaker == .closed)
        return peak
    }
}
