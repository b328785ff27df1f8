// The log's bytes: records and frames made, taken apart, and a segment read back from a file. Nothing is synced here.

import Benchmark
import BenchmarkSupport

let benchmarks: @Sendable () -> Void = {
    Benchmark.defaultConfiguration = .init(
        metrics: [.wallClock, .messageRate, .logBytes, .allocations],
        warmupIterations: 1,
        maxDuration: .seconds(3),
        maxIterations: 20,
        thresholds: [
            .wallClock: .none,
            .messageRate: .none,
            // The format decides it: another number is another format.
            .logBytes: .within(percent: 0.5),
            .allocations: .within(percent: 5),
        ]
    )

    let load = LogLoad(messages: 8_192)

    for perFrame in [1, 64] {
        Benchmark("encode-\(perFrame)-per-frame") { benchmark in try load.encode(perFrame, benchmark) }
        Benchmark("decode-\(perFrame)-per-frame") { benchmark in try load.decode(perFrame, benchmark) }
    }
    Benchmark("read-segment") { benchmark in try load.readSegment(perFrame: 64, benchmark) }
}
