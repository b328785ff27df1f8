import StalkCore
import StalkFiles
import StalkLog
import StalkTesting
import Testing

@Suite struct LogReaderTests {
    @Test("An empty log has no frames, and the next one is the first")
    func emptyLog() throws {
        let disk = SimulatedDisk()
        let reader = LogReader(directory: disk, store: 1, settled: 0, fromDisk: true)
        let summary = try reader.read(onDamage: { _ in }, { _ in })
        #expect(summary.lastSequence == 0)
        #expect(summary.lastSegment == 0)
        #expect(summary.frames == 0)
    }

    @Test("Frames come back in order, across segments, and the summary counts them")
    func readsAll() throws {
        var log = try ScriptedLog()
        try log.append(frames: 5)
        try log.roll()
        try log.append(frames: 5)
        let reading = try log.read(fromDisk: true)
        #expect(reading.frames == Array(1...10))
        #expect(reading.wrong == [])
        let summary = try #require(reading.summary)
        #expect(summary.frames == 10)
        #expect(summary.lastSequence == 10)
        #expect(summary.lastSegment == 2)
        #expect(summary.storeTime == 10)
        #expect(summary.liveSegments == [1, 2])
        #expect(summary.tornBytes == 0)
        #expect(summary.damage == [])
    }

    @Test(
        "What is settled is passed over, and only the segments behind it are live",
        arguments: 0...10 as ClosedRange<UInt64>
    )
    func passesOverSettled(settled: UInt64) throws {
        var log = try ScriptedLog()
        try log.append(frames: 5)
        try log.roll()
        try log.append(frames: 5)
        let reading = try log.read(settled: settled)
        #expect(reading.frames == Array((1...11).dropFirst(Int(settled)).dropLast()))
        #expect(reading.summary?.liveSegments == (settled < 5 ? [1, 2] : settled < 10 ? [2] : []))
        #expect(reading.summary?.storeTime == 10)
    }

    @Test("A log whose older segments were used again begins in the middle")
    func beginsInTheMiddle() throws {
        var log = try ScriptedLog()
        try log.append(frames: 5)
        try log.roll()
        try log.append(frames: 5)
        try log.disk.remove(Segment.path(1))
        #expect(try log.read(settled: 7).frames == [8, 9, 10])
    }

    @Test(
        "Other files in the log's directory are left alone",
        arguments: ["notes.txt", "+000000000000002.log", "000000000000000A.log"]
    )
    func foreignFiles(name: String) throws {
        var log = try ScriptedLog()
        try log.append()
        _ = try log.disk.open("\(Segment.directory)/\(name)", .new)
        #expect(try log.read().frames == [1])
        #expect(Segment.number(inName: name) == nil)
    }

    // MARK: Torn tails

    @Test("A torn tail is reported with its size, all of it")
    func tornTail() throws {
        var log = try ScriptedLog()
        try log.append(frames: 3)
        try log.append(frames: 3, sync: false)
        let whole = 1064
        log.damage(6)
        #expect(try log.read().frames == [1, 2, 3, 4, 5])
        #expect(try log.read().summary?.tornBytes == whole)
        log.damage(4)
        #expect(try log.read().frames == [1, 2, 3])
        #expect(try log.read().summary?.tornBytes == 3 * whole)
        #expect(try log.read().summary?.damage == [])
    }

    @Test("A new life goes on behind a torn tail, whose later frames stay dead")
    func deadFrames() throws {
        var log = try ScriptedLog()
        try log.append(frames: 3)
        try log.append(frames: 3, sync: false)
        log.damage(4)
        try log.reopen(after: 3)
        try log.append(frames: 4)
        let reading = try log.read()
        #expect(reading.frames == Array(1...7))
        #expect(reading.wrong == [])
        #expect(reading.summary?.damage == [])
        #expect(reading.summary?.tornBytes == 0)
    }

    @Test("Dead frames stay dead when a checkpoint has passed them and their successors are gone")
    func deadFramesBehindSettled() throws {
        var log = try ScriptedLog()
        try log.append(frames: 3)
        try log.append(frames: 3, sync: false)
        log.damage(4)
        try log.reopen(after: 3)
        try log.append(frames: 2)
        // Frames 4 and 5 of the second life are settled and their segment is gone; frame 6 was never written again.
        try log.disk.remove(Segment.path(2))
        let reading = try log.read(settled: 5)
        #expect(reading.frames == [])
        #expect(reading.summary?.lastSequence == 5)
    }

    // MARK: Damage

    @Test("Damage of what is settled costs nothing", arguments: 1...5 as ClosedRange<UInt64>)
    func damageOfSettled(sequence: UInt64) throws {
        var log = try ScriptedLog()
        try log.append(frames: 8)
        log.damage(sequence)
        let reading = try log.read(settled: 5)
        #expect(reading.frames == [6, 7, 8])
        #expect(reading.wrong == [])
        #expect(reading.summary?.damage == [])
        #expect(reading.summary?.tornBytes == 0)
    }

    @Test("Damage of settled frames at the end of the log is no torn tail", arguments: 1...5 as ClosedRange<UInt64>)
    func damageOfLastSettled(sequence: UInt64) throws {
        var log = try ScriptedLog()
        try log.append(frames: 3)
        try log.append(frames: 2, sync: false)
        log.damage(sequence)
        let reading = try log.read(settled: 5)
        #expect(reading.summary?.lastSequence == 5)
        #expect(reading.summary?.damage == [])
        #expect(reading.summary?.tornBytes == 0)
    }

    @Test("A synced frame that can't be read is damage, with its place and size", arguments: [0, 16, 24, 48, 70, 1060])
    func damagedFrame(byte: Int) throws {
        var log = try ScriptedLog()
        try log.append(frames: 6)
        log.damage(3, byte: byte)
        let reading = try log.read()
        #expect(reading.frames == [1, 2, 4, 5, 6])
        #expect(reading.wrong == [])
        let damage = try #require(reading.summary?.damage.first)
        #expect(try damage.place == log.place(3))
        #expect(damage.bytes == 1064)
        #expect(damage.what.contains("frame 3 "))
    }

    @Test("Damage stops the reading when the caller refuses it")
    func refusedDamage() throws {
        var log = try ScriptedLog()
        try log.append(frames: 6)
        log.damage(3)
        let reader = LogReader(directory: log.disk, store: ScriptedLog.store, settled: 0, fromDisk: false)
        var count = 0
        let error = #expect(throws: StalkError.self) {
            try reader.read { damage throws(StalkError) in
                throw StalkError(.storeDamaged, damage.what)
            } _: { _ in
                count += 1
            }
        }
        #expect(error?.code == .storeDamaged)
        #expect(count == 2)
    }

    @Test("The damaged last frame of a segment is looked for where it stood", arguments: [0, 70])
    func damagedLastFrame(byte: Int) throws {
        var log = try ScriptedLog()
        try log.append(frames: 3)
        try log.roll()
        try log.append(frames: 3)
        log.damage(3, byte: byte)
        let reading = try log.read()
        #expect(reading.frames == [1, 2, 4, 5, 6])
        #expect(try reading.summary?.damage.map(\.place) == [log.place(3)])
    }

    @Test("The damaged first frame of a life is not looked for in the torn tail before it")
    func damagedFirstFrameOfLife() throws {
        var log = try ScriptedLog()
        try log.append(frames: 3)
        try log.append(frames: 3, sync: false)
        log.damage(4)
        try log.reopen(after: 3)
        try log.append(frames: 4)
        log.damage(4)
        let reading = try log.read()
        #expect(reading.frames == [1, 2, 3, 5, 6, 7])
        #expect(reading.wrong == [], "dead frames of the life before must not come back")
        #expect(try reading.summary?.damage.map(\.place) == [log.place(4)])
        #expect(reading.summary?.damage.map(\.bytes) == [1064])
    }

    @Test("A lost beginning of a segment is damage, not an unused segment", arguments: [64, 512, 4096])
    func lostBeginning(bytes: Int) throws {
        var log = try ScriptedLog()
        try log.append(frames: 3)
        try log.roll()
        try log.append(frames: 8)
        log.erase(2, from: 0, bytes: bytes)
        let reading = try log.read()
        #expect(reading.frames.starts(with: [1, 2, 3]))
        #expect(reading.frames.last == 11)
        #expect(reading.summary?.damage.map(\.place) == [LogPlace(segment: 2, offset: 0)])
    }

    @Test("A segment that is missing in the middle is damage, and says which frames are gone")
    func missingSegment() throws {
        var log = try ScriptedLog()
        for _ in 0..<3 {
            try log.append(frames: 3)
            try log.roll()
        }
        try log.append()
        try log.disk.remove(Segment.path(2))
        let reading = try log.read()
        #expect(reading.frames == [1, 2, 3, 7, 8, 9, 10])
        let damage = try #require(reading.summary?.damage.first)
        #expect(damage.what.contains("frames 4 to 6 "), "\(damage.what)")
    }

    @Test("A file that ends inside a frame was cut off", arguments: [1064, 2000, 2063])
    func cutOffInFrame(size: Int) throws {
        var log = try ScriptedLog()
        try log.append(frames: 2)
        log.disk.truncate(Segment.path(1), to: size + 64)
        let reading = try log.read()
        #expect(reading.frames == [1])
        #expect(try reading.summary?.damage.map(\.place) == [log.place(2)])
        #expect(reading.summary?.tornBytes == 0)
    }

    @Test("A file of an odd size was cut off, whatever stood there", arguments: [1064, 1100, 60_000])
    func cutOffBehindFrame(size: Int) throws {
        var log = try ScriptedLog()
        try log.append(frames: size < 2000 ? 2 : 1)
        log.disk.truncate(Segment.path(1), to: size)
        let reading = try log.read()
        #expect(reading.frames == [1])
        #expect(reading.summary?.damage.count == 1)
        #expect(reading.summary?.damage.first?.what.contains("cut off") == true)
    }

    @Test("A segment that was never finished may have any size")
    func unfinishedSegment() throws {
        var log = try ScriptedLog()
        try log.append()
        _ = try log.disk.open(Segment.path(2), .new)
        try log.disk.open(Segment.path(3), .new).fillWithZeros(5000)
        let reading = try log.read()
        #expect(reading.frames == [1])
        #expect(reading.summary?.damage == [])
        #expect(reading.summary?.lastSegment == 3)
    }

    @Test("Two damaged places are two damages")
    func twoDamages() throws {
        var log = try ScriptedLog()
        try log.append(frames: 5)
        try log.roll()
        try log.append(frames: 5)
        log.damage(2)
        log.damage(7)
        let reading = try log.read()
        #expect(reading.frames == [1, 3, 4, 5, 6, 8, 9, 10])
        #expect(try reading.summary?.damage.map(\.place) == [log.place(2), log.place(7)])
    }

    @Test("A segment that was used twice under one number is damage, not read for ever", .timeLimit(.minutes(10)))
    func segmentUsedTwice() throws {
        var log = try ScriptedLog()
        try log.append(frames: 10)
        // The disk had lost the segment's name, and gave it out again: frame 6 replaces frame 1, and 2 to 10 follow.
        log.reopenInPlace(after: 5)
        try log.append()
        let reading = try log.read(settled: 5)
        #expect(reading.frames.first == 6)
        #expect(reading.summary?.lastSequence == 10)
        let damage = try #require(reading.summary?.damage.first)
        #expect(damage.place == LogPlace(segment: 1, offset: 5320))
        #expect(damage.what.contains("frame 6"))
        #expect(reading.summary?.damage.count == 1)
    }

    @Test("A frame of a newer format is refused, but only if it is whole")
    func newerFormat() throws {
        var log = try ScriptedLog()
        try log.append(frames: 3)
        let place = try log.place(3)
        log.damage(3, byte: 12)
        #expect(try log.read().frames == [1, 2])

        // The same frame with the same version, sealed by whoever knows it.
        let name = Segment.path(place.segment)
        var frame = try log.disk.open(name, .readOnly).read(at: place.offset, count: 1064)
        frame[12] = 2
        let checksum = frame.withUnsafeBytes { Checksum.ofFrame($0) }
        withUnsafeBytes(of: checksum.littleEndian) { frame.replaceSubrange(8..<12, with: $0) }
        log.disk.damage(name, at: place.offset, with: frame)
        let error = #expect(throws: StalkError.self) { try log.read() }
        #expect(error?.code == .newerFormat)
        #expect(error?.message.contains("format 2") == true)
    }

    @Test("After a sync that failed, the disk is read and not what memory shows")
    func failedSync() throws {
        var log = try ScriptedLog()
        try log.append(frames: 3)
        log.disk.inject(DiskFault(.sync))
        #expect(throws: StalkError.self) { try log.append() }
        #expect(try log.read(fromDisk: false).frames == [1, 2, 3, 4], "memory still shows the frame")
        #expect(try log.read(fromDisk: true).frames == [1, 2, 3])
    }

    @Test("A disk that can't be read is an error")
    func readFails() throws {
        var log = try ScriptedLog()
        try log.append(frames: 3)
        for operation in [DiskOperation.read, .size, .open, .list] {
            log.disk.inject(DiskFault(operation))
            let error = #expect(throws: StalkError.self) { try log.read() }
            #expect(error?.code == .storageFailed)
            #expect(try log.read().frames == [1, 2, 3])
        }
    }
}

/// CRC-32C, bit by bit: slow, and independent of the one that is tested.
enum Checksum {
    static func ofFrame(_ frame: UnsafeRawBufferPointer) -> UInt32 {
        var crc: UInt32 = ~0
        for (index, byte) in frame.enumerated() where !(8..<12).contains(index) {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? (crc >> 1) ^ 0x82F6_3B78 : crc >> 1 }
        }
        return ~crc
    }
}
