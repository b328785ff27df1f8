// Reading the log back after anything that a crash can cause, and telling that from what a crash can't cause.

package import StalkCore
package import StalkFiles

/// A whole frame, read back.
package struct Frame: Sendable {
    package var header: FrameHeader
    /// Its records, undecoded.
    package var payload: [UInt8]
    /// Where it stands.
    package var place: LogPlace

    /// Goes over the records.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/storeDamaged`` or ``StalkError/Code/newerFormat``, or what the
    ///   body throws.
    package func forEachRecord(_ body: (LogRecord) throws(StalkError) -> Void) throws(StalkError) {
        let result: Result<Void, StalkError> = self.payload.withUnsafeBytes { buffer in
            var reader = ByteReader(buffer)
            do throws(StalkError) {
                while reader.remaining > 0 {
                    let record: LogRecord
                    do throws(LogRecord.Unreadable) {
                        record = try LogRecord(reading: &reader)
                    } catch {
                        throw self.unreadable(error)
                    }
                    try body(record)
                }
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    private func unreadable(_ why: LogRecord.Unreadable) -> StalkError {
        switch why {
        case .malformed:
            StalkError(.storeDamaged, "\(self.place): a record contradicts itself although its checksum holds.")
        case .unknown(let kind, let flags):
            StalkError(
                .newerFormat,
                "\(self.place): a record of kind \(kind) with flags \(flags) was written by a newer version of Stalk: "
                    + "open the store with that version. Nothing was changed."
            )
        }
    }
}

/// A place in the log.
package struct LogPlace: Hashable, Sendable, CustomStringConvertible {
    package var segment: UInt64
    package var offset: Int

    package var description: String { "\(Segment.path(self.segment)) at byte \(self.offset)" }
}

/// Damage that no crash can cause.
package struct LogDamage: Hashable, Sendable {
    package var place: LogPlace
    /// How many bytes can't be read.
    package var bytes: Int
    package var what: String
}

/// What reading the log found besides its frames.
package struct LogSummary: Hashable, Sendable {
    /// The number of the last frame, or of the last one that LMDB holds.
    package var lastSequence: UInt64
    /// The highest number of any file of the log; 0 without one.
    package var lastSegment: UInt64
    /// The latest reading of the store's clock in any frame.
    package var storeTime: Int64
    package var frames = 0
    /// The segments that hold frames which LMDB lacks.
    package var liveSegments: Set<UInt64> = []
    /// Bytes behind the last whole frame that a crash had left half written.
    package var tornBytes = 0
    /// Damage that was passed over, with quarantine.
    package var damage: [LogDamage] = []
}

/// Reads the frames that follow a settled one, in order, across segments.
package struct LogReader {
    private let directory: any StorageDirectory
    private let store: UInt64
    private let settled: UInt64
    private let fromDisk: Bool
    private let maxPayload: Int

    /// Prepares to read.
    ///
    /// - Parameters:
    ///   - directory: The store's directory.
    ///   - store: The store's number.
    ///   - settled: The last frame whose outcome LMDB holds; what comes up to it is passed over.
    ///   - fromDisk: Whether to sync each segment and drop it from memory first: after a failed sync the kernel may
    ///     show data that the disk does not hold.
    ///   - maxPayload: No frame is larger.
    package init(
        directory: any StorageDirectory,
        store: UInt64,
        settled: UInt64,
        fromDisk: Bool,
        maxPayload: Int = 1 << 30
    ) {
        self.directory = directory
        self.store = store
        self.settled = settled
        self.fromDisk = fromDisk
        self.maxPayload = maxPayload
    }

    /// Reads all frames.
    ///
    /// - Parameters:
    ///   - onDamage: Called for damage that no crash can cause; throwing stops, returning passes over it.
    ///   - body: Called for each frame behind the settled one.
    /// - Returns: What was found besides.
    /// - Throws: What the closures throw, and ``StalkError`` when a file can't be read or is of a newer format.
    package func read(
        onDamage: (LogDamage) throws(StalkError) -> Void,
        _ body: (Frame) throws(StalkError) -> Void
    ) throws(StalkError) -> LogSummary {
        var summary = LogSummary(lastSequence: self.settled, lastSegment: 0, storeTime: .min)
        let segments = try self.openSegments(&summary)
        var cursor = Cursor(segments: segments)
        while true {
            switch try self.frame(at: &cursor, after: summary.lastSequence) {
            case .frame(let frame):
                summary.storeTime = max(summary.storeTime, frame.header.storeTime)
                if frame.header.sequence <= self.settled { continue }
                summary.frames += 1
                summary.liveSegments.insert(frame.place.segment)
                summary.lastSequence = frame.header.sequence
                try body(frame)
            case .damage(let damage, let next, let resumeAfter):
                try onDamage(damage)
                summary.damage.append(damage)
                cursor = next
                summary.lastSequence = resumeAfter
            case .end(let tornBytes):
                summary.tornBytes = tornBytes
                return summary
            }
        }
    }

    private struct OpenSegment {
        var number: UInt64
        var file: any StorageFile
        var size: Int
    }

    private struct Cursor {
        var segments: [OpenSegment]
        var index = 0
        var offset = 0
    }

    private enum Step {
        case frame(Frame)
        case damage(LogDamage, next: Cursor, resumeAfter: UInt64)
        case end(tornBytes: Int)
    }

    private func openSegments(_ summary: inout LogSummary) throws(StalkError) -> [OpenSegment] {
        var segments: [OpenSegment] = []
        for name in try self.directory.list(Segment.directory) {
            guard let number = Segment.number(inName: name) else { continue }
            summary.lastSegment = max(summary.lastSegment, number)
            let file = try self.directory.open(Segment.path(number), self.fromDisk ? .existing : .readOnly)
            if self.fromDisk {
                try file.sync()
                try file.dropCache()
            }
            segments.append(OpenSegment(number: number, file: file, size: try file.size()))
        }
        return segments
    }

    /// The next frame: here, or at the beginning of a later segment.
    private func frame(at cursor: inout Cursor, after last: UInt64) throws(StalkError) -> Step {
        guard cursor.index < cursor.segments.count else { return .end(tornBytes: 0) }
        if let frame = try self.intactFrame(cursor.segments[cursor.index], cursor.offset), self.isNext(frame, last) {
            cursor.offset += frame.header.paddedBytes
            return .frame(frame)
        }
        for index in cursor.segments.indices.dropFirst(cursor.index + 1) {
            if let frame = try self.intactFrame(cursor.segments[index], 0), self.isNext(frame, last) {
                cursor.index = index
                cursor.offset = frame.header.paddedBytes
                return .frame(frame)
            }
        }
        return try self.tornOrDamaged(cursor, after: last)
    }

    /// Settled frames may begin anywhere, since older segments were used again; behind them there is no gap.
    private func isNext(_ frame: Frame, _ last: UInt64) -> Bool {
        frame.header.sequence <= self.settled || frame.header.sequence == last + 1
    }

    /// Decides what a missing frame means, by what later frames say of it.
    private func tornOrDamaged(_ cursor: Cursor, after last: UInt64) throws(StalkError) -> Step {
        let segment = cursor.segments[cursor.index]
        let isFrameBegun = try self.hasHeader(segment, at: cursor.offset)
        var later = cursor
        var next: (cursor: Cursor, frame: Frame)?
        while later.index < later.segments.count {
            guard let found = try self.search(later.segments[later.index], from: later.offset, sequencesAfter: last)
            else {
                later.index += 1
                later.offset = 0
                continue
            }
            later.offset = found.place.offset
            if next == nil { next = (later, found) }
            if let next, found.header.syncedThrough > last {
                let damage = self.damage(at: cursor, isFrameBegun, after: last, next: next, witness: found)
                return .damage(damage, next: next.cursor, resumeAfter: next.frame.header.sequence - 1)
            }
            later.offset += found.header.paddedBytes
        }
        return .end(tornBytes: isFrameBegun ? try self.tornBytes(segment, at: cursor.offset) : 0)
    }

    private func damage(
        at cursor: Cursor,
        _ isFrameBegun: Bool,
        after last: UInt64,
        next: (cursor: Cursor, frame: Frame),
        witness: Frame
    ) -> LogDamage {
        // Where nothing was begun in the old segment, the missing frame was the first of the next one.
        let isHere = isFrameBegun || next.cursor.index == cursor.index
        let segment = isHere ? cursor.segments[cursor.index] : next.cursor.segments[next.cursor.index]
        let start = isHere ? cursor.offset : 0
        let end = next.frame.place.segment == segment.number ? next.frame.place.offset : segment.size
        return LogDamage(
            place: LogPlace(segment: segment.number, offset: start),
            bytes: end - start,
            what: "frame \(last + 1) can't be read, but it was synced: frame \(witness.header.sequence) "
                + "(\(witness.place)) says so. No crash can cause this."
        )
    }

    private func hasHeader(_ segment: OpenSegment, at offset: Int) throws(StalkError) -> Bool {
        guard segment.size - offset >= FrameHeader.byteCount else { return false }
        let bytes = try segment.file.read(at: offset, count: FrameHeader.byteCount)
        return bytes.withUnsafeBytes { FrameHeader.read($0, segment: segment.number, store: self.store) } != nil
    }

    /// The bytes of a frame that a crash had left half written at the end of the log.
    private func tornBytes(_ segment: OpenSegment, at offset: Int) throws(StalkError) -> Int {
        let bytes = try segment.file.read(at: offset, count: FrameHeader.byteCount)
        let header = bytes.withUnsafeBytes { FrameHeader.read($0, segment: segment.number, store: self.store)?.header }
        return header.map { min($0.paddedBytes, segment.size - offset) } ?? 0
    }

    private func intactFrame(_ segment: OpenSegment, _ offset: Int) throws(StalkError) -> Frame? {
        guard segment.size - offset >= FrameHeader.byteCount else { return nil }
        var bytes = try segment.file.read(at: offset, count: FrameHeader.byteCount)
        let read = bytes.withUnsafeBytes { FrameHeader.read($0, segment: segment.number, store: self.store) }
        // The length is not trusted before the checksum: it is bounded by the file, so nothing larger is ever allocated.
        guard let (header, version) = read, header.payloadBytes <= self.maxPayload,
            header.payloadBytes <= segment.size - offset - FrameHeader.byteCount
        else { return nil }
        let payload = try segment.file.read(at: offset + FrameHeader.byteCount, count: header.payloadBytes)
        guard payload.count == header.payloadBytes else { return nil }
        bytes.append(contentsOf: payload)
        guard bytes.withUnsafeBytes({ FrameHeader.isIntact($0) }) else { return nil }
        let place = LogPlace(segment: segment.number, offset: offset)
        guard version <= FrameHeader.version else {
            throw StalkError(
                .newerFormat,
                "\(place): the frame has format \(version), this version of Stalk reads up to \(FrameHeader.version): "
                    + "open the store with the newer version. Nothing was changed."
            )
        }
        return Frame(header: header, payload: payload, place: place)
    }

    /// Looks for the next whole frame of a segment with a number behind `last`.
    private func search(
        _ segment: OpenSegment,
        from start: Int,
        sequencesAfter last: UInt64
    ) throws(StalkError) -> Frame? {
        if start == 0, try self.isUnused(segment) { return nil }
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
            offset += chunk
        }
        return nil
    }

    /// Whether a segment was prepared and never written to: it holds zeros, or the whole first frame of its former life.
    private func isUnused(_ segment: OpenSegment) throws(StalkError) -> Bool {
        let bytes = try segment.file.read(at: 0, count: FrameHeader.byteCount)
        if bytes.allSatisfy({ $0 == 0 }) { return true }
        let former = bytes.withUnsafeBytes { FrameHeader.formerSegment($0) }
        guard let former, former < segment.number else { return false }
        return try self.intactFrame(OpenSegment(number: former, file: segment.file, size: segment.size), 0) != nil
    }

    /// The places in a buffer where a header of the segment may begin.
    private func headers(
        in buffer: UnsafeRawBufferPointer,
        upTo end: Int,
        segment: UInt64,
        sequencesAfter last: UInt64
    ) -> [Int] {
        var places: [Int] = []
        var place = 0
        while place < end, place + FrameHeader.byteCount <= buffer.count {
            defer { place += 8 }
            guard UInt32(littleEndian: buffer.load(fromByteOffset: place, as: UInt32.self)) == FrameHeader.magic,
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
