// The log: files of any bytes, and files of frames in any order whose checksums hold.

import StalkFiles
import StalkTesting

@testable import StalkCore
@testable import StalkLog

/// Reads two segments of any bytes and compares what comes out with what a search for whole frames finds.
struct LogFuzzer: Fuzzer {
    private static let store: UInt64 = 7
    /// More than that makes runs slow and finds nothing new.
    private static let inputBytesMax = 16 << 10

    /// Whether the input is made into frames first, so that what lies behind the checksum is reached.
    let reseals: Bool

    var name: String { self.reseals ? "log-resealed" : "log" }

    func complaint(about input: [UInt8], isPlanted: Bool) -> String? {
        var choices = Choices(Array(input.prefix(Self.inputBytesMax)))
        let settled = UInt64(choices.next() % 16)
        let shape = choices.next()
        var files = Self.files(choices.remaining, shape)
        if self.reseals {
            for index in files.indices { Self.reseal(&files[index], segment: UInt64(index + 1)) }
        }
        do {
            let disk = try Self.disk(files)
            let whole = files.enumerated().flatMap { FoundFrame.all(in: $1, segment: UInt64($0 + 1), Self.store) }
            let first = Self.read(disk, settled: settled, skipsChecksums: isPlanted)
            let second = Self.read(disk, settled: settled, skipsChecksums: isPlanted)
            guard first == second else { return "reading twice gave two results" }
            return first.complaint(settled: settled, whole: whole, bytes: files.reduce(0) { $0 + $1.count })
        } catch {
            return "the simulated disk failed: \(error)"
        }
    }

    /// One or two files, of the input's size or filled up to a size that a segment can have.
    private static func files(_ bytes: [UInt8], _ shape: Int) -> [[UInt8]] {
        let cut = shape & 1 == 0 ? bytes.count : bytes.count / 2 & ~7
        var files = [Array(bytes[..<cut]), Array(bytes[cut...])].filter { !$0.isEmpty }
        if shape & 2 != 0 {
            for index in files.indices {
                let size = (files[index].count / Segment.sizeUnit + 1) * Segment.sizeUnit
                files[index] += [UInt8](repeating: 0, count: size - files[index].count)
            }
        }
        return files
    }

    private static func disk(_ files: [[UInt8]]) throws -> SimulatedDisk {
        let disk = SimulatedDisk()
        try disk.makeDirectory(Segment.directory)
        for (index, bytes) in files.enumerated() {
            let file = try disk.open(Segment.path(UInt64(index + 1)), .new)
            try bytes.withUnsafeBytes { try file.write($0, at: 0) }
            try file.sync()
        }
        try disk.sync(Segment.directory)
        return disk
    }

    /// Makes frames out of any bytes.
    ///
    /// The numbers of each are taken from where a header has them, brought down to a few, and sealed. The bytes that a
    /// header leaves unused say what else happens to it.
    private static func reseal(_ file: inout [UInt8], segment: UInt64) {
        var offset = 0
        while offset + FrameHeader.byteCount <= file.count {
            let head = Array(file[offset..<offset + FrameHeader.byteCount])
            let fate = Int(head[14])
            let room = min(file.count - offset - FrameHeader.byteCount, 2047)
            let payload = (Int(head[4]) | Int(head[5]) << 8) % (room + 1)
            let end = offset + FrameHeader.byteCount + payload
            var frame = Array(file[offset..<end])
            let header = FrameHeader(
                payloadBytes: payload,
                segment: fate & 1 == 0 ? segment : UInt64(head[16] % 4),
                sequence: UInt64(head[24] % 32),
                syncedThrough: UInt64(head[32] % 32),
                storeTime: Int64(Int8(bitPattern: head[40])),
                store: fate & 2 == 0 ? Self.store : UInt64(head[48])
            )
            header.seal(&frame)
            if fate & 4 != 0 { frame[Int(head[56]) % frame.count] ^= 1 << (head[57] % 8) }
            file.replaceSubrange(offset..<end, with: frame)
            offset += header.paddedBytes + (fate & 8 != 0 ? 64 : 0)
        }
    }

    private static func read(_ disk: SimulatedDisk, settled: UInt64, skipsChecksums: Bool) -> LogReading {
        var reading = LogReading()
        if skipsChecksums {
            reading.frames = Self.framesWithoutChecksums(disk, settled)
            return reading
        }
        let reader = LogReader(directory: disk, store: Self.store, settled: settled, fromDisk: false)
        do throws(StalkError) {
            let summary = try reader.read { damage in
                reading.damage.append(damage)
                reading.jumps.append(reading.frames.count)
            } _: { frame in
                reading.frames.append(FoundFrame(frame))
                // Records are another fuzzer's; here they must not crash.
                do throws(StalkError) { try frame.forEachRecord { _ in } } catch {}
            }
            reading.summary = summary
            if let end = summary.end { _ = try reader.isClean(behind: end) }
        } catch {
            reading.refusal = error.code
        }
        return reading
    }

    /// The planted bug: a reader that believes every header.
    private static func framesWithoutChecksums(_ disk: SimulatedDisk, _ settled: UInt64) -> [FoundFrame] {
        var found: [FoundFrame] = []
        var offset = 0
        let bytes = disk.contents(of: Segment.path(1)) ?? []
        while offset + FrameHeader.byteCount <= bytes.count {
            let rest = Array(bytes[offset...])
            guard let header = rest.withUnsafeBytes({ FrameHeader.read($0, segment: 1, store: Self.store)?.header }),
                FrameHeader.byteCount + header.payloadBytes <= rest.count
            else { break }
            let payload = Array(rest[FrameHeader.byteCount..<FrameHeader.byteCount + header.payloadBytes])
            let place = LogPlace(segment: 1, offset: offset)
            if header.sequence > settled {
                found.append(FoundFrame(Frame(header: header, payload: payload, place: place)))
            }
            offset += header.paddedBytes
        }
        return found
    }
}

/// What reading gave.
private struct LogReading: Equatable {
    var frames: [FoundFrame] = []
    var damage: [LogDamage] = []
    /// How many frames came before each damage.
    var jumps: [Int] = []
    var summary: LogSummary?
    var refusal: StalkError.Code?

    /// What is wrong with it, if anything.
    func complaint(settled: UInt64, whole: [FoundFrame], bytes: Int) -> String? {
        if let refusal = self.refusal, refusal != .newerFormat { return "reading threw \(refusal)" }
        var last = settled
        for (index, frame) in self.frames.enumerated() {
            guard whole.contains(frame) else { return "frame \(frame.sequence) does not stand in the files like that" }
            guard frame.sequence > last else { return "frame \(frame.sequence) came behind \(last)" }
            guard frame.sequence == last + 1 || self.jumps.contains(index) else {
                return "frame \(frame.sequence) came behind \(last), and no damage was named"
            }
            last = frame.sequence
        }
        guard let summary = self.summary else { return nil }
        guard summary.frames == self.frames.count else { return "\(summary.frames) frames are counted" }
        guard summary.lastSequence == last else { return "the last frame is said to be \(summary.lastSequence)" }
        guard (0...bytes).contains(summary.tornBytes) else { return "\(summary.tornBytes) of \(bytes) bytes are torn" }
        guard summary.damage == self.damage else { return "not all damage was handed over" }
        for damage in self.damage where damage.bytes < 0 || damage.place.offset < 0 || damage.place.offset > bytes {
            return "damage of \(damage.bytes) bytes at \(damage.place)"
        }
        return nil
    }
}

/// A whole frame, as a search of its own finds it.
private struct FoundFrame: Hashable {
    var segment: UInt64
    var offset: Int
    var sequence: UInt64
    var payload: [UInt8]

    init(_ frame: Frame) {
        self.segment = frame.place.segment
        self.offset = frame.place.offset
        self.sequence = frame.header.sequence
        self.payload = frame.payload
    }

    private init(segment: UInt64, offset: Int, sequence: UInt64, payload: [UInt8]) {
        self.segment = segment
        self.offset = offset
        self.sequence = sequence
        self.payload = payload
    }

    /// All whole frames of a segment, by docs/format.md and without the reader's code.
    static func all(in file: [UInt8], segment: UInt64, _ store: UInt64) -> [FoundFrame] {
        func number(_ offset: Int, _ size: Int) -> UInt64 {
            file[offset..<offset + size].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        return stride(from: 0, through: file.count - 64, by: 8).compactMap { offset in
            guard Array(file[offset..<offset + 4]) == Array("STKF".utf8), number(offset + 16, 8) == segment,
                number(offset + 48, 8) == store
            else { return nil }
            let payload = Int(number(offset + 4, 4))
            guard payload <= file.count - offset - 64 else { return nil }
            let end = offset + 64 + payload
            let covered = [file[offset..<offset + 8], file[offset + 12..<end]].joined()
            guard number(offset + 8, 4) == UInt64(Checksum.crc32c(covered)) else { return nil }
            return FoundFrame(
                segment: segment,
                offset: offset,
                sequence: number(offset + 24, 8),
                payload: Array(file[offset + 64..<end])
            )
        }
    }
}

/// CRC-32C once more, from a table, so that the search does not share the reader's.
private enum Checksum {
    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { value, _ in value & 1 == 0 ? value >> 1 : value >> 1 ^ 0x82F6_3B78 }
    }

    static func crc32c(_ bytes: some Sequence<UInt8>) -> UInt32 {
        ~bytes.reduce(UInt32.max) { $0 >> 8 ^ Self.table[Int(UInt8(truncatingIfNeeded: $0) ^ $1)] }
    }
}
