// One iteration: the same work on a new store, so that one iteration counts like the next.

import Benchmark
import BenchmarkSupport
import Foundation
import Stalk

/// Runs a workload on a store of its own in the temporary directory, and records its counters.
///
/// The time ends with the workload. The counters go on until a checkpoint has moved into LMDB what the workload left
/// behind, since that is part of what a message costs.
///
/// - Parameters:
///   - benchmark: What is measured.
///   - messages: How many messages the workload handles.
///   - backlog: How many messages lie in the queue before, written by an earlier owner of the store.
///   - workload: What to measure.
func measure(
    _ benchmark: Benchmark,
    messages: Int,
    backlog: Int = 0,
    _ workload: (LocalQueue) async throws -> Void
) async throws {
    let directory = FileManager.default.temporaryDirectory.appending(path: "stalk-benchmark-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: directory) }
    let name = try QueueName("bench")
    if backlog > 0 {
        let store = try await LocalStore.open(at: directory.path)
        try await Workload.fill(store.queue(name), with: backlog)
        try await store.close()
    }
    let store = try await LocalStore.open(at: directory.path)
    let queue = store.queue(name)
    // Waits for the segments that every opened store prepares: they are not the workload's.
    try await store.checkpoint()
    try await queue.wake()

    let clock = ContinuousClock()
    let commits = try await store.stats().activity.lmdbCommits
    let before = try Counters.now()
    let start = clock.now
    benchmark.startMeasurement()
    try await workload(queue)
    benchmark.stopMeasurement()
    let elapsed = clock.now - start
    try await store.checkpoint()
    let spent = try Counters.now() - before
    let committed = try await store.stats().activity.lmdbCommits - commits

    try await store.close()
    benchmark.measurement(.messageRate, Int(Double(messages) / (elapsed / .seconds(1))))
    benchmark.measurement(.syncs, spent.syncs * 10_000 / messages)
    benchmark.measurement(.bytesWritten, spent.bytesWritten / messages)
    benchmark.measurement(.allocations, spent.allocations * 1_000 / messages)
    benchmark.measurement(.commits, committed * 1_000_000 / messages)
    benchmark.measurement(.wakeUps, spent.wakeUps * 1_000 / messages)
}
