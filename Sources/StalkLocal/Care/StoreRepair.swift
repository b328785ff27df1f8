// Mending a store: plans it, and does it when told to.

internal import StalkCore
internal import StalkFiles
internal import StalkIndex
internal import StalkLog
internal import StalkPlatform

/// Takes out of a store what is damaged, and keeps it in `damaged/`.
///
/// A kill at any step leaves a store that can be repaired again: what is to be removed is kept and synced first; then
/// one commit or one rename puts the index in order, with the log's outcome in it; the log and the marker come after.
struct StoreRepair {
    /// How far numbers are moved on behind what is lost, so that none of it is given out twice.
    private static let sequenceStep: UInt64 = 1 << 20
    private static let frameStep: UInt64 = 1 << 12
    private static let epochStep: UInt32 = 1 << 8
    /// Where numbers go on when nobody knows how far they were.
    private static let sequenceLeap: UInt64 = 1 << 32
    private static let epochLeap: UInt32 = 1 << 20

    let path: String
    var progress: (@Sendable (Int, Int) -> Void)?
    var clock: any StoreClock = SystemStoreClock()
    /// Tests end the repair at a step, as a kill would.
    var onStep: (@Sendable (String) throws(StalkError) -> Void)?

    /// Says what is to be done; changes nothing.
    func plan() throws(StalkError) -> RepairReport {
        let directory = try StoreVerification.open(self.path)
        let lock = try directory.lockUnchanged(StoreOpening.lockName)
        defer { _ = lock }
        return Self.plan(try self.examine(directory))
    }

    /// Mends the store; blocks.
    func apply() throws(StalkError) -> RepairReport {
        let directory = try StoreVerification.open(self.path)
        // The lock file itself is not made before it is known that there is something to repair.
        var lock = try directory.lockUnchanged(StoreOpening.lockName)
        let examination = try self.examine(directory)
        var report = Self.plan(examination)
        guard !report.problems.isEmpty else {
            if lock != nil { try Leftovers.remove(in: directory) }
            return report
        }
        try directory.checkFitness()
        if lock == nil { lock = try directory.lock(StoreOpening.lockName) }
        defer { _ = lock }
        try self.mend(directory, examination, &report)
        report.isApplied = true
        let after = try self.examine(directory)
        guard let left = after.problems.all.first else { return report }
        throw StalkError(
            .storeDamaged,
            "\(self.path) was repaired, but \(left.file) is still damaged: \(left.what). What was removed is in damaged/."
        )
    }

    private func examine(_ directory: RealDirectory) throws(StalkError) -> StoreExamination {
        let progress = self.progress
        return try StoreExamination(directory) { done, total in progress?(done, total) }
    }

    // MARK: The plan

    private static func plan(_ examination: StoreExamination) -> RepairReport {
        var report = RepairReport(problems: examination.problems.all)
        let index = examination.index
        report.messagesKept = examination.identity.isIndexForeign ? 0 : index.messages + index.unreachable
        report.messagesSetAside = index.rotten.count
        report.framesSetAside = examination.logDamage.count + examination.contradictions.count
        guard !report.problems.isEmpty else { return report }
        if examination.identity.isIndexForeign {
            report.steps.append("move the index of another store to damaged/, and begin a new one from the log")
        } else if index.isMissing {
            report.steps.append("begin a new index from the log: what was only in the index is lost")
        } else if examination.isIndexDamaged {
            report.steps.append(
                "make a new index of the \(report.messagesKept) messages that can be read, and of the log; rows that "
                    + "can't be read go to damaged/"
            )
            if !index.isStructureSound { report.steps.append("keep the old data.mdb in damaged/") }
        }
        for damage in examination.logDamage {
            report.steps.append("copy \(damage.bytes) bytes of \(damage.place) to damaged/ and go on behind them")
        }
        for contradiction in examination.contradictions {
            report.steps.append("copy the frame \(contradiction.frame) to damaged/ and pass over what it can't mean")
        }
        if examination.isIndexDamaged || examination.isLogDamaged {
            report.steps.append("settle what the log holds in the index, and begin a new log")
        }
        if examination.identity.markerFault != nil {
            report.steps.append("write STALK anew for the store \(String(examination.identity.store, radix: 16))")
        }
        return report
    }

    // MARK: Doing it

    private func step(_ name: String) throws(StalkError) { try self.onStep?(name) }

    private func mend(
        _ directory: RealDirectory,
        _ examination: StoreExamination,
        _ report: inout RepairReport
    ) throws(StalkError) {
        let damaged = try DamagedFiles(directory)
        try self.step("begun")
        if examination.isIndexDamaged || examination.isLogDamaged {
            do throws(StalkError) {
                try self.mendIndexAndLog(directory, examination, damaged, &report)
            } catch {
                // A new index that could not be finished only takes room, which may be what was missing.
                if error.code == .storageFull { try? Leftovers.remove(in: directory) }
                throw error
            }
        }
        if examination.identity.markerFault != nil {
            if try directory.list("").contains(StoreMarker.name), !(try Self.isEmpty(StoreMarker.name, directory)) {
                let keeper = try DamagedFiles(directory)
                try keeper.keepFile(StoreMarker.name, as: "STALK", "it is damaged", link: directory.link)
                try keeper.seal(["wrote STALK anew"])
                report.files += keeper.files.map { "\(DamagedFiles.directory)/\($0.name)" }
            }
            try self.step("marker kept")
            try StoreMarker(store: examination.identity.store).write(in: directory)
            try self.step("marker written")
        }
        try Leftovers.remove(in: directory)
    }

    private static func isEmpty(_ name: String, _ directory: RealDirectory) throws(StalkError) -> Bool {
        try directory.open(name, .readOnly).size() == 0
    }

    private func mendIndexAndLog(
        _ directory: RealDirectory,
        _ examination: StoreExamination,
        _ damaged: DamagedFiles,
        _ report: inout RepairReport
    ) throws(StalkError) {
        try Leftovers.remove(in: directory)
        try directory.makeDirectory(StoreRecovery.indexDirectory)
        try directory.makeDirectory(Segment.directory)
        let isNew = examination.isIndexDamaged
        if isNew { try directory.makeDirectory(Leftovers.workshop) }
        let place = isNew ? Leftovers.workshop : StoreRecovery.indexDirectory
        var tables = try SettledTables(
            SettledTables.openLMDB(path: "\(self.path)/\(place)", createIfMissing: isNew),
            maxBodyBytes: 1 << 30
        )
        defer { tables.index.close() }
        var start = try self.start(directory, examination, tables, damaged, &report)
        if isNew {
            // Dictionaries are read when tables are opened.
            tables.index.close()
            tables = try SettledTables(
                SettledTables.openLMDB(path: "\(self.path)/\(place)", createIfMissing: false),
                maxBodyBytes: 1 << 30
            )
        }
        try self.step("rebuilt")
        let (batch, lastSegment) = try self.replayLog(directory, examination, tables, &start, damaged, &report)
        if isNew, !examination.index.isMissing,
            !examination.index.isStructureSound || examination.identity.isIndexForeign
        {
            try damaged.keepFile(
                IndexExamination.file,
                as: "data.mdb",
                "it could not be read whole",
                link: directory.link
            )
        }
        try damaged.seal(report.steps)
        report.files += damaged.files.map { "\(DamagedFiles.directory)/\($0.name)" }
        try self.step("kept")
        try tables.apply(batch)
        try self.step("applied")
        if isNew {
            tables.index.close()
            try directory.rename("\(Leftovers.workshop)/data.mdb", to: IndexExamination.file)
            try directory.sync(StoreRecovery.indexDirectory)
            try directory.sync(Leftovers.workshop)
            try self.step("index replaced")
        }
        // Everything is in the index now: what the log holds is settled.
        _ = try Segment.make(lastSegment + 1, 1 << 18, in: directory)
        try self.step("log begun")
        for name in try directory.list(Segment.directory) {
            guard let number = Segment.number(inName: name), number <= lastSegment else { continue }
            try directory.remove(Segment.path(number))
        }
        try directory.sync(Segment.directory)
        try self.step("log replaced")
    }

    /// What the replay of the log begins with.
    private struct Start {
        var meta: StoreMeta
        var queues: [SettledQueue]
        var settled: UInt64?
        var setAside: Set<UInt64> = []
        /// The number of the last message, and of the last owner, that anything speaks of.
        var lastSequence: UInt64 = 0
        var epoch: UInt32 = 0
    }

    private func start(
        _ directory: RealDirectory,
        _ examination: StoreExamination,
        _ tables: SettledTables,
        _ damaged: DamagedFiles,
        _ report: inout RepairReport
    ) throws(StalkError) -> Start {
        let store = examination.identity.store
        let known = examination.identity.isIndexForeign ? nil : examination.index.meta
        let log = try LogContents(
            directory,
            store: store,
            settled: known?.settledFrame ?? 0,
            knownQueues: examination.index.queues.keys.max() ?? 0
        )
        guard examination.isIndexDamaged else {
            var start = Start(meta: known ?? StoreMeta(store: store), queues: [], settled: known?.settledFrame)
            start.queues = Self.queues(upTo: log.lastQueue, examination.index.queues, log)
            start.epoch = log.epoch
            return start
        }
        // Nobody knows which frames such an index contains: the log says all of what it published.
        var rebuild = try IndexRebuild(into: tables, damaged: damaged, skipping: known == nil ? log.published : [])
        if !examination.index.isMissing, !examination.identity.isIndexForeign {
            let file = try PageFile(directory: "\(self.path)/\(StoreRecovery.indexDirectory)")
            try rebuild.run(file, wall: self.clock.wallTime().millisecondsSince1970)
        }
        report.messagesKept = rebuild.kept
        report.messagesMended = rebuild.mended
        report.messagesLost = rebuild.lost
        report.messagesSetAside = rebuild.setAside.count
        let meta = rebuild.meta ?? Self.unknownMeta(store)
        let figures = try tables.makeLines(releasedThrough: meta.releasedThrough)
        var queues = Self.queues(upTo: max(log.lastQueue, rebuild.lastQueue), rebuild.queues, log)
        for position in queues.indices {
            let found = figures[queues[position].number]
            queues[position].ready = found?.ready ?? 0
            queues[position].delayed = found?.delayed ?? 0
            queues[position].dead = found?.dead ?? 0
            queues[position].bytes = found?.bytes ?? 0
        }
        return Start(
            meta: meta,
            queues: queues,
            settled: rebuild.meta?.settledFrame,
            setAside: rebuild.setAside,
            lastSequence: rebuild.lastSequence,
            epoch: log.epoch
        )
    }

    /// What stands in `meta` when nothing is known: numbers go on far from all that can have been given out.
    private static func unknownMeta(_ store: UInt64) -> StoreMeta {
        var meta = StoreMeta(store: store)
        meta.nextSequence = Self.sequenceLeap
        meta.epoch = Self.epochLeap + UInt32.random(in: 0..<Self.epochLeap)
        return meta
    }

    /// The queues without gaps; those whose name is lost get one that tells so.
    private static func queues(
        upTo last: UInt32,
        _ known: [UInt32: SettledQueue],
        _ log: LogContents
    ) -> [SettledQueue] {
        var queues = known
        var names = Set(known.values.map(\.name))
        let last = max(last, known.keys.max() ?? 0)
        guard last > 0 else { return [] }
        for number in 1...last where queues[number] == nil {
            var name = log.queues[number] ?? QueueName(stored: "recovered-\(number)")
            var attempt = 1
            while !names.insert(name).inserted {
                attempt += 1
                name = QueueName(stored: "recovered-\(number)-\(attempt)")
            }
            queues[number] = SettledQueue(number: number, name: name)
        }
        return queues.values.sorted { $0.number < $1.number }
    }

    // MARK: The log

    private func replayLog(
        _ directory: RealDirectory,
        _ examination: StoreExamination,
        _ tables: SettledTables,
        _ start: inout Start,
        _ damaged: DamagedFiles,
        _ report: inout RepairReport
    ) throws(StalkError) -> (SettleBatch, lastSegment: UInt64) {
        let isLossy = examination.isIndexDamaged || !examination.logDamage.isEmpty || examination.isLogMissing
        var replay = LogReplay(
            meta: start.meta,
            queues: start.queues,
            settled: start.settled,
            isPartLost: isLossy
        ) { sequence throws(StalkError) in try tables.soundMessage(sequence) }
        replay.engine.setAside = start.setAside
        var frames = 0
        let summary = try replay.run(directory) { damage throws(StalkError) in
            frames += 1
            try damaged.keepFrame(damage.place, bytes: damage.bytes, damage.what)
        } onContradiction: { contradiction throws(StalkError) in
            frames += 1
            try damaged.keepFrame(contradiction.frame, bytes: contradiction.bytes, contradiction.what)
        }
        report.framesSetAside = frames
        report.recordsPassedOver = replay.passedOver
        var engine = replay.engine
        for number in engine.queues.numbers { engine.queues[number].isDirty = true }
        var batch = engine.beginCheckpoint(now: Moment(nanoseconds: max(start.meta.storeTime, 0) * 1_000_000))
        batch.meta.storeTime = max(start.meta.storeTime, summary.storeTime)
        batch.meta.settledFrame = summary.lastSequence + Self.frameStep
        batch.meta.epoch = max(batch.meta.epoch, start.epoch)
        batch.meta.nextSequence = max(batch.meta.nextSequence, start.lastSequence + 1)
        if isLossy {
            batch.meta.nextSequence += Self.sequenceStep
            batch.meta.epoch += Self.epochStep
        }
        return (batch, summary.lastSegment)
    }
}
