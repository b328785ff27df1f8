// LMDB through Stalk's own module: transactions as a checkpoint makes them, gets and scans, checksums included.

import Benchmark
import BenchmarkSupport

let benchmarks: @Sendable () -> Void = {
    Benchmark.defaultConfiguration = .init(
        metrics: [.wallClock, .messageRate, .commits, .syncs, .bytesWritten, .allocations],
        warmupIterations: 1,
        maxDuration: .seconds(3),
        maxIterations: 5,
        thresholds: [
            .wallClock: .none,
            .messageRate: .none,
            .commits: .within(percent: 1),
            .syncs: .within(percent: 1),
            // LMDB's own choice of pages; its versions differ a little.
            .bytesWritten: .within(percent: 5),
            .allocations: .within(percent: 10),
        ]
    )

    let load = IndexLoad(entries: 20_000)

    Benchmark("put-100-a-transaction") { benchmark in try load.put(100, benchmark) }
    Benchmark("put-10k-a-transaction") { benchmark in try load.put(10_000, benchmark) }
    // What a checkpoint does when messages were finished: they leave the tables in the order in which they came.
    // It asks for no memory, and a share of nothing can't be gated.
    var deleting = Benchmark.defaultConfiguration
    deleting.metrics.removeAll { $0 == .allocations }
    deleting.thresholds?[.allocations] = nil
    Benchmark("delete-10k-a-transaction", configuration: deleting) { benchmark in try load.delete(10_000, benchmark) }

    // Nothing is written here: these count what reading asks of the allocator.
    var reading = Benchmark.defaultConfiguration
    reading.metrics = [.wallClock, .messageRate, .allocations]
    reading.thresholds = [.wallClock: .none, .messageRate: .none, .allocations: .within(percent: 10)]
    Benchmark("get", configuration: reading) { benchmark in try load.get(benchmark) }
    Benchmark("scan", configuration: reading) { benchmark in try load.scan(benchmark) }
}
