// Reading a whole store without changing a byte of it: what verify reports and what repair mends.

internal import StalkCore
internal import StalkFiles
internal import StalkIndex
internal import StalkLog

/// What reading a store from end to end found.
struct StoreExamination {
    let identity: StoreIdentity
    let index: IndexExamination
    /// What is wrong with the log.
    private(set) var logProblems = ProblemList()
    /// Frames that can't be read although they were synced.
    private(set) var logDamage: [LogDamage] = []
    private(set) var contradictions: [LogReplay.Contradiction] = []
    private(set) var isLogMissing = false
    private(set) var frames = 0
    private(set) var records = 0
    private(set) var tornBytes = 0

    /// Reads a store whose lock must be held.
    init(_ directory: any StorageDirectory, progress: @escaping (Int, Int) -> Void) throws(StalkError) {
        let names = try directory.list("")
        // A newer format is told from damage before anything else is read.
        if names.contains(StoreMarker.name) {
            do throws(StalkError) {
                _ = try StoreMarker.read(in: directory)
            } catch {
                guard error.code == .notAStore || error.code == .storeDamaged else { throw error }
            }
        } else if !names.contains(where: [StoreRecovery.indexDirectory, Segment.directory].contains) {
            // Throws when the directory is another program's.
            _ = try StoreMarker.read(in: directory)
            throw StoreOpening.noStore(at: directory.path)
        }
        self.index = try IndexExamination(directory, progress: progress)
        self.identity = try StoreIdentity(of: directory, meta: self.index.meta, hasMessages: self.index.messages > 0)
        try self.readLog(directory)
    }

    /// Whether the index must be made anew.
    var isIndexDamaged: Bool { !self.index.problems.isEmpty || self.identity.isIndexForeign }

    /// Whether the log must be settled and begun anew.
    var isLogDamaged: Bool { !self.logProblems.isEmpty }

    var problems: ProblemList {
        var all = ProblemList()
        if let fault = self.identity.markerFault { all.add(StoreMarker.name, fault) }
        if self.identity.isIndexForeign { all.add(IndexExamination.file, "it belongs to another store") }
        all.add(self.index.problems)
        all.add(self.logProblems)
        return all
    }

    var report: VerifyReport {
        VerifyReport(
            frames: self.frames,
            records: self.records,
            messages: self.index.messages,
            tornBytes: self.tornBytes,
            problems: self.problems.all
        )
    }

    // MARK: The log

    private mutating func readLog(_ directory: any StorageDirectory) throws(StalkError) {
        if try directory.list(Segment.directory).allSatisfy({ Segment.number(inName: $0) == nil }) {
            self.isLogMissing = true
            self.logProblems.add(Segment.directory, "it is missing or empty")
            return
        }
        let meta = self.isIndexDamaged && self.identity.isIndexForeign ? nil : self.index.meta
        let isUsable = self.index.isStructureSound && self.index.problems.isEmpty && meta != nil
        let tables = isUsable ? try SettledTables(readOnly: directory.path) : nil
        defer { tables?.index.close() }
        var replay = LogReplay(
            meta: meta ?? StoreMeta(store: self.identity.store),
            queues: isUsable ? self.index.queues.values.sorted { $0.number < $1.number } : [],
            settled: meta?.settledFrame,
            isPartLost: !isUsable
        ) { sequence throws(StalkError) in try tables?.soundMessage(sequence) ?? (nil, false) }
        let summary = try replay.run(directory) { damage in
            self.logDamage.append(damage)
            self.logProblems.add(
                Segment.path(damage.place.segment),
                at: damage.place.offset,
                "\(damage.what) \(damage.bytes) bytes are affected."
            )
        } onContradiction: { contradiction in
            self.contradictions.append(contradiction)
            self.logProblems.add(
                Segment.path(contradiction.frame.segment),
                at: contradiction.frame.offset,
                contradiction.what
            )
        }
        self.frames = summary.frames
        self.records = replay.records
        self.tornBytes = summary.tornBytes
    }
}

extension SettledTables {
    /// Opens the tables of a store that nobody has open, and changes nothing, not even the files of LMDB's locks.
    ///
    /// - Parameter path: The store's directory.
    convenience init(readOnly path: String) throws(StalkError) {
        try self.init(
            Environment(
                path: "\(path)/\(StoreRecovery.indexDirectory)",
                mapBytes: 1 << 30,
                tables: Self.names,
                createIfMissing: false,
                isReadOnly: true
            ),
            maxBodyBytes: 1 << 30
        )
    }
}
