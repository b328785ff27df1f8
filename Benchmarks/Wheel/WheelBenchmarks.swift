// The timing wheel beside a heap, with a million timers in each.

import Benchmark
import BenchmarkSupport

let benchmarks: @Sendable () -> Void = {
    Benchmark.defaultConfiguration = .init(
        metrics: [.wallClock, .memory],
        warmupIterations: 1,
        scalingFactor: .mega,
        maxDuration: .seconds(4),
        maxIterations: 5,
        thresholds: [.wallClock: .none, .memory: .within(percent: 5)]
    )
    // Stands beside the wheel for its times; what it needs is not ours to gate.
    var ungated = Benchmark.defaultConfiguration
    ungated.thresholds = [.wallClock: .none, .memory: .none]

    let load = TimerLoad(count: BenchmarkScalingFactor.mega.rawValue)

    Benchmark("wheel-insert-cancel") { benchmark in load.insertAndCancel(WheelTimers(), benchmark) }
    Benchmark("heap-insert-cancel", configuration: ungated) { benchmark in
        load.insertAndCancel(HeapTimers(), benchmark)
    }
    Benchmark("wheel-insert-expire") { benchmark in load.insertAndExpire(WheelTimers(), benchmark) }
    Benchmark("heap-insert-expire", configuration: ungated) { benchmark in
        load.insertAndExpire(HeapTimers(), benchmark)
    }
}
