// `stalk bench --backlog`: does a queue stay fast, small and quick to open when millions of messages wait in it?

internal import FoundationEssentials
internal import StalkCore
internal import StalkFiles
internal import StalkLocal
internal import StalkPlatform
internal import Subprocess

/// Fills a queue and compares it with one that holds a thousand messages.
struct BacklogBench: Sendable {
    /// The depth to compare with.
    private static let shallow = 1000
    private static let callers = 16
    private static let batch = 100

    let depth: Int
    let time: Duration
    let bodies: BenchBodies
    let directory: RealDirectory

    /// What a queue does at some depth.
    struct Rates: Sendable {
        var publish = LoadResult()
        /// Publish, take and acknowledge, so that the depth stays.
        var round = LoadResult()
        /// Take and acknowledge.
        var take = LoadResult()
    }

    struct Outcome: Sendable {
        var depth = 0
        var fillRate = 0.0
        var shallow = Rates()
        var deep = Rates()
        var peakAnonymousBytes = 0
        var rawBytes = 0
        var diskBytes = 0
        /// The part of it that is LMDB's; the rest is the log's segments, which are used again.
        var lmdbBytes = 0
        var closeSeconds = 0.0
        /// From the call that opens the store to the first delivery.
        var openedCleanSeconds = 0.0
        var openedKilledSeconds = 0.0
        var replayedRecords = 0
    }

    func measure(_ progress: SharedProgress) async throws -> Outcome {
        var outcome = Outcome()
        outcome.depth = self.depth
        outcome.rawBytes = Int(self.bodies.meanBytes * Double(self.depth))
        try await self.measureShallow(&outcome.shallow)
        returnFreeMemory()
        let emptyBytes = ProcessReading.anonymousBytes
        let peak = try await PeakMemory.during {
            try await self.measureDeep(&outcome, progress)
        }
        outcome.peakAnonymousBytes = peak - emptyBytes
        try await self.measureShallow(&outcome.shallow)
        return outcome
    }

    // MARK: Depths

    private var deepPath: String { "\(self.directory.path)/deep" }

    private func measureDeep(_ outcome: inout Outcome, _ progress: SharedProgress) async throws {
        let path = self.deepPath
        defer { removeTree(path) }
        try await self.withQueue(at: path) { store, queue in
            let start = monotonicNanoseconds()
            try await self.fill(queue, self.depth, progress)
            try await store.checkpoint()
            outcome.fillRate = Double(self.depth) / (Double(monotonicNanoseconds() - start) / 1e9)
            outcome.diskBytes = diskBytes(of: path)
            outcome.lmdbBytes = try await store.stats().lmdbBytes
            progress.update("rates at depth \(self.depth)", fraction: nil)
            outcome.deep.publish = try await self.publishing(on: queue).run(for: self.time)
            outcome.deep.round = try await self.rounds(on: queue).run(for: self.time)
            outcome.deep.take = try await self.taking(from: queue, wait: .seconds(10)).run(for: self.time)
            let end = monotonicNanoseconds()
            try await store.close()
            outcome.closeSeconds = Double(monotonicNanoseconds() - end) / 1e9
        }
        progress.update("opening", fraction: nil)
        (outcome.openedCleanSeconds, _) = try await self.timeToFirstDelivery(path)
        try await self.publishUntilKilled(path)
        (outcome.openedKilledSeconds, outcome.replayedRecords) = try await self.timeToFirstDelivery(path)
    }

    private func measureShallow(_ rates: inout Rates) async throws {
        let path = "\(self.directory.path)/shallow"
        for work in [\Rates.publish, \Rates.round, \Rates.take] {
            defer { removeTree(path) }
            let result = try await self.withQueue(at: path) { store, queue in
                // Until segments are used again instead of being made.
                _ = try await self.rounds(on: queue).run(for: self.time / 4)
                try await store.checkpoint()
                try await self.fill(queue, Self.shallow, nil)
                let result =
                    switch work {
                    case \.publish: try await self.publishing(on: queue).run(for: self.time / 2)
                    case \.round: try await self.rounds(on: queue).run(for: self.time / 2)
                    default: try await self.drainOften(queue)
                    }
                try await store.close()
                return result
            }
            rates[keyPath: work].merge(result)
        }
    }

    /// Empties a shallow queue again and again; filling it is not counted.
    private func drainOften(_ queue: LocalQueue) async throws -> LoadResult {
        var all = LoadResult()
        while all.seconds < self.time.inSeconds / 4 {
            let start = monotonicNanoseconds()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<Self.callers {
                    group.addTask {
                        while try await queue.takeAndAcknowledge(upTo: Self.batch, wait: .zero) > 0 {}
                    }
                }
                try await group.waitForAll()
            }
            all.seconds += Double(monotonicNanoseconds() - start) / 1e9
            all.messages += Self.shallow
            try await self.fill(queue, Self.shallow, nil)
        }
        return all
    }

    // MARK: Loads

    private func publishing(on queue: LocalQueue) -> Load {
        Load(callers: Self.callers, batch: Self.batch) { first in
            let messages = (first..<first + Self.batch).map { Message(self.bodies[$0]) }
            for result in try await queue.publish(messages) { _ = try result.get() }
            return Self.batch
        }
    }

    private func taking(from queue: LocalQueue, wait: Duration) -> Load {
        Load(callers: Self.callers, batch: Self.batch) { _ in
            try await queue.takeAndAcknowledge(upTo: Self.batch, wait: wait)
        }
    }

    private func rounds(on queue: LocalQueue) -> Load {
        let publishing = self.publishing(on: queue)
        return Load(callers: Self.callers, batch: Self.batch) { first in
            let published = try await publishing.call(first)
            try await queue.takeAndAcknowledge(published)
            return published
        }
    }

    private func fill(_ queue: LocalQueue, _ count: Int, _ progress: SharedProgress?) async throws {
        let batches = (count + Self.batch - 1) / Self.batch
        try await withThrowingTaskGroup(of: Void.self) { group in
            for caller in 0..<Self.callers {
                group.addTask {
                    for number in stride(from: caller, to: batches, by: Self.callers) {
                        try Task.checkCancellation()
                        let first = number * Self.batch
                        let messages = (first..<min(first + Self.batch, count)).map { Message(self.bodies[$0]) }
                        for result in try await queue.publish(messages, durability: .written) { _ = try result.get() }
                        if caller == 0 {
                            progress?.update("\(first) of \(count) published", fraction: Double(first) / Double(count))
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    // MARK: Opening

    private func withQueue<Value>(
        at path: String,
        _ body: (LocalStore, LocalQueue) async throws -> Value
    ) async throws -> Value {
        let store = try await LocalStore.open(at: path)
        let queue = try store.queue("bench")
        try await queue.wake()
        return try await body(store, queue)
    }

    private func timeToFirstDelivery(_ path: String) async throws -> (seconds: Double, replayedRecords: Int) {
        let start = monotonicNanoseconds()
        return try await self.withQueue(at: path) { store, queue in
            guard try await !queue.take(TakeRequest(wait: .seconds(60))).isEmpty else {
                throw StalkError(.interrupted, "The backlog was gone after opening the store.")
            }
            let seconds = Double(monotonicNanoseconds() - start) / 1e9
            try await store.close()
            return (seconds, store.recovery.replayedRecords)
        }
    }

    /// Lets another process publish into the store, and kills it in the middle of that.
    private func publishUntilKilled(_ path: String) async throws {
        let executable = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let outcome = try await Subprocess.run(
            .path(literal(executable)),
            arguments: Arguments(["bench", "--publish-until-killed", "--store", path]),
            input: .none,
            output: .discarded,
            error: .discarded
        ) { execution in
            try await Task.sleep(for: .seconds(2))
            try? execution.send(signal: .kill)
        }
        guard outcome.terminationStatus == .signaled(9) else {
            throw StalkError(
                .interrupted,
                "The process that was to be killed ended before: \(outcome.terminationStatus)."
            )
        }
    }

    /// What that process does.
    static func publishUntilKilled(_ path: String) async throws {
        let store = try await LocalStore.open(at: path, options: LocalStoreOptions(createIfMissing: false))
        let queue = try store.queue("bench")
        let bodies = BenchBodies.madeUp()
        let directory = try RealDirectory(path: path, createIfMissing: false)
        let bench = BacklogBench(depth: 0, time: .zero, bodies: bodies, directory: directory)
        _ = try await bench.publishing(on: queue).run(for: .seconds(60))
    }
}

/// The most anonymous memory that this process has while something runs.
enum PeakMemory {
    static func during(_ body: () async throws -> Void) async throws -> Int {
        let sampling = Task {
            var peak = ProcessReading.anonymousBytes
            while !Task.isCancelled {
                try? await Task.sleep(for: .milliseconds(50))
                peak = max(peak, ProcessReading.anonymousBytes)
            }
            return peak
        }
        defer { sampling.cancel() }
        try await body()
        sampling.cancel()
        return await sampling.value
    }
}
