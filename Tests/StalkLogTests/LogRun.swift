import StalkCore
import StalkFiles
import StalkLog
import StalkTesting

/// What a log promised, kept outside of it.
struct Ledger {
    /// What was appended, frame 1 first; after a recovery, what was recovered.
    var payloads: [[UInt8]] = []
    /// The last frame that was reported as synced.
    var acknowledged: UInt64 = 0
    /// The last frame that a checkpoint took out of the log.
    var settled: UInt64 = 0
}

/// How a recovered log breaks its promise.
enum Violation: Hashable {
    /// A frame that was synced is missing.
    case lost(UInt64)
    /// A frame came back that was never written.
    case invented(UInt64)
    /// A frame came back with other bytes.
    case changed(UInt64)
    /// A frame came back out of its turn.
    case outOfOrder(UInt64)
    /// A crash was taken for damage.
    case damage(String)
    /// The log could not be read at all.
    case unreadable(String)
    /// Reading the log again gave something else.
    case unstable
}

/// A log that is used as a store uses it, life after life, each beginning with a recovery.
struct LogRun {
    static let store: UInt64 = 0x5354_414C_4B00_0001
    static let segmentBytes = 64 << 10

    /// What the run leaves out, to see that something breaks then.
    enum Sabotage {
        /// Nothing.
        case none
        /// The reader sees each frame's checksum as right.
        case checksumsIgnored
        /// The reader sees each frame's segment number as right.
        case segmentNumbersIgnored
    }

    private(set) var ledger = Ledger()
    private var generator: SeededGenerator
    private var payloads: Payloads
    private let sabotage: Sabotage

    init(seed: UInt64, sabotage: Sabotage = .none) {
        self.generator = SeededGenerator(seed: seed)
        self.payloads = Payloads(seed: seed)
        self.sabotage = sabotage
    }

    // MARK: A life

    /// The files of a log that is open.
    private struct OpenLog {
        var writer: LogWriter
        var active: Segment
        var used = 0
        var spares: [Segment]
        var retired: [(segment: Segment, last: UInt64)]
        var nextNumber: UInt64
    }

    /// Opens the log, appends and syncs for a while, and ends without closing anything.
    ///
    /// - Throws: What the disk throws; the ledger holds what was promised until then.
    mutating func live(on disk: SimulatedDisk, steps: Int) throws {
        var log = try self.open(disk)
        for _ in 0..<steps {
            try self.append(to: &log, disk)
            if self.generator.below(3) == 0 {
                try log.writer.sync()
                self.ledger.acknowledged = log.writer.syncedThrough
            }
            if self.generator.below(12) == 0 { try self.checkpoint(&log, disk) }
        }
    }

    private mutating func open(_ disk: SimulatedDisk) throws -> OpenLog {
        try disk.makeDirectory(Segment.directory)
        var payloads: [[UInt8]] = []
        let summary = try self.reader(of: disk).read(onDamage: { _ in }, { payloads.append($0.payload) })
        self.ledger.payloads.removeLast(self.ledger.payloads.count - Int(self.ledger.settled))
        self.ledger.payloads += payloads
        self.ledger.acknowledged = summary.lastSequence

        var next = summary.lastSegment + 1
        var spares: [Segment] = []
        var retired: [(Segment, UInt64)] = []
        for name in try disk.list(Segment.directory) {
            guard let number = Segment.number(inName: name) else { continue }
            let file = try disk.open(Segment.path(number), .existing)
            if summary.liveSegments.contains(number) {
                retired.append((Segment(number: number, file: file), summary.lastSequence))
            } else if spares.count < 2, try file.size() == Self.segmentBytes {
                spares.append(try self.recycle(Segment(number: number, file: file), as: next, disk))
                next += 1
            } else {
                try disk.remove(Segment.path(number))
            }
        }
        try disk.sync(Segment.directory)
        while spares.count < 2 {
            spares.append(try Self.makeSegment(next, disk))
            next += 1
        }
        let active = spares.removeFirst()
        let writer = LogWriter(store: Self.store, segment: active, after: summary.lastSequence)
        return OpenLog(writer: writer, active: active, spares: spares, retired: retired, nextNumber: next)
    }

    private mutating func append(to log: inout OpenLog, _ disk: SimulatedDisk) throws {
        let payload = self.payloads.next(bytes: self.payloadBytes())
        var frame = [UInt8](repeating: 0, count: FrameHeader.byteCount) + payload
        let padded = (frame.count + 7) & ~7
        var next: Segment?
        if log.used + padded > Self.segmentBytes {
            if log.spares.isEmpty {
                log.spares.append(try Self.makeSegment(log.nextNumber, disk))
                log.nextNumber += 1
            }
            next = log.spares.removeFirst()
        }
        let sequence = log.writer.writtenThrough + 1
        self.ledger.payloads.append(payload)
        try log.writer.append(&frame, sequence: sequence, storeTime: Int64(sequence), rollingTo: next)
        self.ledger.acknowledged = log.writer.syncedThrough
        if let next {
            log.retired.append((log.active, sequence - 1))
            log.active = next
            log.used = 0
        }
        log.used += padded
    }

    private mutating func payloadBytes() -> Int {
        // What is left of a former frame can only be mistaken for a new one where both are of one size.
        if self.sabotage == .segmentNumbersIgnored { return 1000 }
        switch self.generator.below(8) {
        case 0: return self.generator.below(16)
        case 1, 2: return self.generator.below(Payloads.maxBytes)
        default: return self.generator.below(2048)
        }
    }

    /// Takes what is synced out of the log and uses its segments again.
    private mutating func checkpoint(_ log: inout OpenLog, _ disk: SimulatedDisk) throws {
        self.ledger.settled = log.writer.syncedThrough
        let free = log.retired.filter { $0.last <= self.ledger.settled }
        log.retired.removeAll { $0.last <= self.ledger.settled }
        for (segment, _) in free {
            if log.spares.isEmpty || self.generator.below(3) > 0 {
                log.spares.append(try self.recycle(segment, as: log.nextNumber, disk))
                log.nextNumber += 1
                try disk.sync(Segment.directory)
            } else {
                try disk.remove(Segment.path(segment.number))
            }
        }
    }

    private static func makeSegment(_ number: UInt64, _ disk: SimulatedDisk) throws -> Segment {
        let file = try disk.open(Segment.path(number), .new)
        try file.fillWithZeros(Self.segmentBytes)
        try disk.sync(Segment.directory)
        return Segment(number: number, file: file)
    }

    private func recycle(_ segment: Segment, as number: UInt64, _ disk: SimulatedDisk) throws -> Segment {
        let (name, newName) = (Segment.path(segment.number), Segment.path(number))
        if self.sabotage == .segmentNumbersIgnored {
            Self.sealAgain(name, on: disk, segment: segment.number, as: number)
        }
        try disk.rename(name, to: newName)
        return Segment(number: number, file: segment.file)
    }

    // MARK: After a crash

    private func reader(of disk: SimulatedDisk) -> LogReader {
        LogReader(directory: disk, store: Self.store, settled: self.ledger.settled, fromDisk: true)
    }

    /// What a recovery found.
    struct Recovery {
        var violation: Violation?
        var tornBytes = 0
        var frames = 0
    }

    /// Recovers the log twice and compares it with the ledger.
    func recover(_ disk: SimulatedDisk) -> Recovery {
        if self.sabotage == .checksumsIgnored {
            for name in (try? disk.list(Segment.directory)) ?? [] {
                guard let number = Segment.number(inName: name) else { continue }
                Self.sealAgain(Segment.path(number), on: disk, segment: number, as: number)
            }
        }
        var recovery = Recovery()
        do {
            let first = try self.read(disk, &recovery.violation)
            var again: Violation?
            let second = try self.read(disk, &again)
            recovery.tornBytes = first.tornBytes
            recovery.frames = first.frames
            if recovery.violation == nil, first != second || again != nil { recovery.violation = .unstable }
        } catch {
            recovery.violation = .unreadable("\(error)")
        }
        return recovery
    }

    private func read(_ disk: SimulatedDisk, _ violation: inout Violation?) throws -> LogSummary {
        var found: Violation?
        var expected = self.ledger.settled
        let summary = try self.reader(of: disk).read { damage in
            found = found ?? .damage(damage.what)
        } _: { frame in
            expected += 1
            found = found ?? self.compare(frame, expected)
        }
        if expected < self.ledger.acknowledged { found = found ?? .lost(expected + 1) }
        violation = found
        return summary
    }

    private func compare(_ frame: Frame, _ expected: UInt64) -> Violation? {
        let sequence = frame.header.sequence
        guard sequence == expected else { return .outOfOrder(sequence) }
        guard sequence <= self.ledger.payloads.count else { return .invented(sequence) }
        return isSame(frame.payload, self.ledger.payloads[Int(sequence) - 1]) ? nil : .changed(sequence)
    }

    /// Gives each thing in a segment that looks like a frame the right checksum, and perhaps another segment number.
    private static func sealAgain(_ name: String, on disk: SimulatedDisk, segment: UInt64, as number: UInt64) {
        let bytes = disk.contents(of: name) ?? []
        var offset = 0
        while offset + FrameHeader.byteCount <= bytes.count {
            let isStart = bytes[offset] == UInt8(truncatingIfNeeded: FrameHeader.magic)
            let read =
                !isStart
                ? nil
                : bytes.withUnsafeBytes {
                    FrameHeader.read(
                        UnsafeRawBufferPointer(rebasing: $0[offset...]),
                        segment: segment,
                        store: Self.store
                    )
                }
            guard var header = read?.header,
                header.payloadBytes <= bytes.count - offset - FrameHeader.byteCount
            else {
                offset += 8
                continue
            }
            var frame = [UInt8](bytes[offset..<offset + FrameHeader.byteCount + header.payloadBytes])
            header.segment = number
            header.seal(&frame)
            disk.damage(name, at: offset, with: frame)
            offset += header.paddedBytes
        }
    }
}
