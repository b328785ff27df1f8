// Opening a store, after anything that a crash can cause.

internal import StalkCore
internal import StalkFiles
internal import StalkLog
internal import StalkPlatform

/// What opening a store brings into being, step by step.
struct StoreOpening {
    static let lockName = "lock"
    static let indexDirectory = "index"

    let path: String
    let options: LocalStoreOptions

    /// A store that is open.
    struct Opened: Sendable {
        var core: StoreCore
        var threads: StoreThreads
        var lock: DirectoryLock
        var report: RecoveryReport
    }

    /// Opens the store; blocks.
    func run() throws(StalkError) -> Opened {
        try self.options.validate()
        let directory = try self.openDirectory()
        try directory.checkFitness()
        // Looked at before anything is touched, so that what is refused stays as it is.
        let found = try StoreMarker.read(in: directory, lockName: Self.lockName)
        guard found != nil || self.options.createIfMissing else { throw Self.noStore(at: self.path) }
        let lock = try directory.lock(Self.lockName)
        let (tables, meta) = try self.openTables(directory)
        let queues = try tables.readQueues()
        let start = Moment(nanoseconds: max(meta.storeTime, 0) * 1_000_000)
        var engine = Engine(meta: meta, limits: EngineLimits(options: self.options), now: start)
        for queue in queues.sorted(by: { $0.number < $1.number }) { engine.addSettled(queue) }

        var report = RecoveryReport(replayedFrames: 0, replayedRecords: 0, tornBytes: 0, quarantinedFrames: 0)
        let summary = try self.replay(into: &engine, directory, tables, &report)
        let clockOffset = self.clockOffset(of: engine.meta, lastTime: max(meta.storeTime, summary.storeTime))
        let segments = try self.segments(directory, summary, store: meta.store)
        engine.beginSession(
            bootID: self.options.clock.bootID,
            clockOffset: clockOffset,
            lastFrame: summary.lastSequence,
            segments: segments,
            now: Moment(nanoseconds: self.options.clock.bootTime().nanoseconds + clockOffset)
        )
        let nextSegment = segments.nextNumber
        let core = try StoreCore(
            engine: engine,
            directory: directory,
            tables: tables,
            options: self.options,
            clockOffset: clockOffset
        )
        let writer = LogWriter(
            store: meta.store,
            segment: segments.active,
            at: segments.offset,
            after: summary.lastSequence
        )
        let threads = try StoreThreads(core: core, lock: lock, writer: writer, nextSegment: nextSegment)
        core.step { _, _ in Actions(wakesLog: true, wakesScheduler: true, wakesKeeper: true) }
        return Opened(core: core, threads: threads, lock: lock, report: report)
    }

    private func openDirectory() throws(StalkError) -> RealDirectory {
        do throws(StalkError) {
            return try RealDirectory(path: self.path, createIfMissing: self.options.createIfMissing)
        } catch {
            if !self.options.createIfMissing, error.code == .noSuchStore { throw Self.noStore(at: self.path) }
            throw error
        }
    }

    static func noStore(at path: String) -> StalkError {
        StalkError(.noSuchStore, "There is no store at \(path): publish something first, or name another place.")
    }

    /// Opens LMDB's tables, made first if the store is new.
    private func openTables(_ directory: RealDirectory) throws(StalkError) -> (SettledTables, StoreMeta) {
        // Read again under the lock: another process may have made the store meanwhile.
        guard let marker = try StoreMarker.read(in: directory, lockName: Self.lockName) else {
            return try self.makeStore(directory)
        }
        let tables: SettledTables
        do throws(StalkError) {
            tables = try self.tables(createIfMissing: false)
        } catch {
            guard [.notAStore, .noSuchStore].contains(error.code) else { throw error }
            throw StalkError(
                .storeDamaged,
                "\(self.path)/index is missing, which no crash can cause: restore it from a copy. Nothing was changed.",
                cause: error
            )
        }
        guard let meta = try tables.readMeta() else {
            throw StalkError(
                .storeDamaged,
                "\(self.path)/index is empty, which no crash can cause: restore it from a copy."
            )
        }
        guard meta.store == marker.store else {
            throw StalkError(
                .storeDamaged,
                "\(self.path)/index belongs to the store \(String(meta.store, radix: 16)), but STALK names "
                    + "\(String(marker.store, radix: 16)): put the files of one store together. Nothing was changed."
            )
        }
        if try directory.list(Segment.directory).isEmpty {
            throw StalkError(
                .storeDamaged,
                "\(self.path)/log is missing or empty, which no crash can cause: restore it from a copy. Nothing was changed."
            )
        }
        return (tables, meta)
    }

    /// Makes a store; the marker comes last, so that a store which has one has everything.
    private func makeStore(_ directory: RealDirectory) throws(StalkError) -> (SettledTables, StoreMeta) {
        try directory.makeDirectory(Segment.directory)
        try directory.makeDirectory(Self.indexDirectory)
        let tables = try self.tables(createIfMissing: true)
        // A crash may have left the tables of a store that was never finished: its number is as good as any.
        let meta = try tables.readMeta() ?? StoreMeta(store: UInt64.random(in: 1...UInt64.max))
        try tables.apply(SettleBatch(meta: meta, changes: [], queues: []))
        try directory.sync(Self.indexDirectory)
        try KeeperThread.makeBallast(in: directory)
        if try directory.list(Segment.directory).isEmpty {
            _ = try KeeperThread.makeSegment(1, self.options.segmentBytes, in: directory)
        }
        try StoreMarker(store: meta.store).write(in: directory)
        return (tables, meta)
    }

    private func tables(createIfMissing: Bool) throws(StalkError) -> SettledTables {
        try SettledTables(
            path: "\(self.path)/\(Self.indexDirectory)",
            createIfMissing: createIfMissing,
            maxBodyBytes: self.options.maxBodyBytes
        )
    }

    // MARK: The log

    private func replay(
        into engine: inout Engine,
        _ directory: RealDirectory,
        _ tables: SettledTables,
        _ report: inout RecoveryReport
    ) throws(StalkError) -> LogSummary {
        let reader = LogReader(
            directory: directory,
            store: engine.meta.store,
            settled: engine.meta.settledFrame,
            fromDisk: true
        )
        let policy = self.options.onDamage
        let start = Moment(nanoseconds: max(engine.meta.storeTime, 0) * 1_000_000)
        var hasGaps = false
        let summary = try reader.read { damage throws(StalkError) in
            guard policy == .quarantine else { throw damage.refusal }
            try self.quarantine(damage, directory)
            hasGaps = true
        } _: { frame throws(StalkError) in
            try frame.forEachRecord { record throws(StalkError) in
                do throws(StalkError) {
                    for sequence in engine.missingMessages(for: record) {
                        let (message, isRotten) = try tables.soundMessage(sequence)
                        if let message { engine.addForReplay(message, now: start) }
                        if isRotten { engine.setAside.insert(sequence) }
                    }
                    try engine.replay(record, now: start)
                } catch {
                    // Behind a frame that was set aside, records may speak of messages that were in it.
                    guard hasGaps, error.code == .storeDamaged else { throw error }
                }
                report.replayedRecords += 1
            }
        }
        report.replayedFrames = summary.frames
        report.tornBytes = summary.tornBytes
        report.quarantinedFrames = summary.damage.count
        engine.isCheckpointRequested = hasGaps
        return summary
    }

    /// Keeps a copy of what can't be read, under the name of its place.
    private func quarantine(_ damage: LogDamage, _ directory: RealDirectory) throws(StalkError) {
        try directory.makeDirectory("damaged")
        let source = try directory.open(Segment.path(damage.place.segment), .readOnly)
        let name = "damaged/\(String(damage.place.segment, radix: 16))-\(damage.place.offset).frame"
        let copy = try directory.open(name, .ifMissing)
        var offset = 0
        while offset < damage.bytes {
            let bytes = try source.read(at: damage.place.offset + offset, count: min(1 << 20, damage.bytes - offset))
            guard !bytes.isEmpty else { break }
            try copy.write(bytes, at: offset)
            offset += bytes.count
        }
        try copy.sync()
        try directory.sync("damaged")
    }

    // MARK: Segments

    /// Sorts the files of the log: what holds frames that LMDB lacks stays, the rest is used again.
    private func segments(
        _ directory: RealDirectory,
        _ summary: LogSummary,
        store: UInt64
    ) throws(StalkError) -> OpenedSegments {
        var next = summary.lastSegment + 1
        var retired: [Segment] = []
        var spares: [Segment] = []
        for name in try directory.list(Segment.directory) {
            guard let number = Segment.number(inName: name) else { continue }
            let file = try directory.open(Segment.path(number), .existing)
            if summary.liveSegments.contains(number) {
                retired.append(Segment(number: number, file: file))
            } else if spares.count < 3, try file.size() == self.options.segmentBytes {
                try directory.rename(Segment.path(number), to: Segment.path(next))
                spares.append(Segment(number: next, file: file))
                next += 1
            } else {
                try directory.remove(Segment.path(number))
            }
        }
        try directory.sync(Segment.directory)
        while spares.count < 3 {
            do throws(StalkError) {
                spares.append(try KeeperThread.makeSegment(next, self.options.segmentBytes, in: directory))
            } catch {
                // On a full disk one segment is enough to finish messages, which brings space back.
                guard error.code == .storageFull else { throw error }
                guard spares.isEmpty else { break }
                return try self.goOn(in: retired, directory, summary, store: store, fullDisk: error)
            }
            next += 1
        }
        return OpenedSegments(
            active: spares.removeFirst(),
            offset: 0,
            spares: spares,
            retired: retired,
            nextNumber: next
        )
    }

    /// The disk has no room for another segment: the log goes on behind its last frame, where that is safe.
    private func goOn(
        in retired: [Segment],
        _ directory: RealDirectory,
        _ summary: LogSummary,
        store: UInt64,
        fullDisk: StalkError
    ) throws(StalkError) -> OpenedSegments {
        let reader = LogReader(directory: directory, store: store, settled: 0, fromDisk: false)
        guard let end = summary.end, let last = retired.last, last.number == end.segment,
            self.options.segmentBytes - end.offset > FrameHeader.byteCount * 16, try reader.isClean(behind: end)
        else { throw fullDisk }
        return OpenedSegments(
            active: last,
            offset: end.offset,
            spares: [],
            retired: retired.dropLast(),
            nextNumber: summary.lastSegment + 1
        )
    }

    // MARK: The clock

    /// The store's clock goes on where it was: by the time since boot when the machine did not boot meanwhile, else by the
    /// wall clock, but never back.
    private func clockOffset(of meta: StoreMeta, lastTime: Int64) -> Int64 {
        let clock = self.options.clock
        let boot = clock.bootTime().nanoseconds
        if !meta.bootID.isEmpty, meta.bootID == clock.bootID, boot + meta.clockOffset >= lastTime &* 1_000_000 {
            return meta.clockOffset
        }
        let wall = clock.wallTime().millisecondsSince1970
        return max(wall, lastTime == .min ? wall : lastTime) * 1_000_000 - boot
    }
}

/// The files of the log, sorted.
struct OpenedSegments {
    var active: Segment
    /// Where the log goes on in the active one.
    var offset: Int
    var spares: [Segment]
    var retired: [Segment]
    var nextNumber: UInt64
}

extension LogDamage {
    /// The error for a store that is not to be changed.
    var refusal: StalkError {
        StalkError(
            .storeDamaged,
            "\(self.place): \(self.what) \(self.bytes) bytes are affected, and nothing was changed. Restore a copy, or open "
                + "the store with onDamage: .quarantine to set them aside and go on with the rest."
        )
    }
}

extension Engine {
    mutating func addSettled(_ queue: SettledQueue) {
        self.queues.append(QueueState(settled: queue))
        self.queueNumbers[queue.name] = queue.number
        self.meta.nextQueue = max(self.meta.nextQueue, queue.number + 1)
    }

    /// Begins to take work, after the log was replayed.
    mutating func beginSession(
        bootID: String,
        clockOffset: Int64,
        lastFrame: UInt64,
        segments: OpenedSegments,
        now: Moment
    ) {
        self.meta.epoch += 1
        self.meta.bootID = bootID
        self.meta.clockOffset = clockOffset
        self.nextLease = UInt64(self.meta.epoch) << 40
        self.nextFrame = lastFrame + 1
        self.writtenThrough = lastFrame
        self.syncedThrough = lastFrame
        self.activeSegment = segments.active
        self.room.remaining = self.limits.segmentBytes - segments.offset
        self.room.spares = segments.spares
        self.retiredSegments = segments.retired.map { ($0, lastFrame: lastFrame) }
        self.lastReadyAt = max(self.lastReadyAt, now.milliseconds)
        self.releaseBudget = ReleaseBudget(rate: self.limits.releaseRate, now: now.milliseconds)
        self.stage(
            .session(SessionRecord(epoch: self.meta.epoch, bootID: bootID, clockOffset: clockOffset)),
            now: now
        )
        // Somebody must want the frame, or nothing would tell the next owner of the clock.
        self.staging.needsSync = true
    }
}

extension LocalStoreOptions {
    func validate() throws(StalkError) {
        guard (1 << 18...1 << 30).contains(self.segmentBytes), self.segmentBytes % 4096 == 0 else {
            throw StalkError(
                .invalidArgument,
                "segmentBytes is \(self.segmentBytes): choose a multiple of 4096 from 256 KiB to 1 GiB."
            )
        }
        guard (0...self.segmentBytes / 2).contains(self.maxBodyBytes) else {
            throw StalkError(
                .invalidArgument,
                "maxBodyBytes is \(self.maxBodyBytes): it must be from 0 to half of segmentBytes (\(self.segmentBytes / 2))."
            )
        }
        guard self.checkpointBytes >= self.segmentBytes else {
            throw StalkError(
                .invalidArgument,
                "checkpointBytes is \(self.checkpointBytes): it must be at least segmentBytes (\(self.segmentBytes))."
            )
        }
        guard self.releaseRate >= 1000, self.idleCheckpointDelay >= .zero else {
            throw StalkError(
                .invalidArgument,
                "releaseRate must be at least 1000 per second, and idleCheckpointDelay not negative."
            )
        }
    }
}
