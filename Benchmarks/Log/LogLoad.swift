// What the log's bytes are put through.

import Benchmark
import BenchmarkSupport
import StalkCore
import StalkFiles
import StalkLog

/// Publish records with bodies of about 790 bytes, in frames as one group commit after the other would make them.
struct LogLoad: Sendable {
    private static let store: UInt64 = 1
    private static let segment: UInt64 = 1

    private let records: [PublishRecord]

    init(messages: Int) {
        let bodies = Records.text(messages)
        self.records = zip(UInt64(1)..., bodies).map { sequence, body in
            PublishRecord(
                sequence: sequence,
                queue: 1,
                publishedAt: 1_700_000_000_000,
                dueAt: 1_000_000,
                isScheduled: false,
                headers: [:],
                body: body
            )
        }
    }

    /// Writes records into frames and seals these; the memory of a frame is used again, as the engine does.
    func encode(_ perFrame: Int, _ benchmark: Benchmark) throws {
        var bytes = 0
        try benchmark.count(messages: self.records.count) {
            self.forEachFrame(of: perFrame) { header, _ in bytes += header.paddedBytes }
        }
        benchmark.measurement(.logBytes, bytes / self.records.count)
    }

    /// Checks frames and reads their records.
    func decode(_ perFrame: Int, _ benchmark: Benchmark) throws {
        var frames: [[UInt8]] = []
        var bytes = 0
        self.forEachFrame(of: perFrame) { header, frame in
            frames.append(frame)
            bytes += header.paddedBytes
        }
        var found = 0
        try benchmark.count(messages: self.records.count) {
            for frame in frames { found += try Self.recordCount(of: frame) }
        }
        try self.check(found)
        benchmark.measurement(.logBytes, bytes / self.records.count)
    }

    /// Reads a segment as opening a store does: from a file, frame by frame, record by record.
    func readSegment(perFrame: Int, _ benchmark: Benchmark) throws {
        try withScratchDirectory { path in
            let directory = try RealDirectory(path: path, createIfMissing: true)
            let bytes = try self.writeSegment(perFrame: perFrame, in: directory)
            let reader = LogReader(directory: directory, store: Self.store, settled: 0, fromDisk: false)
            var found = 0
            try benchmark.count(messages: self.records.count) {
                let summary = try reader.read { damage throws(StalkError) in
                    throw StalkError(.storeDamaged, "\(damage.place): \(damage.what)")
                } _: { frame throws(StalkError) in
                    try frame.forEachRecord { _ in found += 1 }
                }
                guard summary.tornBytes == 0 else {
                    throw Mismatch("\(summary.tornBytes) bytes of a whole log are torn")
                }
            }
            try self.check(found)
            benchmark.measurement(.logBytes, bytes / self.records.count)
        }
    }

    private func writeSegment(perFrame: Int, in directory: RealDirectory) throws -> Int {
        try directory.makeDirectory(Segment.directory)
        let file = try directory.open(Segment.path(Self.segment), .new)
        try file.fillWithZeros(16 << 20)
        var writer = LogWriter(store: Self.store, segment: Segment(number: Self.segment, file: file), after: 0)
        var bytes = 0
        var frames: [[UInt8]] = []
        self.forEachFrame(of: perFrame) { header, frame in
            frames.append(frame)
            bytes += header.paddedBytes
        }
        for (index, frame) in frames.enumerated() {
            var frame = frame
            try writer.append(&frame, sequence: UInt64(index + 1), storeTime: 1, rollingTo: nil)
        }
        try writer.sync()
        return bytes
    }

    private func forEachFrame(of perFrame: Int, _ body: (FrameHeader, [UInt8]) -> Void) {
        var memory: [UInt8] = []
        var number: UInt64 = 0
        for first in stride(from: 0, to: self.records.count, by: perFrame) {
            var writer = ByteWriter(reusing: memory)
            writer.writeZeros(FrameHeader.byteCount)
            for record in self.records[first..<min(first + perFrame, self.records.count)] {
                LogRecord.publish(record).write(to: &writer)
            }
            number += 1
            memory = writer.take()
            let header = Self.header(number, payloadBytes: memory.count - FrameHeader.byteCount)
            header.seal(&memory)
            body(header, memory)
        }
    }

    private static func header(_ number: UInt64, payloadBytes: Int) -> FrameHeader {
        FrameHeader(
            payloadBytes: payloadBytes,
            segment: Self.segment,
            sequence: number,
            syncedThrough: number - 1,
            storeTime: 1,
            store: Self.store
        )
    }

    private static func recordCount(of bytes: [UInt8]) throws -> Int {
        let header = bytes.withUnsafeBytes { bytes in
            FrameHeader.isIntact(bytes)
                ? FrameHeader.read(bytes, segment: Self.segment, store: Self.store)?.header : nil
        }
        guard let header else { throw Mismatch("A frame that was just made can't be read") }
        let frame = Frame(
            header: header,
            payload: Array(bytes[FrameHeader.byteCount...]),
            place: LogPlace(segment: Self.segment, offset: 0)
        )
        var count = 0
        try frame.forEachRecord { _ in count += 1 }
        return count
    }

    private func check(_ found: Int) throws {
        guard found == self.records.count else {
            throw Mismatch("\(self.records.count) records were written, \(found) were read")
        }
    }
}
