// The ceiling of everything that is synced: what one write and one fdatasync cost on this disk.

internal import StalkCore
internal import StalkFiles
internal import StalkLog

/// Writes 4 KiB and syncs it, over and over, on a segment whose blocks were written before.
struct DiskProbe {
    private static let block = 4096

    private let file: any StorageFile
    private let size: Int
    private var offset = 0

    init(in directory: RealDirectory, segmentBytes: Int) throws(StalkError) {
        self.file = try directory.open("probe", .new)
        self.size = segmentBytes
        try self.file.fillWithZeros(segmentBytes)
    }

    /// Writes and syncs for a while, after a short warm-up, on a thread that may block.
    static func measure(
        in directory: RealDirectory,
        segmentBytes: Int,
        for duration: Duration
    ) async throws -> LoadResult {
        let outcome = await BlockingLane(label: "stalk.bench").run {
            Result {
                var probe = try DiskProbe(in: directory, segmentBytes: segmentBytes)
                _ = try probe.run(for: duration / 4)
                return try probe.run(for: duration)
            }
        }
        return try outcome.get()
    }

    private mutating func run(for duration: Duration) throws(StalkError) -> LoadResult {
        var result = LoadResult()
        let block = (0..<Self.block).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let start = monotonicNanoseconds()
        var now = start
        while now < start + duration.nanoseconds {
            try self.file.write(block, at: self.offset)
            try self.file.sync()
            self.offset = (self.offset + Self.block) % self.size
            let finished = monotonicNanoseconds()
            result.latency.record(finished - now)
            result.calls += 1
            now = finished
        }
        result.messages = result.calls
        result.seconds = Double(now - start) / 1e9
        return result
    }
}
