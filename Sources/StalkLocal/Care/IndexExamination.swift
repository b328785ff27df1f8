// Reading every row of data.mdb, without LMDB, and holding them against each other.

internal import StalkCore
internal import StalkFiles
internal import StalkIndex

/// What reading a store's index from end to end found.
struct IndexExamination {
    static let file = "\(StoreRecovery.indexDirectory)/data.mdb"

    /// Whether there is no file, or nothing in it.
    private(set) var isMissing = false
    /// Whether LMDB can be given the file without danger.
    private(set) var isStructureSound = false
    private(set) var problems = ProblemList()
    private(set) var meta: StoreMeta?
    /// The queues whose records are sound.
    private(set) var queues: [UInt32: SettledQueue] = [:]
    /// Messages whose records are sound.
    private(set) var messages = 0
    /// Messages of which a record is damaged.
    private(set) var rotten: Set<UInt64> = []
    /// Sound messages that no tree leads to any more, because a page is damaged.
    private(set) var unreachable = 0
    /// The length of data.mdb.
    private(set) var byteCount = 0

    private var rows: IndexRows
    private let progress: (Int, Int) -> Void
    private var expected: [String: RowSum] = [:]
    private var figures: [UInt32: SettledQueue] = [:]
    private var lastSequence: UInt64 = 0
    /// Damaged rows of the lines, whose messages are not missed there once more.
    private var damagedPlaces: [String: Int] = [:]

    /// Reads the index of a store, whose lock must be held; changes nothing.
    ///
    /// - Parameters:
    ///   - directory: The store's directory.
    ///   - progress: Called now and then with the messages read and the messages in all.
    /// - Throws: ``StalkError`` with ``StalkError/Code/newerFormat``, or when the file can't be read.
    init(_ directory: any StorageDirectory, progress: @escaping (Int, Int) -> Void) throws(StalkError) {
        self.rows = try IndexRows()
        self.progress = progress
        let path = directory.path
        guard try directory.list(StoreRecovery.indexDirectory).contains("data.mdb") else {
            self.isMissing = true
            self.problems.add(Self.file, "it is missing")
            return
        }
        try self.read(path: path)
        // Which rows differ takes memory to say, so it is asked only when some do.
        if self.isStructureSound, self.expected.values.contains(where: { !$0.isZero }) {
            try self.describeDifferences(path: path)
        }
    }

    private mutating func read(path: String) throws(StalkError) {
        // Given back at the end of this function: one process opens the index once.
        let file = try PageFile(directory: "\(path)/\(StoreRecovery.indexDirectory)")
        self.byteCount = file.byteCount
        self.isMissing = file.byteCount == 0
        let missing = SettledTables.names.filter { file.rowCount(of: $0) == nil }
        if file.isSound, !missing.isEmpty {
            for name in missing { self.problems.add(Self.file, "the table \(name) is missing") }
        }
        try self.readStore(file)
        try self.readMessages(file)
        try self.readPlaces(file)
        file.checkFreePages()
        self.isStructureSound = file.isSound && missing.isEmpty
        for problem in file.problems { self.problems.add(Self.file, at: problem.offset, problem.what) }
        if file.problemCount > file.problems.count {
            self.problems.add(Self.file, "\(file.problemCount - file.problems.count) more places of LMDB's are damaged")
        }
        guard self.isStructureSound else {
            self.expected = [:]
            try self.countLost(file)
            return
        }
        self.checkFigures()
    }

    private mutating func noteDamaged(_ row: PageCursor.Row, in table: String, _ what: String = "is damaged") {
        let digits = row.key.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        self.problems.add(Self.file, "the record \(digits) of the table \(table) \(what)")
    }

    // MARK: The store, its queues and dictionaries

    private mutating func readStore(_ file: PageFile) throws(StalkError) {
        var cursor = file.rows(of: "meta")
        while let row = cursor?.next() {
            let meta = try self.rows.meta(row)
            if meta == nil { self.noteDamaged(row, in: "meta") }
            self.meta = meta ?? self.meta
        }
        if self.meta == nil, self.problems.isEmpty, file.isSound, file.rowCount(of: "meta") != nil {
            self.problems.add(Self.file, "the table meta is empty")
        }
        cursor = file.rows(of: "dictionaries")
        while let row = cursor?.next() {
            if try !self.rows.addDictionary(row) { self.noteDamaged(row, in: "dictionaries") }
        }
        var names: Set<QueueName> = []
        cursor = file.rows(of: "queues")
        while let row = cursor?.next() {
            guard let queue = try self.rows.queue(row) else {
                self.noteDamaged(row, in: "queues")
                continue
            }
            if !names.insert(queue.name).inserted {
                self.noteDamaged(row, in: "queues", "has the name of another queue")
            }
            self.queues[queue.number] = queue
        }
        if let last = self.queues.keys.max(), Int(last) != self.queues.count {
            self.problems.add(Self.file, "the table queues has \(self.queues.count) of \(last) queues")
        }
    }

    // MARK: Messages

    private mutating func readMessages(_ file: PageFile) throws(StalkError) {
        let total = file.rowCount(of: "messages") ?? 0
        var states = file.rows(of: "states")
        var state = states?.next()
        var cursor = file.rows(of: "messages")
        var count = 0
        while let row = cursor?.next() {
            while let other = state, other.key.lexicographicallyPrecedes(row.key) {
                self.noteDamaged(other, in: "states", "belongs to no message")
                state = states?.next()
            }
            let isOfThis = state?.key == row.key
            try self.read(row, state: isOfThis ? state : nil)
            if isOfThis { state = states?.next() }
            count += 1
            if count % 1024 == 0 { self.progress(count, total) }
        }
        while let other = state {
            self.noteDamaged(other, in: "states", "belongs to no message")
            state = states?.next()
        }
    }

    private mutating func read(_ row: PageCursor.Row, state: PageCursor.Row?) throws(StalkError) {
        let message = try self.rows.message(row)
        var standing = message?.standing
        if message == nil { self.noteDamaged(row, in: "messages") }
        if let state {
            let changed = try self.rows.state(state)
            if changed == nil { self.noteDamaged(state, in: "states") }
            standing = changed
        }
        guard let message, let standing else {
            if let sequence = IndexRows.sequence(row.key) { self.rotten.insert(sequence) }
            return
        }
        self.messages += 1
        self.lastSequence = max(self.lastSequence, standing.key.sequence)
        self.count(standing.place, bodyBytes: message.bodyBytes)
    }

    private mutating func count(_ place: SettledPlace, bodyBytes: Int) {
        let released = self.meta?.releasedThrough ?? .first
        let waits = place.isScheduled && !place.isDead && place.key.scheduleKey > released
        for row in place.rows(releasedThrough: released) {
            self.expected[row.table, default: RowSum()].add(row.key, row.value)
        }
        var figures = self.figures[place.queue] ?? SettledQueue(number: place.queue, name: QueueName(stored: ""))
        figures.bytes += bodyBytes
        if place.isDead {
            figures.dead += 1
        } else if waits {
            figures.delayed += 1
        } else {
            figures.ready += 1
        }
        self.figures[place.queue] = figures
    }

    // MARK: Places in line

    private mutating func readPlaces(_ file: PageFile) throws(StalkError) {
        for table in ["ready", "schedule", "dead"] {
            var cursor = file.rows(of: table)
            while let row = cursor?.next() {
                guard let value = self.rows.value(of: row, in: table) else {
                    self.noteDamaged(row, in: table)
                    self.damagedPlaces[table, default: 0] += 1
                    continue
                }
                if let sequence = IndexRows.sequence(Array(row.key.suffix(8))), self.rotten.contains(sequence) {
                    continue
                }
                self.expected[table, default: RowSum()].remove(row.key, Self.comparable(value, in: table))
            }
        }
    }

    /// What the messages say that a row must hold: that it announces a record in `states` was not always written.
    private static func comparable(_ value: [UInt8], in table: String) -> [UInt8] {
        table == "ready" ? Array(value.prefix(1)) : value
    }

    private mutating func checkFigures() {
        for (number, found) in self.figures.sorted(by: { $0.key < $1.key }) where self.queues[number] == nil {
            let count = found.ready + found.delayed + found.dead
            self.problems.add(Self.file, "\(count) messages are in the queue number \(number), which has no record")
        }
        if let meta = self.meta, meta.nextSequence <= self.lastSequence {
            self.problems.add(
                Self.file,
                "the next message is to get the number \(meta.nextSequence), but there is one with \(self.lastSequence)"
            )
        }
        // A damaged message can't be counted, and what it changes in the figures is not damage of its own.
        guard self.rotten.isEmpty else { return }
        for (number, queue) in self.queues.sorted(by: { $0.key < $1.key }) {
            var found = self.figures[number] ?? SettledQueue(number: number, name: queue.name)
            found.name = queue.name
            found.isPaused = queue.isPaused
            guard found != queue else { continue }
            self.problems.add(
                Self.file,
                "the figures of the queue \(queue.name) are wrong: \(Self.text(queue)) are written down, "
                    + "\(Self.text(found)) are there"
            )
        }
    }

    private static func text(_ queue: SettledQueue) -> String {
        "\(queue.ready) ready, \(queue.delayed) delayed and \(queue.dead) dead messages of \(queue.bytes) bytes"
    }

    // MARK: Details of damage

    /// Counts the messages that no tree leads to any more.
    private mutating func countLost(_ file: PageFile) throws(StalkError) {
        var found = 0
        var dictionaries: [PageCursor.Row] = []
        try file.forEachLostRow { row in
            if self.rows.table(of: row) == "dictionaries" { dictionaries.append(row) }
        }
        for row in dictionaries { _ = try self.rows.addDictionary(row) }
        try file.forEachLostRow { row throws(StalkError) in
            if self.rows.table(of: row) == "messages", try self.rows.message(row) != nil { found += 1 }
        }
        self.unreachable = found
    }

    /// Says how many rows of the lines are missing, and how many are too many.
    private mutating func describeDifferences(path: String) throws(StalkError) {
        let file = try PageFile(directory: "\(path)/\(StoreRecovery.indexDirectory)")
        var wanted: [String: Set<UInt64>] = [:]
        var states = file.rows(of: "states")
        var state = states?.next()
        var cursor = file.rows(of: "messages")
        while let row = cursor?.next() {
            while let other = state, other.key.lexicographicallyPrecedes(row.key) { state = states?.next() }
            guard let message = try self.rows.message(row) else { continue }
            var standing = Optional(message.standing)
            if let state, state.key == row.key { standing = try self.rows.state(state) }
            for row in standing?.place.rows(releasedThrough: self.meta?.releasedThrough ?? .first) ?? [] {
                wanted[row.table, default: []].insert(RowSum.hash(row.key, row.value))
            }
        }
        for table in ["ready", "schedule", "dead"] {
            var surplus = 0
            cursor = file.rows(of: table)
            while let row = cursor?.next() {
                let sequence = IndexRows.sequence(Array(row.key.suffix(8)))
                guard let value = self.rows.value(of: row, in: table), !self.rotten.contains(sequence ?? 0) else {
                    continue
                }
                if wanted[table]?.remove(RowSum.hash(row.key, Self.comparable(value, in: table))) == nil {
                    surplus += 1
                }
            }
            let missing = (wanted[table]?.count ?? 0) - (self.damagedPlaces[table] ?? 0)
            if missing > 0 { self.problems.add(Self.file, "\(missing) messages are not in the table \(table)") }
            if surplus > 0 {
                self.problems.add(Self.file, "\(surplus) rows of the table \(table) belong to no message")
            }
        }
    }
}

/// A sum over rows in any order: two tables with the same rows have the same.
struct RowSum {
    private var sum: UInt64 = 0
    private var count = 0

    var isZero: Bool { self.sum == 0 && self.count == 0 }

    mutating func add(_ key: [UInt8], _ value: [UInt8]) {
        self.sum &+= Self.hash(key, value)
        self.count += 1
    }

    mutating func remove(_ key: [UInt8], _ value: [UInt8]) {
        self.sum &-= Self.hash(key, value)
        self.count -= 1
    }

    static func hash(_ key: [UInt8], _ value: [UInt8]) -> UInt64 {
        var hasher = Hasher()
        hasher.combine(key)
        hasher.combine(value)
        return UInt64(bitPattern: Int64(hasher.finalize()))
    }
}

extension SettledPlace {
    /// The rows that say in LMDB that a message stands here.
    ///
    /// - Parameter hasState: Whether `ready` is to announce a record in `states`.
    func rows(
        releasedThrough released: ScheduleKey,
        hasState: Bool = false
    ) -> [(table: String, key: [UInt8], value: [UInt8])] {
        let key = KeyBuilder.place(self.queue, self.key)
        if self.isDead { return [("dead", key, [])] }
        let ready = ("ready", key, [UInt8(self.isScheduled ? 1 : 0)] + (hasState ? [1] : []))
        guard self.isScheduled, self.key.scheduleKey > released else { return [ready] }
        return [ready, ("schedule", KeyBuilder.schedule(self.key.scheduleKey), KeyBuilder.queue(self.queue))]
    }
}
