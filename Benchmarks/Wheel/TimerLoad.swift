// What the timers are put through: the same for the wheel and for the heap.

import Benchmark
import BenchmarkSupport

/// Timers with random deadlines within ten minutes, a tick being a millisecond.
struct TimerLoad: Sendable {
    private static let end: Int64 = 600_000
    /// How far time goes between two looks at what is due.
    private static let step: Int64 = 100

    private let deadlines: [Int64]
    private let cancelOrder: [Int]

    init(count: Int) {
        var generator = SeededGenerator(seed: 1)
        self.deadlines = (0..<count).map { _ in Int64.random(in: 1...Self.end, using: &generator) }
        self.cancelOrder = (0..<count).shuffled(using: &generator)
    }

    /// Sets all timers, cancels them in another order and lets the time pass: what leases of quick workers do.
    func insertAndCancel(_ timers: consuming some Timers, _ benchmark: Benchmark) {
        let heapBytes = Counters.heapBytes
        benchmark.startMeasurement()
        var timers = timers
        let handles = self.insertAll(into: &timers)
        let used = Counters.heapBytes - heapBytes
        for index in self.cancelOrder { timers.cancel(handles[index]) }
        let fired = timers.advance(to: Self.end)
        benchmark.stopMeasurement()
        if fired != 0 { benchmark.error("\(fired) cancelled timers fired") }
        self.record(used, handles, benchmark)
    }

    /// Sets all timers and lets the time pass until all have fired.
    func insertAndExpire(_ timers: consuming some Timers, _ benchmark: Benchmark) {
        let heapBytes = Counters.heapBytes
        benchmark.startMeasurement()
        var timers = timers
        let handles = self.insertAll(into: &timers)
        let used = Counters.heapBytes - heapBytes
        var fired = 0
        for now in stride(from: Self.step, through: Self.end, by: Int(Self.step)) { fired += timers.advance(to: now) }
        benchmark.stopMeasurement()
        if fired != self.deadlines.count { benchmark.error("\(fired) of \(self.deadlines.count) timers fired") }
        self.record(used, handles, benchmark)
    }

    private func insertAll<Kind: Timers>(into timers: inout Kind) -> [Kind.Handle] {
        var handles: [Kind.Handle] = []
        handles.reserveCapacity(self.deadlines.count)
        for (key, deadline) in self.deadlines.enumerated() {
            handles.append(timers.insert(key: UInt64(key), deadline: deadline))
        }
        return handles
    }

    /// Leaves out the handles, which the caller keeps in both cases.
    private func record<Handle>(_ used: Int, _ handles: [Handle], _ benchmark: Benchmark) {
        let ofHandles = handles.capacity * MemoryLayout<Handle>.stride
        benchmark.measurement(.memory, (used - ofHandles) / self.deadlines.count)
    }
}
