// `stalk bench --scheduled`: what millions of messages that wait for their time cost, and how punctual they are.

internal import StalkCore
internal import StalkFiles
internal import StalkLocal
internal import StalkPlatform
internal import Synchronization

/// Schedules messages evenly over the next hour and looks how late those that fall due come.
struct ScheduleBench: Sendable {
    private static let hour = Duration.seconds(3600)
    private static let batch = 100

    let count: Int
    let time: Duration
    let bodies: BenchBodies
    let directory: RealDirectory
    /// How many fall due in a second of the second part.
    var burstRate = 100_000

    struct Outcome: Sendable {
        var count = 0
        var scheduleRate = 0.0
        var peakAnonymousBytes = 0
        var diskBytes = 0
        var rawBytes = 0
        /// How late single messages come while the store has little to do.
        var quiet = Lateness()
        /// How late messages come, at most, while many fall due.
        var burst = Lateness()
        var burstRate = 0.0
    }

    /// How long after its time a message was handed out.
    struct Lateness: Sendable {
        var late = LatencyHistogram()
        var early = 0
        /// When the last one was handed out, by the monotonic clock.
        var lastAt: Int64 = 0

        mutating func record(due: Int64, at now: Int64) {
            if now < due { self.early += 1 }
            self.late.record(now - due)
            self.lastAt = max(self.lastAt, now)
        }

        mutating func merge(_ other: Lateness) {
            self.late.merge(other.late)
            self.early += other.early
            self.lastAt = max(self.lastAt, other.lastAt)
        }
    }

    func measure(_ progress: SharedProgress) async throws -> Outcome {
        var outcome = Outcome()
        outcome.count = self.count
        outcome.rawBytes = Int(self.bodies.meanBytes * Double(self.count))
        returnFreeMemory()
        let emptyBytes = ProcessReading.anonymousBytes
        let path = "\(self.directory.path)/scheduled"
        defer { removeTree(path) }
        let store = try await LocalStore.open(at: path)
        let peak = try await PeakMemory.during {
            let start = monotonicNanoseconds()
            try await self.schedule(on: store.queue("hour"), progress)
            try await store.checkpoint()
            outcome.scheduleRate = Double(self.count) / (Double(monotonicNanoseconds() - start) / 1e9)
            outcome.diskBytes = diskBytes(of: path)
            try await self.whileTaking(from: store.queue("hour")) {
                progress.update("punctuality", fraction: nil)
                // What fell due meanwhile goes first.
                try await Task.sleep(for: self.time)
                outcome.quiet = try await self.probe(store.queue("probe"))
                (outcome.burst, outcome.burstRate) = try await self.burst(store.queue("burst"))
            }
        }
        outcome.peakAnonymousBytes = peak - emptyBytes
        try await store.close()
        return outcome
    }

    private func schedule(on queue: LocalQueue, _ progress: SharedProgress) async throws {
        let batches = (self.count + Self.batch - 1) / Self.batch
        let callers = 16
        try await withThrowingTaskGroup(of: Void.self) { group in
            for caller in 0..<callers {
                group.addTask {
                    for number in stride(from: caller, to: batches, by: callers) {
                        try Task.checkCancellation()
                        let first = number * Self.batch
                        let messages = (first..<min(first + Self.batch, self.count)).map { place in
                            // Spread over the hour, neighbours far apart, as independent publishers would.
                            let share = Double((place &* 7_919) % self.count) / Double(self.count)
                            let delay = Duration.milliseconds(1 + Int64(share * Self.hour.inSeconds * 1000))
                            return Message(self.bodies[place], delay: delay)
                        }
                        for result in try await queue.publish(messages, durability: .written) { _ = try result.get() }
                        if caller == 0 {
                            progress.update("\(first) scheduled", fraction: Double(first) / Double(self.count))
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    private func whileTaking(from queue: LocalQueue, _ body: () async throws -> Void) async throws {
        try await queue.wake()
        let takers = (0..<2).map { _ in
            Task {
                while !Task.isCancelled {
                    _ = try await queue.takeAndAcknowledge(upTo: Self.batch, wait: .seconds(5))
                }
            }
        }
        defer { for taker in takers { taker.cancel() } }
        try await body()
    }

    /// Single messages with delays up to a second, a hundred of them a second.
    private func probe(_ queue: LocalQueue) async throws -> Lateness {
        try await queue.wake()
        let count = max(10, Int(self.time.inSeconds * 100))
        return try await withThrowingTaskGroup(of: Lateness?.self) { group in
            group.addTask {
                for number in 0..<count {
                    let delay = Int64(20 + number * 7_919 % 980)
                    let due = monotonicNanoseconds() + delay * 1_000_000
                    try await queue.publish(Message(Self.bytes(of: due), delay: .milliseconds(delay)))
                    try await Task.sleep(for: .milliseconds(10))
                }
                return nil
            }
            group.addTask {
                var lateness = Lateness()
                while lateness.late.count < count {
                    let deliveries = try await queue.take(TakeRequest(wait: .seconds(10)))
                    let now = monotonicNanoseconds()
                    guard let delivery = deliveries.first else { break }
                    lateness.record(due: Self.number(in: delivery.body), at: now)
                    try await queue.acknowledge(delivery)
                }
                return lateness
            }
            var found = Lateness()
            for try await lateness in group { found = lateness ?? found }
            return found
        }
    }

    /// Schedules what falls due at a high rate a little later, and takes it then.
    ///
    /// The store dates a message somewhere in the call that publishes it. Lateness is counted from the earliest moment that
    /// it may have taken, so it is what is at most true.
    private func burst(_ queue: LocalQueue) async throws -> (Lateness, rate: Double) {
        try await queue.wake()
        let seconds = max(1, min(5, Int(self.time.inSeconds)))
        let total = self.burstRate * seconds
        let start = monotonicNanoseconds() + 6_000_000_000
        try await withThrowingTaskGroup(of: Void.self) { group in
            for caller in 0..<4 {
                group.addTask {
                    for first in stride(from: caller * Self.batch, to: total, by: 4 * Self.batch) {
                        let now = monotonicNanoseconds()
                        let messages = (first..<first + Self.batch).map { number in
                            let due = start + Int64(number) * 1_000_000_000 / Int64(self.burstRate)
                            let delay = max(1, (due - now) / 1_000_000)
                            return Message(Self.bytes(of: now + delay * 1_000_000), delay: .milliseconds(delay))
                        }
                        for result in try await queue.publish(messages, durability: .written) { _ = try result.get() }
                    }
                }
            }
            try await group.waitForAll()
        }
        let lateness = try await withThrowingTaskGroup(of: Lateness.self) { group in
            let left = TakenCount(total)
            for _ in 0..<4 {
                group.addTask {
                    var lateness = Lateness()
                    while left.isPositive {
                        let deliveries = try await queue.take(TakeRequest(max: Self.batch, wait: .seconds(3)))
                        let now = monotonicNanoseconds()
                        left.subtract(deliveries.count)
                        for delivery in deliveries { lateness.record(due: Self.number(in: delivery.body), at: now) }
                        if !deliveries.isEmpty {
                            try await queue.finish(deliveries.map { Completion($0.receipt, .acknowledge) })
                        }
                    }
                    return lateness
                }
            }
            var all = Lateness()
            for try await part in group { all.merge(part) }
            return all
        }
        // Takers may wait a little longer, to find that nothing is left.
        return (lateness, Double(total) / (Double(lateness.lastAt - start) / 1e9))
    }

    private static func bytes(of number: Int64) -> [UInt8] {
        withUnsafeBytes(of: number.littleEndian) { Array($0) }
    }

    private static func number(in bytes: [UInt8]) -> Int64 {
        bytes.withUnsafeBytes { Int64(littleEndian: $0.loadUnaligned(as: Int64.self)) }
    }
}

/// How many messages are still to come, counted down by several takers.
private final class TakenCount: Sendable {
    private let left: Atomic<Int>

    init(_ count: Int) {
        self.left = Atomic(count)
    }

    var isPositive: Bool { self.left.load(ordering: .relaxed) > 0 }

    func subtract(_ count: Int) {
        self.left.wrappingSubtract(count, ordering: .relaxed)
    }
}
