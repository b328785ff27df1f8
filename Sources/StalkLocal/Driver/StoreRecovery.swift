// What opening does with a store's files, after anything that a crash can cause.

internal import StalkCore
internal import StalkFiles
internal import StalkIndex
internal import StalkLog
internal import StalkPlatform

/// Brings a store to life from its files, step by step.
///
/// Whose files they are is the caller's business: a real directory and LMDB, or a simulated disk and a stand-in.
struct StoreRecovery {
    static let indexDirectory = "index"

    let directory: any StorageDirectory
    let options: LocalStoreOptions
    /// Opens what holds the tables, or makes it.
    let openIndex: (_ createIfMissing: Bool) throws(StalkError) -> any Index
    /// Wakes a worker that sleeps.
    let wake: @Sendable (StoreRole) -> Void
    /// The number of a store that is made.
    var newStoreNumber: () -> UInt64 = { UInt64.random(in: 1...UInt64.max) }

    /// What a store needs to work.
    struct Recovered: Sendable {
        var workers: StoreWorkers
        var report: RecoveryReport
    }

    /// Recovers the store, whose lock must be held; blocks.
    func run() throws(StalkError) -> Recovered {
        let (tables, meta) = try self.openTables()
        let queues = try tables.readQueues()
        let start = Moment(nanoseconds: max(meta.storeTime, 0) * 1_000_000)
        var engine = Engine(meta: meta, limits: EngineLimits(options: self.options), now: start)
        for (position, queue) in queues.sorted(by: { $0.number < $1.number }).enumerated() {
            guard Int(queue.number) == position + 1 else {
                throw StalkError(
                    .storeDamaged,
                    "\(self.directory.path)/index lacks the record of the queue number \(position + 1): run stalk verify. "
                        + "Nothing was changed."
                )
            }
            engine.addSettled(queue)
        }

        var report = RecoveryReport(replayedFrames: 0, replayedRecords: 0, tornBytes: 0, quarantinedFrames: 0)
        let summary = try self.replay(into: &engine, tables, &report)
        let clockOffset = self.clockOffset(of: engine.meta, lastTime: max(meta.storeTime, summary.storeTime))
        let segments = try self.segments(summary, store: meta.store)
        engine.beginSession(
            bootID: self.options.clock.bootID,
            clockOffset: clockOffset,
            lastFrame: summary.lastSequence,
            segments: segments,
            now: Moment(nanoseconds: self.options.clock.bootTime().nanoseconds + clockOffset)
        )
        let core = StoreCore(
            engine: engine,
            directory: self.directory,
            tables: tables,
            options: self.options,
            clockOffset: clockOffset,
            wake: self.wake
        )
        let writer = LogWriter(
            store: meta.store,
            segment: segments.active,
            at: segments.offset,
            after: summary.lastSequence
        )
        let workers = StoreWorkers(
            core: core,
            log: LogWorker(core: core, writer: writer),
            scheduler: SchedulerWorker(core: core),
            keeper: KeeperWorker(core: core, nextSegment: segments.nextNumber)
        )
        return Recovered(workers: workers, report: report)
    }

    /// Opens LMDB's tables, made first if the store is new.
    private func openTables() throws(StalkError) -> (SettledTables, StoreMeta) {
        // Read again under the lock: another process may have made the store meanwhile.
        guard let marker = try StoreMarker.read(in: self.directory) else {
            return try self.makeStore()
        }
        let tables: SettledTables
        do throws(StalkError) {
            tables = try self.tables(createIfMissing: false)
        } catch {
            guard [.notAStore, .noSuchStore].contains(error.code) else { throw error }
            throw StalkError(
                .storeDamaged,
                "\(self.directory.path)/index is missing, which no crash can cause: restore it from a copy. "
                    + "Nothing was changed.",
                cause: error
            )
        }
        guard let meta = try tables.readMeta() else {
            throw StalkError(
                .storeDamaged,
                "\(self.directory.path)/index is empty, which no crash can cause: restore it from a copy."
            )
        }
        guard meta.store == marker.store else {
            throw StalkError(
                .storeDamaged,
                "\(self.directory.path)/index belongs to the store \(String(meta.store, radix: 16)), but STALK names "
                    + "\(String(marker.store, radix: 16)): put the files of one store together. Nothing was changed."
            )
        }
        if try self.directory.list(Segment.directory).isEmpty {
            throw StalkError(
                .storeDamaged,
                "\(self.directory.path)/log is missing or empty, which no crash can cause: restore it from a copy. "
                    + "Nothing was changed."
            )
        }
        return (tables, meta)
    }

    /// Makes a store; the marker comes last, so that a store which has one has everything.
    private func makeStore() throws(StalkError) -> (SettledTables, StoreMeta) {
        try self.directory.makeDirectory(Segment.directory)
        try self.directory.makeDirectory(Self.indexDirectory)
        let tables = try self.tables(createIfMissing: true)
        // A crash may have left the tables of a store that was never finished: its number is as good as any.
        let meta = try tables.readMeta() ?? StoreMeta(store: self.newStoreNumber())
        try tables.apply(SettleBatch(meta: meta, changes: [], queues: []))
        try self.directory.sync(Self.indexDirectory)
        try Ballast.make(in: self.directory)
        if try self.directory.list(Segment.directory).isEmpty {
            _ = try Segment.make(1, self.options.segmentBytes, in: self.directory)
        }
        // A segment may be there from a making that was cut short, before its name was durable.
        try self.directory.sync(Segment.directory)
        try StoreMarker(store: meta.store).write(in: self.directory)
        return (tables, meta)
    }

    private func tables(createIfMissing: Bool) throws(StalkError) -> SettledTables {
        try SettledTables(self.openIndex(createIfMissing), maxBodyBytes: self.options.maxBodyBytes)
    }

    // MARK: The log

    private func replay(
        into engine: inout Engine,
        _ tables: SettledTables,
        _ report: inout RecoveryReport
    ) throws(StalkError) -> LogSummary {
        let reader = LogReader(
            directory: self.directory,
            store: engine.meta.store,
            settled: engine.meta.settledFrame,
            fromDisk: true
        )
        let policy = self.options.onDamage
        let start = Moment(nanoseconds: max(engine.meta.storeTime, 0) * 1_000_000)
        var hasGaps = false
        let summary = try reader.read { damage throws(StalkError) in
            guard policy == .quarantine else { throw damage.refusal }
            try self.quarantine(damage)
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
    private func quarantine(_ damage: LogDamage) throws(StalkError) {
        try self.directory.makeDirectory("damaged")
        let source = try self.directory.open(Segment.path(damage.place.segment), .readOnly)
        let name = "damaged/\(String(damage.place.segment, radix: 16))-\(damage.place.offset).frame"
        let copy = try self.directory.open(name, .ifMissing)
        var offset = 0
        while offset < damage.bytes {
            let bytes = try source.read(at: damage.place.offset + offset, count: min(1 << 20, damage.bytes - offset))
            guard !bytes.isEmpty else { break }
            try copy.write(bytes, at: offset)
            offset += bytes.count
        }
        try copy.sync()
        try self.directory.sync("damaged")
    }

    // MARK: Segments

    /// Sorts the files of the log: what holds frames that LMDB lacks stays, the rest is used again.
    private func segments(_ summary: LogSummary, store: UInt64) throws(StalkError) -> OpenedSegments {
        var next = summary.lastSegment + 1
        var retired: [Segment] = []
        var spares: [Segment] = []
        var superfluous: [UInt64] = []
        for name in try self.directory.list(Segment.directory) {
            guard let number = Segment.number(inName: name) else { continue }
            let file = try self.directory.open(Segment.path(number), .existing)
            if summary.liveSegments.contains(number) {
                retired.append(Segment(number: number, file: file))
            } else if spares.count < 3, try file.size() == self.options.segmentBytes {
                try self.directory.rename(Segment.path(number), to: Segment.path(next))
                spares.append(Segment(number: next, file: file))
                next += 1
            } else {
                superfluous.append(number)
            }
        }
        // One stays until there is another: a log without any segment is taken for lost.
        for number in superfluous.dropFirst() { try self.directory.remove(Segment.path(number)) }
        try self.directory.sync(Segment.directory)
        while spares.count < 3 {
            do throws(StalkError) {
                spares.append(try Segment.make(next, self.options.segmentBytes, in: self.directory))
            } catch {
                // On a full disk one segment is enough to finish messages, which brings space back.
                guard error.code == .storageFull else { throw error }
                guard spares.isEmpty else { break }
                return try self.goOn(in: retired, summary, store: store, fullDisk: error)
            }
            next += 1
        }
        for number in superfluous.prefix(1) { try self.directory.remove(Segment.path(number)) }
        return OpenedSegments(
            active: spares.removeFirst(),
            offset: 0,
            room: self.options.segmentBytes,
            spares: spares,
            retired: retired,
            nextNumber: next
        )
    }

    /// The disk has no room for another segment: the log goes on behind its last frame, where that is safe.
    private func goOn(
        in retired: [Segment],
        _ summary: LogSummary,
        store: UInt64,
        fullDisk: StalkError
    ) throws(StalkError) -> OpenedSegments {
        let reader = LogReader(directory: self.directory, store: store, settled: 0, fromDisk: false)
        guard let end = summary.end, let last = retired.last, last.number == end.segment else { throw fullDisk }
        // It may have been made with another size than segments have now, and only what it has is reserved.
        let room = try last.file.size() - end.offset
        guard room > FrameHeader.byteCount * 16, try reader.isClean(behind: end) else { throw fullDisk }
        return OpenedSegments(
            active: last,
            offset: end.offset,
            room: room,
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
    /// How many bytes the active one has from there on.
    var room: Int
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
        self.nextLease = Self.firstLease(of: self.meta.epoch)
        self.nextFrame = lastFrame + 1
        self.writtenThrough = lastFrame
        self.syncedThrough = lastFrame
        self.activeSegment = segments.active
        self.room.remaining = segments.room
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
