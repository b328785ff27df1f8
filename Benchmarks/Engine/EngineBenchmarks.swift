// The local engine through its public calls, on a real disk.

import Benchmark
import BenchmarkSupport
import Stalk

let benchmarks: @Sendable () -> Void = {
    Benchmark.defaultConfiguration = .init(
        metrics: [.wallClock, .cpuTotal, .messageRate, .syncs, .bytesWritten, .allocations, .commits, .wakeUps],
        warmupIterations: 1,
        maxDuration: .seconds(6),
        maxIterations: 5,
        thresholds: [
            .wallClock: .none,
            .cpuTotal: .none,
            .messageRate: .none,
            // How many calls meet in a group depends on the disk: twice as many syncs is news, fewer is none.
            .syncs: .within(percent: 100),
            .bytesWritten: .within(percent: 10),
            // Buffers grow with what gathers in a frame, so the disk has a part in it.
            .allocations: .within(percent: 50),
            // A checkpoint begins by size, but also when the disk is fast enough for another one.
            .commits: .within(percent: 100),
            .wakeUps: .within(percent: 100),
        ]
    )

    // Nobody to share a frame with: a sync and the same few waits for each message, on every disk.
    Benchmark("publish-one-1-task", configuration: .alone) { benchmark in
        try await measure(benchmark, messages: 4_000) { queue in
            try await Workload.publish(to: queue, tasks: 1, calls: 4_000, batch: 1)
        }
    }

    // Enough to publish that a new segment is prepared and a checkpoint begins meanwhile, as under lasting load.
    Benchmark("publish-one-256-tasks") { benchmark in
        try await measure(benchmark, messages: 256 * 256) { queue in
            try await Workload.publish(to: queue, tasks: 256, calls: 256, batch: 1)
        }
    }
    Benchmark("publish-100-16-tasks") { benchmark in
        try await measure(benchmark, messages: 16 * 40 * 100) { queue in
            try await Workload.publish(to: queue, tasks: 16, calls: 40, batch: 100)
        }
    }
    Benchmark("whole-life") { benchmark in
        try await measure(benchmark, messages: 64 * 256) { queue in
            try await Workload.wholeLife(of: 64 * 256, in: queue, publishers: 64, workers: 16)
        }
    }
    Benchmark("backlog-drain") { benchmark in
        try await measure(benchmark, messages: 20_000, backlog: 20_000) { queue in
            try await Workload.drain(queue, of: 20_000, workers: 4)
        }
    }
}

extension Benchmark.Configuration {
    /// For one caller, who meets nobody in a group.
    fileprivate static var alone: Benchmark.Configuration {
        var configuration = Benchmark.defaultConfiguration
        configuration.thresholds?[.syncs] = .within(percent: 10)
        configuration.thresholds?[.wakeUps] = .within(percent: 25)
        return configuration
    }
}
