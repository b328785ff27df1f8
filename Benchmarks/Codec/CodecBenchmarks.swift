// zstd through Stalk's own module: bodies into envelopes and out again, with and without a dictionary.

import Benchmark
import BenchmarkSupport

let benchmarks: @Sendable () -> Void = {
    Benchmark.defaultConfiguration = .init(
        metrics: [.wallClock, .messageRate, .storedBytes, .allocations],
        warmupIterations: 1,
        maxDuration: .seconds(3),
        maxIterations: 20,
        thresholds: [
            .wallClock: .none,
            .messageRate: .none,
            // The versions of zstd differ a little.
            .storedBytes: .within(percent: 3),
            .allocations: .within(percent: 5),
        ]
    )

    let bodies = CodecLoad.Bodies.allCases
    for kind in bodies {
        Benchmark("compress-\(kind.rawValue)") { benchmark in try CodecLoad(kind).compress(benchmark) }
        Benchmark("decompress-\(kind.rawValue)") { benchmark in try CodecLoad(kind).decompress(benchmark) }
    }
}
