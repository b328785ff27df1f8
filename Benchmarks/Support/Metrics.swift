// The metrics of the benchmarks, and how far each may move before the check fails.

public import Benchmark

extension BenchmarkMetric {
    /// fsync and fdatasync calls for 10,000 messages: how well group commit gathers.
    public static var syncs: BenchmarkMetric { .counter("syncs per 10k messages") }

    /// Bytes written for a message, in the log and in LMDB, prepared segments included.
    public static var bytesWritten: BenchmarkMetric { .counter("bytes written per message") }

    /// Blocks of memory asked of malloc for 1,000 messages.
    public static var allocations: BenchmarkMetric { .counter("allocations per 1k messages") }

    /// Bytes of the log for a message: body, record and its share of the frame.
    public static var logBytes: BenchmarkMetric { .counter("bytes of log per message") }

    /// Bytes of a message's body as LMDB keeps it: its envelope.
    public static var storedBytes: BenchmarkMetric { .counter("bytes stored per message") }

    /// Transactions of LMDB for a million messages.
    public static var commits: BenchmarkMetric { .counter("LMDB commits per 1M messages") }

    /// Waits that ended, of all threads together, for 1,000 messages.
    public static var wakeUps: BenchmarkMetric { .counter("wake-ups per 1k messages") }

    /// Bytes of memory for a timer.
    public static var memory: BenchmarkMetric { .counter("bytes of memory per timer") }

    /// Messages in a second; printed, never gated.
    public static var messageRate: BenchmarkMetric {
        .custom("messages/s", polarity: .prefersLarger, useScalingFactor: false)
    }

    private static func counter(_ name: String) -> BenchmarkMetric {
        .custom(name, polarity: .prefersSmaller, useScalingFactor: false)
    }
}

extension BenchmarkThresholds {
    /// Lets a counter move this far, in percent, from the committed threshold.
    ///
    /// - Parameter percent: The largest deviation; from 100 on, no improvement fails the check.
    public static func within(percent: Double) -> BenchmarkThresholds {
        BenchmarkThresholds(relative: [.p90: percent])
    }
}
