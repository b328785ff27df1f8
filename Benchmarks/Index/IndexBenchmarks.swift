// LMDB through Stalk's own module: transactions as a checkpoint makes them, gets and scans, checksums included.

import Benchmark
import BenchmarkSupport

let benchmarks: @Sendable () -> Void = {
    Benchmark.defaultConfiguration = .init(
        metrics: [.wallClock, .messageRate, .commits, .syncs, .bytesWritten],
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
        ]
    )

    let load = IndexLoad(entries: 20_000)

    Benchmark("put-100-a-transaction") { benchmark in try load.put(100, benchmark) }
    Benchmark("put-10k-a-transaction") { benchmark in try load.put(10_000, benchmark) }
    // What a checkpoint does when messages were finished: they leave the tables in the order in which they came.
    Benchmark("delete-10k-a-transaction") { benchmark in try load.delete(10_000, benchmark) }

    // Nothing is written here: these count what reading asks of the allocator. Above nothing is said of that, since the
    // tool's own threads ask it for more the longer the disk takes.
    var reading = Benchmark.defaultConfiguration
    reading.metrics = [.wallClock, .messageRate, .allocations]
    reading.thresholds = [.wallClock: .none, .messageRate: .none, .allocations: .within(percent: 10)]
    Benchmark("get", configuration: reading) { benchmark in try load.get(benchmark) }
    Benchmark("scan", configuration: reading) { benchmark in try load.scan(benchmark) }
}
