// The report of all runs: a table for a person, one line of JSON for a machine.

internal import FoundationEssentials

/// What all runs found, and where.
struct BenchReport: Sendable {
    var directory: String
    var bodies: [BenchBodies]
    var results: [BenchResult]

    /// All synced writes of all runs together: the disk as it was meanwhile.
    private var disk: LoadResult {
        var disk = LoadResult()
        for result in self.results { disk.merge(result.ceiling.disk) }
        return disk
    }

    var json: JSONValue {
        .object([
            .init("cores", .number(ProcessInfo.processInfo.activeProcessorCount)),
            .init("directory", .string(self.directory)),
            .init(
                "disk",
                .object([
                    .init("syncedWritesPerSecond", .decimal(self.disk.rate, places: 0)),
                    .init("latencyMicros", BenchResult.json(self.disk.latency)),
                ])
            ),
            .init(
                "bodies",
                .array(
                    self.bodies.map { bodies in
                        .object([
                            .init("name", .string(bodies.name)),
                            .init("origin", .string(bodies.origin)),
                            .init("meanBytes", .decimal(bodies.meanBytes, places: 1)),
                        ])
                    }
                )
            ),
            .init("results", .array(self.results.map(\.json))),
        ])
    }

    var text: String {
        let disk = self.disk
        let origins = self.bodies.map { bodies in
            "  \(bodies.name): \(bodies.origin), \(decimalText(bodies.meanBytes, places: 0)) bytes on average\n"
        }
        return """
            disk: \(groupedText(disk.rate)) synced writes/s of 4 KiB, \
            p50 \(timeText(nanoseconds: disk.latency.quantile(0.5))), \
            p99 \(timeText(nanoseconds: disk.latency.quantile(0.99))), \
            p99.9 \(timeText(nanoseconds: disk.latency.quantile(0.999))); \
            \(counted(ProcessInfo.processInfo.activeProcessorCount, "core"))
            bodies:
            \(origins.joined())
            \(self.rates.text)
            \(self.costs.text)
            """
    }

    private var rates: TextTable {
        var table = TextTable([
            ("RUN", .left), ("BODIES", .left), ("CALLERS", .right), ("MSG/S", .right), ("BARE LOG/S", .right),
            ("SHARE", .right), ("P50", .right), ("P99", .right), ("P99.9", .right), ("P50/SYNC", .right),
        ])
        for result in self.results {
            let time = { (share: Double) in timeText(nanoseconds: result.load.latency.quantile(share)) }
            table.add([
                result.run.name, result.bodies, "\(result.run.callers)", groupedText(result.load.rate),
                groupedText(result.ceiling.bareLog.rate), "\(decimalText(result.shareOfBareLog * 100, places: 0))%",
                time(0.5), time(0.99), time(0.999), decimalText(result.timesOneSync, places: 2),
            ])
        }
        return table
    }

    private var costs: TextTable {
        var table = TextTable([
            ("RUN", .left), ("BODIES", .left), ("MSG/FRAME", .right), ("BYTES/BODY", .right), ("SYNCS/1K", .right),
            ("LMDB", .right), ("WAKES/1K", .right), ("CPU/MSG", .right), ("MEMORY", .right),
        ])
        for result in self.results {
            let cost = result.cost
            table.add([
                result.run.name, result.bodies, decimalText(cost.messagesPerFrame, places: 1),
                cost.bytesPerBodyByte.map { decimalText($0, places: 2) } ?? "-",
                decimalText(cost.syncsPer1000, places: 1), "\(cost.lmdbCommits)",
                decimalText(cost.wakeUpsPer1000, places: 1), timeText(nanoseconds: cost.cpuMicros * 1000),
                sizeText(cost.anonymousBytes),
            ])
        }
        return table
    }
}
