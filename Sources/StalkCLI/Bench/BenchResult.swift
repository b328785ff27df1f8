// What a run found, beside its ceilings.

internal import StalkCore

/// The figures of one run.
struct BenchResult: Sendable {
    /// What the same disk and the same log can do at most, in the same run.
    struct Ceiling: Sendable {
        /// The bare log under the same load.
        var bareLog = LoadResult()
        /// Writes of 4 KiB, each synced.
        var disk = LoadResult()
    }

    /// What the work cost.
    struct Cost: Sendable {
        /// Messages for each frame of the log.
        var messagesPerFrame = 0.0
        /// Bytes handed to write calls, for log and LMDB, for each byte of the bodies; `nil` where the kernel does not say.
        var bytesPerBodyByte: Double?
        var syncsPer1000 = 0.0
        var lmdbCommits = 0
        var wakeUpsPer1000 = 0.0
        /// Processor time for each message, in microseconds, callers included.
        var cpuMicros = 0.0
        /// Anonymous resident memory that came with the store.
        var anonymousBytes = 0
    }

    var run: BenchRun
    var bodies: String
    var load: LoadResult
    var cost: Cost
    var ceiling = Ceiling()

    /// The engine's share of what the bare log does.
    var shareOfBareLog: Double {
        self.ceiling.bareLog.rate > 0 ? self.load.rate / self.ceiling.bareLog.rate : 0
    }

    /// How many times as long as one synced write of 4 KiB a call takes, by the medians.
    var timesOneSync: Double {
        let sync = self.ceiling.disk.latency.quantile(0.5)
        return sync > 0 ? self.load.latency.quantile(0.5) / sync : 0
    }

    var json: JSONValue {
        .object([
            .init("run", .string(self.run.name)),
            .init("bodies", .string(self.bodies)),
            .init("durability", .string(self.run.durability == .synced ? "synced" : "written")),
            .init("callers", .number(self.run.callers)),
            .init("batch", .number(self.run.batch)),
            .init("messages", .number(self.load.messages)),
            .init("messagesPerSecond", .decimal(self.load.rate, places: 0)),
            .init("latencyMicros", Self.json(self.load.latency)),
            .init("bareLogPerSecond", .decimal(self.ceiling.bareLog.rate, places: 0)),
            .init("bareLogLatencyMicros", Self.json(self.ceiling.bareLog.latency)),
            .init("shareOfBareLog", .decimal(self.shareOfBareLog, places: 3)),
            .init("syncedWritesPerSecond", .decimal(self.ceiling.disk.rate, places: 0)),
            .init("syncedWriteLatencyMicros", Self.json(self.ceiling.disk.latency)),
            .init("timesOneSync", .decimal(self.timesOneSync, places: 2)),
            .init("messagesPerFrame", .decimal(self.cost.messagesPerFrame, places: 1)),
            .init("bytesPerBodyByte", self.cost.bytesPerBodyByte.map { .decimal($0, places: 3) } ?? .null),
            .init("syncsPer1000", .decimal(self.cost.syncsPer1000, places: 2)),
            .init("lmdbCommits", .number(self.cost.lmdbCommits)),
            .init("wakeUpsPer1000", .decimal(self.cost.wakeUpsPer1000, places: 1)),
            .init("cpuMicrosPerMessage", .decimal(self.cost.cpuMicros, places: 2)),
            .init("anonymousBytes", .number(self.cost.anonymousBytes)),
        ])
    }

    static func json(_ latency: LatencyHistogram) -> JSONValue {
        .object(
            [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)].map { name, share in
                .init(name, .decimal(latency.quantile(share) / 1000, places: 1))
            }
        )
    }
}

/// A number with so many decimals.
func decimalText(_ value: Double, places: Int) -> String {
    guard value.isFinite, abs(value) < 1e15 else { return "0" }
    var scale = 1
    for _ in 0..<places { scale *= 10 }
    let whole = Int((abs(value) * Double(scale)).rounded())
    let sign = value < 0 && whole > 0 ? "-" : ""
    guard places > 0 else { return "\(sign)\(whole)" }
    let digits = String(whole % scale)
    return "\(sign)\(whole / scale).\(String(repeating: "0", count: places - digits.count))\(digits)"
}

/// A whole number with its thousands apart: `1,234,567`.
func groupedText(_ value: Double) -> String {
    let digits = Array(String(Int(value.rounded())))
    return digits.indices.map { index in
        let left = digits.count - index
        return (index > 0 && left % 3 == 0 ? "," : "") + String(digits[index])
    }.joined()
}

/// A time in the unit that suits it: `84 us`, `1.25 ms`.
func timeText(nanoseconds: Double) -> String {
    switch nanoseconds {
    case ..<100_000: "\(decimalText(nanoseconds / 1e3, places: 1)) us"
    case ..<1_000_000: "\(decimalText(nanoseconds / 1e3, places: 0)) us"
    case ..<1e9: "\(decimalText(nanoseconds / 1e6, places: 2)) ms"
    default: "\(decimalText(nanoseconds / 1e9, places: 2)) s"
    }
}
