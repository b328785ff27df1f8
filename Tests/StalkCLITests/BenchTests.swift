import Foundation
import StalkCore
import StalkFiles
import StalkLog
import Subprocess
import Testing

@testable import StalkCLI

/// `stalk bench` and what it measures with.
@Suite("Bench", .timeLimit(.minutes(10)))
struct BenchTests {
    @Test("Reports runs and ceilings as JSON, and leaves nothing behind")
    func reportsAsJSON() async throws {
        try await withTemporaryDirectory { directory in
            let outcome = try await Tool.run(
                ["bench", "--json", "--time", "20ms", "--bodies", "random", "--only", "life-1", "--only", "single"],
                store: directory + "/store"
            )
            #expect(outcome.status == .exited(0), "\(outcome.errors)")
            let report = try #require(
                try JSONSerialization.jsonObject(with: Data(outcome.output)) as? [String: Any]
            )
            let results = try #require(report["results"] as? [[String: Any]])
            #expect(results.compactMap { $0["run"] as? String } == ["life-1", "single"])
            for result in results {
                for key in ["messagesPerSecond", "bareLogPerSecond", "syncedWritesPerSecond", "syncsPer1000"] {
                    #expect(try #require(result[key] as? NSNumber).doubleValue > 0, "\(key)")
                }
                let messages = try #require(result["messages"] as? Int)
                #expect(messages > 0)
            }
            // One caller that waits for each message can't share a sync.
            let syncs = try #require(results[1]["syncsPer1000"] as? NSNumber).doubleValue
            #expect(syncs >= 1000)
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == [])
        }
    }

    @Test("Prints a table with a row for each run")
    func printsTable() async throws {
        try await withTemporaryDirectory { directory in
            let outcome = try await Tool.run(
                ["bench", "--time", "20ms", "--bodies", "random", "--only", "written-1"],
                store: directory + "/store"
            )
            #expect(outcome.status == .exited(0), "\(outcome.errors)")
            #expect(outcome.lines.count { $0.hasPrefix("written-1  random") } == 2)
            #expect(outcome.text.hasPrefix("disk: "))
        }
    }

    @Test("Measures a backlog and a schedule, and leaves nothing behind")
    func backlogAndSchedule() async throws {
        try await withTemporaryDirectory { directory in
            let outcome = try await Tool.run(
                ["bench", "--json", "--time", "50ms", "--backlog", "2000", "--scheduled", "2000"],
                store: directory + "/store"
            )
            #expect(outcome.status == .exited(0), "\(outcome.errors)")
            let report = try #require(
                try JSONSerialization.jsonObject(with: Data(outcome.output)) as? [String: [String: Any]]
            )
            let backlog = try #require(report["backlog"])
            for key in ["fillPerSecond", "lmdbBytes", "openedCleanSeconds", "openedKilledSeconds", "replayedRecords"] {
                #expect(try #require(backlog[key] as? NSNumber).doubleValue > 0, "\(key)")
            }
            for key in ["quiet", "burst"] {
                let lateness = try #require(report["scheduled"]?[key] as? [String: Any])
                #expect(try #require(lateness["messages"] as? Int) > 0)
                #expect(lateness["early"] as? Int == 0)
            }
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == [])
        }
    }

    @Test("A run that there is not is refused, naming those there are")
    func unknownRun() async throws {
        let outcome = try await Tool.run("bench", "--only", "fastest")
        #expect(outcome.status == .exited(2))
        #expect(outcome.errors.contains("publish-1, publish-100, life-1"))
    }

    @Test("Quantiles are right to a hundredth or two, over the whole range")
    func quantiles() {
        var histogram = LatencyHistogram()
        #expect(histogram.quantile(0.5) == 0)
        for value in 1...100_000 { histogram.record(Int64(value) * 1000) }
        for (share, expected) in [(0.5, 5e7), (0.99, 9.9e7), (0.999, 9.99e7), (0.001, 1e5)] {
            #expect(abs(histogram.quantile(share) / expected - 1) < 0.016, "\(share)")
        }
        var other = LatencyHistogram()
        other.record(.max)
        other.record(-1)
        histogram.merge(other)
        #expect(histogram.count == 100_002)
        #expect(abs(histogram.quantile(1) / 9.22e18 - 1) < 0.016)
        #expect(histogram.quantile(0) == 0)
    }

    @Test("What the bare log writes is a log that the reader accepts")
    func bareLogIsALog() async throws {
        try await withTemporaryDirectory { path in
            let directory = try RealDirectory(path: path, createIfMissing: true)
            let size = 256 << 10
            let frames = try await BareLog.with(in: directory, durability: .synced, segmentBytes: size) { log in
                for _ in 0..<40 {
                    let sequences = try await log.publish([[UInt8](repeating: 7, count: 10_000)])
                    try await log.take(sequences)
                    try await log.acknowledge(sequences)
                }
                return log.frames
            }
            #expect(frames == 120)
            // Forty bodies fill one segment of 256 KiB and most of a second.
            let first = try directory.open(Segment.path(1), .readOnly).read(at: 0, count: size)
            let header = first.withUnsafeBytes { FrameHeader.read($0, segment: 1, store: 1)?.header }
            #expect(try #require(header).sequence == 1)
            let second = try directory.open(Segment.path(2), .readOnly).read(at: 0, count: size)
            let rolled = second.withUnsafeBytes { FrameHeader.read($0, segment: 2, store: 1)?.header }
            #expect(try #require(rolled).syncedThrough == #require(rolled).sequence - 1)
        }
    }

    @Test("Made-up records resemble the real ones in size")
    func madeUpRecords() {
        let records = BenchBodies.madeUpRecords(500)
        let mean = Double(records.reduce(0) { $0 + $1.count }) / 500
        #expect(mean > 650 && mean < 950, "\(mean)")
        #expect(Set(records).count == 500)
    }

    @Test("Numbers are rounded and grouped")
    func numbers() {
        #expect(decimalText(1.005, places: 0) == "1")
        #expect(decimalText(-0.04, places: 1) == "0.0")
        #expect(decimalText(-2.55, places: 1) == "-2.6" || decimalText(-2.55, places: 1) == "-2.5")
        #expect(decimalText(12.0349, places: 3) == "12.035")
        #expect(decimalText(.nan, places: 2) == "0")
        #expect(groupedText(1_234_567.4) == "1,234,567")
        #expect(groupedText(999) == "999")
        #expect(timeText(nanoseconds: 84_240) == "84.2 us")
        #expect(timeText(nanoseconds: 1_250_000) == "1.25 ms")
    }
}
