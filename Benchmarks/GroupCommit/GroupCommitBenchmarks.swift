// Group commit by itself: what many callers publish goes into one frame, one write and one fdatasync, on a real disk.

import Benchmark
import BenchmarkSupport

let benchmarks: @Sendable () -> Void = {
    Benchmark.defaultConfiguration = .init(
        metrics: [.wallClock, .messageRate, .syncs, .bytesWritten],
        warmupIterations: 1,
        maxDuration: .seconds(3),
        maxIterations: 5,
        thresholds: [
            .wallClock: .none,
            .messageRate: .none,
            // Who meets in a group is decided here and not by the disk, so nothing may move.
            .syncs: .within(percent: 1),
            .bytesWritten: .within(percent: 1),
        ]
    )

    let load = CommitLoad()

    // A lone caller waits for a sync of its own each time; the more callers, the less of one each costs.
    for (callers, batch, groups) in [(1, 1, 200), (16, 1, 200), (256, 1, 40), (1, 100, 100), (16, 100, 10)] {
        Benchmark("\(callers)-callers-batch-\(batch)") { benchmark in
            try load.commit(callers: callers, batch: batch, groups: groups, benchmark)
        }
    }
}
