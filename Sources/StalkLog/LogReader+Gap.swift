// What a missing frame means, by what the frames behind it say.

internal import Glibc
internal import StalkCore
internal import StalkFiles

extension LogReader {
    /// Whole frames behind a gap that belong to one life of the log.
    ///
    /// A life begins in a segment of its own, so the frames of one segment belong together. What a crash left behind its
    /// torn tail is dead: the next life gave the same numbers to other frames.
    private struct Run {
        /// Where its first frame stands.
        var start: Cursor
        var firstSequence: UInt64
        var lastSequence: UInt64
        /// The segment of its last frame.
        var index: Int

        init(_ frame: Frame, at start: Cursor) {
            self.start = start
            self.firstSequence = frame.header.sequence
            self.lastSequence = frame.header.sequence
            self.index = start.index
        }

        /// Takes a frame in, unless another life may have begun with it.
        mutating func takesIn(_ frame: Frame, of index: Int) -> Bool {
            let isNextSegment = frame.place.offset == 0 && frame.header.sequence == self.lastSequence + 1
            guard self.index == index || isNextSegment else { return false }
            self.index = index
            self.lastSequence = frame.header.sequence
            return true
        }
    }

    /// Decides what it means that no next frame is where it should be: the end, a torn tail, or damage.
    ///
    /// - Parameters:
    ///   - cursor: Where it should be; a later segment may begin with it as well.
    ///   - last: The last frame that was found, or that is settled.
    func gap(at cursor: Cursor, after last: UInt64) throws(StalkError) -> Step {
        var run: Run?
        var tornBytes = 0
        for index in cursor.index..<cursor.segments.count {
            let segment = cursor.segments[index]
            let start = index == cursor.index ? cursor.offset : 0
            var offset = start
            var end = try self.tornEnd(segment, at: start, after: last)
            while let frame = try self.wholeFrame(segment, from: offset, sequencesAfter: cursor.lastRead ?? 0) {
                if run?.takesIn(frame, of: index) != true {
                    var here = cursor
                    (here.index, here.offset) = (index, frame.place.offset)
                    run = Run(frame, at: here)
                }
                if let run, let step = try self.verdict(on: run, by: frame, cursor, last) { return step }
                offset = frame.place.offset + frame.header.paddedBytes
                if frame.header.sequence > last { end = min(offset, segment.size) }
            }
            let tail = try self.tornEnd(segment, at: offset, after: last)
            tornBytes += (tail > offset ? tail : end) - start
        }
        guard let damage = try self.cutOff(cursor, after: last) else { return .end(tornBytes: tornBytes) }
        var end = cursor
        end.index = cursor.segments.count
        return .damage(damage, next: end, resumeAfter: last)
    }

    /// What a frame behind the gap proves, if anything: a frame only claims to be synced what was.
    private func verdict(
        on run: Run,
        by witness: Frame,
        _ cursor: Cursor,
        _ last: UInt64
    ) throws(StalkError) -> Step? {
        let claim = witness.header.syncedThrough
        if run.firstSequence > last + 1 {
            guard claim > last else { return nil }
            let damage = try self.damage(at: cursor, after: last, before: run, witness)
            return .damage(damage, next: run.start, resumeAfter: run.firstSequence - 1)
        }
        // Nothing is missing that is not settled. Still, what follows is dead if the gap is the torn tail of a former life.
        let isInSegment = run.start.index == cursor.index && cursor.offset > 0
        let isSynced = claim >= run.firstSequence - 1 || (isInSegment && claim > cursor.lastRead ?? 0)
        guard isSynced else { return nil }
        // To go on with a frame that was read already would lead back here, for ever.
        let isRepeated = run.firstSequence > self.settled && run.firstSequence <= last
        return isRepeated ? try self.repeated(run, after: last) : .resume(run.start)
    }

    // MARK: Describing damage

    /// Frames with numbers that others had already: what an older life left in a segment whose name the disk lost.
    private func repeated(_ run: Run, after last: UInt64) throws(StalkError) -> Step {
        let start = run.start
        let segment = start.segments[start.index]
        var next = start
        while let frame = try self.intactFrame(segment, next.offset), frame.header.sequence <= last {
            next.pass(frame, in: start.index)
        }
        let end = next.lastRead ?? run.firstSequence
        let frames = end == run.firstSequence ? "frame \(end) stands" : "frames \(run.firstSequence) to \(end) stand"
        let damage = LogDamage(
            place: LogPlace(segment: segment.number, offset: start.offset),
            bytes: next.offset - start.offset,
            what:
                "\(frames) here once more, under a number that another frame has: the segment was used twice under one "
                + "name, as if the disk had lost that name after syncing it. No crash can cause this."
        )
        return .damage(damage, next: next, resumeAfter: last)
    }

    private func damage(
        at cursor: Cursor,
        after last: UInt64,
        before run: Run,
        _ witness: Frame
    ) throws(StalkError) -> LogDamage {
        let first = last + 1
        let end = run.firstSequence - 1
        var what =
            first == end
            ? "frame \(first) can't be read, but it was" : "frames \(first) to \(end) can't be read, but they were"
        what += " synced: frame \(witness.header.sequence) (\(witness.place)) says so. No crash can cause this."

        let next = run.start
        let isHere = next.index == cursor.index || next.offset == 0
        let segment = cursor.segments[isHere ? cursor.index : next.index]
        let place = LogPlace(segment: segment.number, offset: isHere ? cursor.offset : 0)
        if next.offset == 0 {
            let file = Segment.path(cursor.segments[next.index].number)
            what += " What stood here is unreadable, or a file before \(file) is missing."
        }
        let bytes: Int
        if segment.number == cursor.segments[next.index].number {
            bytes = next.offset - place.offset
        } else {
            let header = try self.header(segment, at: place.offset)
            bytes = min(header?.paddedBytes ?? .max, segment.size - place.offset)
        }
        return LogDamage(place: place, bytes: bytes, what: what)
    }

    /// What shows that a segment was cut off: it has its full size before the first frame is written to it.
    private func cutOff(_ cursor: Cursor, after last: UInt64) throws(StalkError) -> LogDamage? {
        let segment = cursor.segments[cursor.index]
        // A cut may have gone through the bytes between two frames, which no frame lacks.
        let start = min(cursor.offset, segment.size)
        let rest = segment.size - start
        let place = LogPlace(segment: segment.number, offset: start)
        if let header = try self.header(segment, at: cursor.offset), header.sequence > last,
            header.payloadBytes > rest - FrameHeader.byteCount
        {
            return LogDamage(
                place: place,
                bytes: rest,
                what:
                    "frame \(header.sequence) goes on behind the end of the file: the file was cut off, or the frame's "
                    + "length is damaged. No crash can cause this."
            )
        }
        guard cursor.offset > 0, !segment.size.isMultiple(of: Segment.sizeUnit) else { return nil }
        return LogDamage(
            place: place,
            bytes: rest,
            what:
                "the file was cut off: its size, \(segment.size), is not a multiple of \(Segment.sizeUnit), and frames "
                + "behind number \(last) may be missing. No crash can cause this."
        )
    }

    /// Where a frame ends that was begun at a place, or the place itself.
    private func tornEnd(_ segment: OpenSegment, at offset: Int, after last: UInt64) throws(StalkError) -> Int {
        guard let header = try self.header(segment, at: offset), header.sequence > last else { return offset }
        return min(offset + header.paddedBytes, segment.size)
    }

    // MARK: Searching

    /// The next whole frame of a segment with a number behind `last`, wherever it begins.
    private func wholeFrame(
        _ segment: OpenSegment,
        from start: Int,
        sequencesAfter last: UInt64
    ) throws(StalkError) -> Frame? {
        if let frame = try self.intactFrame(segment, start), frame.header.sequence > last { return frame }
        let chunk = 1 << 20
        var offset = (start + 7) & ~7
        while offset + FrameHeader.byteCount <= segment.size {
            let bytes = try segment.file.read(
                at: offset,
                count: min(chunk + FrameHeader.byteCount, segment.size - offset)
            )
            let places = bytes.withUnsafeBytes { buffer in
                self.headers(in: buffer, upTo: chunk, segment: segment.number, sequencesAfter: last)
            }
            for place in places {
                if let frame = try self.intactFrame(segment, offset + place) { return frame }
            }
            // Segments that are prepared and unused are not read to their end.
            if offset == 0, places.isEmpty, try self.isUnused(segment) { return nil }
            offset += chunk
        }
        return nil
    }

    /// Whether a segment begins as one that was prepared and never written to: with zeros, or with a whole frame of its
    /// former life.
    private func isUnused(_ segment: OpenSegment) throws(StalkError) -> Bool {
        let bytes = try segment.file.read(at: 0, count: FrameHeader.byteCount)
        if bytes.allSatisfy({ $0 == 0 }) { return true }
        let former = bytes.withUnsafeBytes { FrameHeader.formerSegment($0) }
        guard let former, former < segment.number else { return false }
        return try self.intactFrame(OpenSegment(number: former, file: segment.file, size: segment.size), 0) != nil
    }

    /// The places in a buffer where a header of the segment may begin: multiples of eight.
    private func headers(
        in buffer: UnsafeRawBufferPointer,
        upTo end: Int,
        segment: UInt64,
        sequencesAfter last: UInt64
    ) -> [Int] {
        guard let start = buffer.baseAddress else { return [] }
        let firstByte = Int32(truncatingIfNeeded: FrameHeader.magic & 0xFF)
        var places: [Int] = []
        var offset = 0
        while let found = memchr(start + offset, firstByte, buffer.count - offset) {
            let place = UnsafeRawPointer(found) - start
            offset = place + 1
            guard place < end else { break }
            guard place.isMultiple(of: 8),
                let read = FrameHeader.read(
                    UnsafeRawBufferPointer(rebasing: buffer[place...]),
                    segment: segment,
                    store: self.store
                ),
                read.header.sequence > last
            else { continue }
            places.append(place)
        }
        return places
    }
}
