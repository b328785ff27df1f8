import Glibc
import StalkCore
import StalkFiles
import StalkLog
import StalkTesting
import Testing

@Suite struct DamageTests {
    /// Whether every bit is flipped, or one of each byte: STALK_ALL_FLIPS=1 asks for all 524,288.
    private static let flipsPerByte = environmentNumber("STALK_ALL_FLIPS") == 1 ? 8 : 1
    private static let parts = 8
    /// How many segments of 64 KiB are flipped through: STALK_FLIP_SEGMENTS=128 asks for 8 MiB of log.
    private static let segments = environmentNumber("STALK_FLIP_SEGMENTS") ?? 1

    /// A segment of frames that are all synced, some of them small, and some room behind them; of which sizes, is chosen
    /// for the first and by chance for the others.
    private func fullSegment(_ index: Int = 0) throws -> ScriptedLog {
        var log = try ScriptedLog()
        guard index > 0 else {
            for count in [0, 3, 8, 100, 2000, 4032, 6000, 8193, 1, 12_000, 16_000, 13_000] {
                try log.append(bytes: count)
            }
            return log
        }
        var generator = SeededGenerator(seed: UInt64(index))
        var room = ScriptedLog.segmentBytes
        while true {
            let most = Int.random(in: 1...5, using: &generator)
            let count = Int.random(in: 0..<[10, 100, 1000, 8000, 16_000][most - 1], using: &generator)
            room -= (FrameHeader.byteCount + count + 7) & ~7
            guard room >= 0 else { return log }
            try log.append(bytes: count)
        }
    }

    @Test(
        "A flipped bit is harmless, is named as damage, or costs the last frame alone",
        arguments: 0..<parts * segments
    )
    func bitFlips(part number: Int) throws {
        let part = number % Self.parts
        let log = try self.fullSegment(number / Self.parts)
        let last = log.writer.writtenThrough
        let ranges = try (1...last).map { sequence in
            let place = try log.place(sequence)
            return place.offset..<place.offset + FrameHeader.byteCount + log.content(sequence).count
        }
        let partBytes = ScriptedLog.segmentBytes / Self.parts
        for byte in part * partBytes..<(part + 1) * partBytes {
            for index in 0..<Self.flipsPerByte {
                let bit = byte * 8 + (byte &* 5 + index) % 8
                log.flip(1, bit: bit)
                let reading = try log.read()
                log.flip(1, bit: bit)
                let hit = ranges.firstIndex { $0.contains(byte) }.map { UInt64($0) + 1 }
                // Checked by hand: expectations are dear in a loop of this length.
                if let complaint = Self.complaint(about: reading, hit: hit, last, try hit.map(log.place)) {
                    Issue.record("bit \(bit): \(complaint)")
                    return
                }
            }
        }
    }

    /// What is wrong with a reading of frames up to `last` when the frame `hit` was damaged.
    private static func complaint(
        about reading: ScriptedLog.Reading,
        hit: UInt64?,
        _ last: UInt64,
        _ place: LogPlace?
    ) -> String? {
        guard reading.wrong == [] else { return "frames \(reading.wrong) came back with other bytes" }
        guard reading.frames == (1...last).filter({ $0 != hit }) else { return "only \(reading.frames) came back" }
        let damage = reading.summary?.damage ?? []
        guard let hit else { return damage == [] ? nil : "unused space was taken for damage: \(damage)" }
        if hit == last, damage == [] { return nil }
        return damage.map(\.place) == [place] ? nil : "frame \(hit) was hit, but \(damage) is reported"
    }

    @Test("The damage test notices a reader that does not look at checksums")
    func bitFlipControl() throws {
        let log = try self.fullSegment()
        let place = try log.place(5)
        log.flip(1, bit: (place.offset + 100) * 8)
        let size = FrameHeader.byteCount + log.content(5).count
        var frame = try log.disk.open(Segment.path(1), .readOnly).read(at: place.offset, count: size)
        let checksum = frame.withUnsafeBytes { Checksum.ofFrame($0) }
        withUnsafeBytes(of: checksum.littleEndian) { frame.replaceSubrange(8..<12, with: $0) }
        log.disk.damage(Segment.path(1), at: place.offset, with: frame)
        let complaint = Self.complaint(about: try log.read(), hit: 5, log.writer.writtenThrough, place)
        #expect(complaint == "frames [5] came back with other bytes")
    }

    @Test(
        "A length of gigabytes in a header is damage of that frame alone",
        arguments: [0x7FFF_FFFF, 0x8000_0000, .max] as [UInt32],
        [1, 5] as [UInt64]
    )
    func lengthOfGigabytes(length: UInt32, frame: UInt64) throws {
        let log = try self.fullSegment()
        let place = try log.place(frame)
        let bytes = withUnsafeBytes(of: length.littleEndian) { Array($0) }
        log.disk.damage(Segment.path(1), at: place.offset + 4, with: bytes)
        #expect(Self.complaint(about: try log.read(), hit: frame, log.writer.writtenThrough, place) == nil)
    }

    /// Three segments, the last of them half full; every frame is synced.
    private func threeSegments() throws -> ScriptedLog {
        var log = try ScriptedLog()
        for segment in 1...3 {
            if segment > 1 { try log.roll() }
            for _ in 0..<(segment == 3 ? 5 : 10) { try log.append(bytes: 6000) }
        }
        return log
    }

    @Test("A segment that is cut off at any sector loses nothing in silence", arguments: 1...3 as ClosedRange<UInt64>)
    func truncation(segment: UInt64) throws {
        let whole = try self.threeSegments()
        let last = whole.writer.writtenThrough
        for size in stride(from: 0, to: ScriptedLog.segmentBytes, by: 512) {
            let log = whole.copy()
            log.disk.truncate(Segment.path(segment), to: size)
            let reading = try log.read()
            let missing = (1...last).filter { !reading.frames.contains($0) }
            let isNamed = reading.summary?.damage.isEmpty == false
            #expect(reading.wrong == [], "size \(size)")
            #expect(reading.frames == (1...last).filter { !missing.contains($0) }, "size \(size)")
            // In the last segment, frames that stand can only vouch for what is before them. Still, a cut shows in the size
            // of the file, unless it is one that a segment could have.
            let firstFrame = 6064
            let isSilent = segment == 3 && (size.isMultiple(of: Segment.sizeUnit) || size < firstFrame)
            #expect(missing.isEmpty || isNamed || isSilent, "size \(size): \(missing) are missing")
        }
    }

    @Test("A segment that is cut off in the bytes between two frames has no more damage than bytes", arguments: 1...7)
    func truncationBetweenFrames(kept: Int) throws {
        var log = try ScriptedLog()
        try log.append(bytes: 8)
        try log.append(bytes: 1)
        let place = try log.place(2)
        let size = place.offset + FrameHeader.byteCount + kept
        log.disk.truncate(Segment.path(1), to: size)
        let reading = try log.read()
        #expect(reading.frames == [1, 2])
        let damage = try #require(reading.summary?.damage.first)
        #expect(damage.place == LogPlace(segment: 1, offset: size))
        #expect(damage.bytes == 0)
    }

    @Test(
        "A lost sector or page is harmless, is named, or costs the last frames alone, if it took them",
        arguments: 1...3 as ClosedRange<UInt64>,
        [512, 4096]
    )
    func lostSectors(segment: UInt64, size: Int) throws {
        let whole = try self.threeSegments()
        let last = whole.writer.writtenThrough
        for offset in stride(from: 0, to: ScriptedLog.segmentBytes, by: size) {
            let log = whole.copy()
            log.erase(segment, from: offset, bytes: size)
            let reading = try log.read()
            let hit = try (1...last).filter { sequence in
                let place = try log.place(sequence)
                return place.segment == segment && (place.offset..<place.offset + 6064).overlaps(offset..<offset + size)
            }
            #expect(reading.wrong == [], "offset \(offset)")
            #expect(reading.frames == (1...last).filter { !hit.contains($0) }, "offset \(offset)")
            let isNamed = reading.summary?.damage.isEmpty == false
            #expect(isNamed == !(hit.isEmpty || hit.last == last), "offset \(offset)")
        }
    }

    @Test("Reading damage changes nothing")
    func readingChangesNothing() throws {
        let log = try self.threeSegments()
        log.damage(3)
        let changes = log.disk.changes
        let before = (1...3).map { log.disk.contents(of: Segment.path($0)) }
        _ = try log.read()
        #expect(log.disk.changes == changes)
        #expect((1...3).map { log.disk.contents(of: Segment.path($0)) } == before)
    }

    @Test("No more bytes are torn than there are, wherever the segment is cut off", arguments: 1...7)
    func truncationOfTornTail(kept: Int) throws {
        var log = try ScriptedLog()
        try log.append(bytes: 8, sync: false)
        try log.append(bytes: 1, sync: false)
        log.damage(1, byte: FrameHeader.byteCount)
        let size = try log.place(2).offset + FrameHeader.byteCount + kept
        log.disk.truncate(Segment.path(1), to: size)
        let summary = try #require(try log.read().summary)
        #expect(summary.lastSequence == 0)
        #expect(summary.tornBytes == size)
    }
}
