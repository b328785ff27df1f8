// What the benchmarks of single modules share: counting around a piece of work, and a directory to work in.

public import Benchmark
internal import Foundation

extension Benchmark {
    /// Measures work on some messages: its time, and what it asks of the disk and of the allocator.
    ///
    /// - Parameters:
    ///   - messages: How many messages the work handles.
    ///   - work: What to measure.
    /// - Throws: What the work throws, and as ``Counters/now()``.
    public func count(messages: Int, _ work: () throws -> Void) throws {
        let clock = ContinuousClock()
        let before = try Counters.now()
        let start = clock.now
        self.startMeasurement()
        try work()
        self.stopMeasurement()
        let elapsed = clock.now - start
        let spent = try Counters.now() - before
        self.keep(.messageRate, Int(Double(messages) / (elapsed / .seconds(1))))
        self.keep(.syncs, spent.syncs * 10_000 / messages)
        self.keep(.bytesWritten, spent.bytesWritten / messages)
        self.keep(.allocations, spent.allocations * 1_000 / messages)
    }

    /// Leaves out what the benchmark does not ask for: a zero in the thresholds would look like something gated.
    private func keep(_ metric: BenchmarkMetric, _ value: Int) {
        if self.configuration.metrics.contains(metric) { self.measurement(metric, value) }
    }
}

/// Runs a body with a new directory in the temporary one, and removes it.
///
/// - Throws: What the body throws, and an error of Foundation when there is no room for a directory.
public func withScratchDirectory<Value>(_ body: (_ path: String) throws -> Value) throws -> Value {
    let directory = FileManager.default.temporaryDirectory.appending(path: "stalk-benchmark-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    return try body(directory.path)
}

/// A benchmark that did not do what it is measured for.
public struct Mismatch: Error, CustomStringConvertible {
    /// What was expected, and what was found.
    public var description: String

    /// Names what is wrong.
    ///
    /// - Parameter description: What was expected, and what was found.
    public init(_ description: String) {
        self.description = description
    }
}
