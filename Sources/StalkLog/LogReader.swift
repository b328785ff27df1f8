// Reading the log back after anything that a crash can cause, and telling that from what a crash can't cause.

package import StalkCore
package import StalkFiles

/// Reads the frames that follow a settled one, in order, across segments.
package struct LogReader {
    private let directory: any StorageDirectory
    let store: UInt64
    let settled: UInt64
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
        var cursor = Cursor(segments: try self.openSegments(&summary))
        while true {
            switch try self.step(&cursor, after: summary.lastSequence) {
            case .frame(let frame):
                summary.storeTime = max(summary.storeTime, frame.header.storeTime)
                if frame.header.sequence <= self.settled { continue }
                summary.frames += 1
                summary.liveSegments.insert(frame.place.segment)
                summary.end = LogPlace(segment: frame.place.segment, offset: cursor.offset)
                summary.lastSequence = frame.header.sequence
                try body(frame)
            case .resume(let next):
                cursor = next
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

    /// Whether no frame of a segment begins behind a place, whole or not, so that writing may go on there.
    ///
    /// Otherwise a frame that a crash left there could follow the new ones one day and be taken for one of them.
    package func isClean(behind place: LogPlace) throws(StalkError) -> Bool {
        let file = try self.directory.open(Segment.path(place.segment), .readOnly)
        let segment = OpenSegment(number: place.segment, file: file, size: try file.size())
        var offset = place.offset
        while offset < segment.size {
            if try self.header(segment, at: offset) != nil { return false }
            offset += 8
        }
        return true
    }

    struct OpenSegment {
        var number: UInt64
        var file: any StorageFile
        var size: Int
    }

    /// Where the next frame is looked for.
    struct Cursor {
        var segments: [OpenSegment]
        var index = 0
        var offset = 0
        /// The last frame that was read, settled ones included.
        var lastRead: UInt64?

        /// Goes on behind a frame.
        mutating func pass(_ frame: Frame, in index: Int) {
            self.index = index
            self.offset = frame.place.offset + frame.header.paddedBytes
            self.lastRead = frame.header.sequence
        }
    }

    enum Step {
        case frame(Frame)
        /// What can't be read here is settled: the rest follows there.
        case resume(Cursor)
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
    private func step(_ cursor: inout Cursor, after last: UInt64) throws(StalkError) -> Step {
        guard cursor.index < cursor.segments.count else { return .end(tornBytes: 0) }
        for index in cursor.index..<cursor.segments.count {
            let offset = index == cursor.index ? cursor.offset : 0
            guard let frame = try self.intactFrame(cursor.segments[index], offset), self.isNext(frame, last)
            else { continue }
            cursor.pass(frame, in: index)
            return .frame(frame)
        }
        return try self.gap(at: cursor, after: last)
    }

    /// Settled frames may begin anywhere, since older segments were used again; behind them there is no gap.
    private func isNext(_ frame: Frame, _ last: UInt64) -> Bool {
        frame.header.sequence <= self.settled || frame.header.sequence == last + 1
    }

    /// What looks like the header of a frame of this segment, whether the frame is whole or not.
    func header(_ segment: OpenSegment, at offset: Int) throws(StalkError) -> FrameHeader? {
        guard segment.size - offset >= FrameHeader.byteCount else { return nil }
        let bytes = try segment.file.read(at: offset, count: FrameHeader.byteCount)
        return bytes.withUnsafeBytes { FrameHeader.read($0, segment: segment.number, store: self.store)?.header }
    }

    /// The frame that begins at a place, if it is whole.
    func intactFrame(_ segment: OpenSegment, _ offset: Int) throws(StalkError) -> Frame? {
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
}
