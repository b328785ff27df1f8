import StalkCore
import StalkFiles
import StalkLog
import StalkTesting
import Testing

/// A log that is written frame by frame, as a test says.
struct ScriptedLog {
    static let store: UInt64 = 7
    static let segmentBytes = 64 << 10

    private(set) var disk = SimulatedDisk()
    // Where each frame was written last, and what it holds.
    private var places: [UInt64: LogPlace] = [:]
    private var contents: [UInt64: [UInt8]] = [:]
    private(set) var writer: LogWriter
    private var payloads = Payloads(seed: 1)
    private var active: Segment
    private var used = 0
    private var next: Segment?

    init() throws {
        try self.disk.makeDirectory(Segment.directory)
        self.active = try Self.makeSegment(1, self.disk)
        self.writer = LogWriter(store: Self.store, segment: self.active, after: 0)
    }

    private static func makeSegment(_ number: UInt64, _ disk: SimulatedDisk) throws -> Segment {
        let file = try disk.open(Segment.path(number), .new)
        try file.fillWithZeros(Self.segmentBytes)
        try disk.sync(Segment.directory)
        return Segment(number: number, file: file)
    }

    /// Appends a frame and, unless told otherwise, syncs it.
    mutating func append(bytes count: Int = 1000, sync: Bool = true) throws {
        let payload = self.payloads.next(bytes: count)
        var frame = [UInt8](repeating: 0, count: FrameHeader.byteCount) + payload
        let sequence = self.writer.writtenThrough + 1
        if let next = self.next {
            self.active = next
            self.used = 0
        }
        try self.writer.append(&frame, sequence: sequence, storeTime: Int64(sequence), rollingTo: self.next)
        self.next = nil
        self.places[sequence] = LogPlace(segment: self.active.number, offset: self.used)
        self.contents[sequence] = payload
        self.used += (frame.count + 7) & ~7
        if sync { try self.writer.sync() }
    }

    mutating func append(frames count: Int, sync: Bool = true) throws {
        for _ in 0..<count { try self.append(sync: sync) }
    }

    mutating func sync() throws {
        try self.writer.sync()
    }

    /// Lets the next frame go to a new segment.
    mutating func roll() throws {
        self.next = try Self.makeSegment(self.active.number + 1, self.disk)
    }

    /// Begins a new life behind a frame, as after a crash that lost all later ones.
    mutating func reopen(after last: UInt64) throws {
        self.active = try Self.makeSegment(self.active.number + 1, self.disk)
        self.used = 0
        self.writer = LogWriter(store: Self.store, segment: self.active, after: last)
    }

    /// Begins a new life at the start of the segment that is in use, as after a disk had given it its old name back.
    mutating func reopenInPlace(after last: UInt64) {
        self.used = 0
        self.writer = LogWriter(store: Self.store, segment: self.active, after: last)
    }

    /// Where a frame was written last.
    func place(_ sequence: UInt64) throws -> LogPlace {
        try #require(self.places[sequence])
    }

    /// The same log on a disk of its own, to be damaged and read.
    func copy() -> ScriptedLog {
        var copy = self
        copy.disk = self.disk.kill()
        return copy
    }

    /// What a frame holds that was written last under its number.
    func content(_ sequence: UInt64) -> [UInt8] {
        self.contents[sequence] ?? []
    }

    // MARK: Damage

    /// Flips a bit of a frame, by default one of its records'.
    func damage(_ sequence: UInt64, byte: Int = FrameHeader.byteCount + 10) {
        guard let place = self.places[sequence] else { return }
        self.flip(place.segment, bit: (place.offset + byte) * 8)
    }

    /// Flips a bit of a segment.
    func flip(_ segment: UInt64, bit: Int) {
        let name = Segment.path(segment)
        guard let file = try? self.disk.open(name, .readOnly),
            let byte = try? file.read(at: bit / 8, count: 1).first
        else { return }
        self.disk.damage(name, at: bit / 8, with: [byte ^ (1 << UInt8(bit % 8))])
    }

    /// Puts zeros over a part of a segment.
    func erase(_ segment: UInt64, from offset: Int, bytes count: Int) {
        self.disk.damage(Segment.path(segment), at: offset, with: [UInt8](repeating: 0, count: count))
    }

    // MARK: Reading

    /// What reading the log gave.
    struct Reading: Equatable {
        var frames: [UInt64] = []
        /// The frames that came back with other contents than were written last under their number.
        var wrong: [UInt64] = []
        var summary: LogSummary?
    }

    /// Reads the log, passing over damage.
    func read(settled: UInt64 = 0, fromDisk: Bool = false) throws -> Reading {
        var reading = Reading()
        let reader = LogReader(directory: self.disk, store: Self.store, settled: settled, fromDisk: fromDisk)
        reading.summary = try reader.read(onDamage: { _ in }) { frame in
            reading.frames.append(frame.header.sequence)
            if !isSame(frame.payload, self.contents[frame.header.sequence] ?? []) {
                reading.wrong.append(frame.header.sequence)
            }
        }
        return reading
    }
}
