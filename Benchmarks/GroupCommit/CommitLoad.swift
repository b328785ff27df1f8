// What group commit is put through.

import Benchmark
import BenchmarkSupport
import StalkCore
import StalkFiles
import StalkLog

/// Groups of callers, each with a batch, one group after the other.
struct CommitLoad: Sendable {
    private static let segmentBytes = 8 << 20

    private let bodies = Records.text(1_024)

    /// Stages what all callers of a group publish, writes it as one frame and syncs it, as the log's thread does.
    ///
    /// Segments are prepared before, so that only the frames are counted.
    func commit(callers: Int, batch: Int, groups: Int, _ benchmark: Benchmark) throws {
        try withScratchDirectory { path in
            let directory = try RealDirectory(path: path, createIfMissing: true)
            let segments = try Self.prepareSegments(3, in: directory)
            var log = Log(segments: segments, capacity: Self.segmentBytes)
            try benchmark.count(messages: callers * batch * groups) {
                for _ in 0..<groups {
                    for _ in 0..<callers { log.stage(self.bodies, count: batch) }
                    try log.commit()
                }
            }
            guard log.messages == callers * batch * groups else {
                throw Mismatch("\(log.messages) messages were staged")
            }
        }
    }

    private static func prepareSegments(_ count: UInt64, in directory: RealDirectory) throws -> [Segment] {
        try directory.makeDirectory(Segment.directory)
        return try (1...count).map { number in
            let file = try directory.open(Segment.path(number), .new)
            try file.fillWithZeros(Self.segmentBytes)
            return Segment(number: number, file: file)
        }
    }
}

/// A log with a frame that gathers.
private struct Log {
    private var segments: ArraySlice<Segment>
    private let capacity: Int
    private var writer: LogWriter
    private var room: Int
    private var staging = ByteWriter(reserving: 1 << 20)
    private(set) var messages = 0

    init(segments: [Segment], capacity: Int) {
        self.segments = segments.dropFirst()
        self.capacity = capacity
        self.room = capacity
        self.writer = LogWriter(store: 1, segment: segments[0], after: 0)
        self.staging.writeZeros(FrameHeader.byteCount)
    }

    mutating func stage(_ bodies: [[UInt8]], count: Int) {
        for _ in 0..<count {
            let record = PublishRecord(
                sequence: UInt64(self.messages + 1),
                queue: 1,
                publishedAt: 1_700_000_000_000,
                dueAt: 1_000_000,
                isScheduled: false,
                headers: [:],
                body: bodies[self.messages % bodies.count]
            )
            LogRecord.publish(record).write(to: &self.staging)
            self.messages += 1
        }
    }

    mutating func commit() throws {
        var frame = self.staging.take()
        let padded = (frame.count + 7) & ~7
        let next = padded > self.room ? self.segments.popFirst() : nil
        if padded > self.room {
            guard next != nil else { throw Mismatch("More is written than segments were prepared for") }
            self.room = self.capacity
        }
        self.room -= padded
        let sequence = self.writer.writtenThrough + 1
        try self.writer.append(&frame, sequence: sequence, storeTime: 1, rollingTo: next)
        try self.writer.sync()
        self.staging = ByteWriter(reusing: frame)
        self.staging.writeZeros(FrameHeader.byteCount)
    }
}
