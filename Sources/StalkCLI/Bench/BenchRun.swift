// One macro run: the engine under a load, and the bare log under the same load before and after it.

internal import StalkCore
internal import StalkFiles
internal import StalkLocal
internal import StalkPlatform

/// What a run does.
struct BenchRun: Sendable {
    enum Work: Sendable {
        /// Publish alone; what is published stays.
        case publish
        /// Publish, take and acknowledge, each waited for.
        case wholeLife
    }

    var name: String
    var work: Work
    var durability: Durability
    var callers: Int
    var batch: Int

    /// All runs, in the order of the report.
    static let all: [BenchRun] = [
        BenchRun(name: "publish-1", work: .publish, durability: .synced, callers: 256, batch: 1),
        BenchRun(name: "publish-100", work: .publish, durability: .synced, callers: 16, batch: 100),
        BenchRun(name: "life-1", work: .wholeLife, durability: .synced, callers: 256, batch: 1),
        BenchRun(name: "life-100", work: .wholeLife, durability: .synced, callers: 16, batch: 100),
        BenchRun(name: "single", work: .publish, durability: .synced, callers: 1, batch: 1),
        BenchRun(name: "written-1", work: .publish, durability: .written, callers: 256, batch: 1),
    ]

    /// Whether the run is compared by the time of one call instead of by messages a second.
    var isAboutLatency: Bool { self.callers == 1 }

    // MARK: Loads

    func load(on queue: LocalQueue, _ bodies: BenchBodies) -> Load {
        let (batch, durability, work) = (self.batch, self.durability, self.work)
        return Load(callers: self.callers, batch: batch) { first in
            let messages = (first..<first + batch).map { Message(bodies[$0]) }
            for result in try await queue.publish(messages, durability: durability) { _ = try result.get() }
            if work == .wholeLife { try await queue.takeAndAcknowledge(batch) }
            return batch
        }
    }

    private func load(on log: BareLog, _ bodies: BenchBodies) -> Load {
        let (batch, work) = (self.batch, self.work)
        return Load(callers: self.callers, batch: batch) { first in
            let sequences = try await log.publish((first..<first + batch).map { bodies[$0] })
            if work == .wholeLife {
                try await log.take(sequences)
                try await log.acknowledge(sequences)
            }
            return batch
        }
    }

    // MARK: Measuring

    /// Measures the run and its ceilings, half of each ceiling before the engine's turn and half after it.
    ///
    /// - Parameters:
    ///   - directory: An empty directory of its own.
    ///   - duration: How long the engine works.
    func measure(_ bodies: BenchBodies, in directory: RealDirectory, for duration: Duration) async throws -> BenchResult
    {
        var ceiling = BenchResult.Ceiling()
        try await self.measureCeiling(&ceiling, bodies, in: directory, for: duration / 2)
        var result = try await self.measureEngine(bodies, at: "\(directory.path)/store", for: duration)
        try await self.measureCeiling(&ceiling, bodies, in: directory, for: duration / 2)
        result.ceiling = ceiling
        return result
    }

    private func measureCeiling(
        _ ceiling: inout BenchResult.Ceiling,
        _ bodies: BenchBodies,
        in directory: RealDirectory,
        for duration: Duration
    ) async throws {
        try directory.makeDirectory("bare")
        defer { removeTree("\(directory.path)/bare") }
        let bare = try RealDirectory(path: "\(directory.path)/bare", createIfMissing: false)
        let segmentBytes = LocalStoreOptions().segmentBytes
        let result = try await BareLog.with(in: bare, durability: self.durability, segmentBytes: segmentBytes) { log in
            let load = self.load(on: log, bodies)
            _ = try await load.run(for: duration / 8)
            return try await load.run(for: duration)
        }
        ceiling.bareLog.merge(result)
        ceiling.disk.merge(try await DiskProbe.measure(in: bare, segmentBytes: segmentBytes, for: duration / 4))
    }

    private func measureEngine(
        _ bodies: BenchBodies,
        at path: String,
        for duration: Duration
    ) async throws -> BenchResult {
        defer { removeTree(path) }
        returnFreeMemory()
        let emptyBytes = ProcessReading.anonymousBytes
        let store = try await LocalStore.open(at: path)
        let name = try QueueName("bench")
        let queue = store.queue(name, options: LocalQueueOptions(takeDurability: self.durability))
        try await queue.wake()
        let load = self.load(on: queue, bodies)
        // Until segments are used again instead of being made, as under lasting load.
        _ = try await load.run(for: duration / 4)
        try await store.checkpoint()

        let before = (ProcessReading.now(), try await store.stats().activity)
        let result = try await load.run(for: duration)
        let after = (ProcessReading.now(), try await store.stats().activity)
        // What the messages left behind in the log is part of what they cost.
        try await store.checkpoint()
        let settled = (ProcessReading.now(), try await store.stats().activity)
        try await store.close()

        let messages = Double(result.messages)
        let bodyBytes = messages * bodies.meanBytes
        let commits = settled.1.lmdbCommits - before.1.lmdbCommits
        let syncs = settled.1.syncs - before.1.syncs + 2 * commits
        var cost = BenchResult.Cost()
        cost.messagesPerFrame = messages / Double(max(1, after.1.frames - before.1.frames))
        cost.bytesPerBodyByte = settled.0.bytesWritten.flatMap { end in
            before.0.bytesWritten.map { Double(end - $0) / bodyBytes }
        }
        cost.syncsPer1000 = Double(syncs) * 1000 / messages
        cost.lmdbCommits = commits
        cost.wakeUpsPer1000 = Double(after.0.wakeUps - before.0.wakeUps) * 1000 / messages
        cost.cpuMicros = (after.0.cpuSeconds - before.0.cpuSeconds) * 1e6 / messages
        cost.anonymousBytes = after.0.anonymousBytes - emptyBytes
        return BenchResult(run: self, bodies: bodies.name, load: result, cost: cost)
    }
}

extension LocalQueue {
    /// Takes as many messages as the caller published, and acknowledges them.
    ///
    /// With callers that do no more than that, there is always one left for each.
    func takeAndAcknowledge(_ count: Int) async throws {
        var left = count
        while left > 0 {
            let done = try await self.takeAndAcknowledge(upTo: left, wait: .seconds(10))
            guard done > 0 else {
                throw StalkError(.interrupted, "A message that was published did not come within ten seconds.")
            }
            left -= done
        }
    }

    /// Takes what is ready and acknowledges it.
    ///
    /// - Returns: How many messages that were.
    func takeAndAcknowledge(upTo most: Int, wait: Duration) async throws -> Int {
        let deliveries = try await self.take(TakeRequest(max: most, wait: wait))
        guard !deliveries.isEmpty else { return 0 }
        let completions = deliveries.map { Completion($0.receipt, .acknowledge) }
        for result in try await self.finish(completions) { try result.get() }
        return deliveries.count
    }
}
