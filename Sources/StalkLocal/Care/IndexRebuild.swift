// A new index from what can be read of a damaged one.

internal import StalkCore
internal import StalkFiles
internal import StalkIndex
internal import StalkZstd

/// Fills new, empty tables with every row of a damaged data.mdb that is sound, and makes anew what follows from those.
///
/// The damaged file is only read, and not by LMDB. Rows whose checksum fails are kept by `damaged`.
struct IndexRebuild {
    /// Rows that go into one transaction, and bytes.
    private static let batchRows = 4096
    private static let batchBytes = 8 << 20

    private let tables: SettledTables
    private let damaged: DamagedFiles
    private let rows: IndexRows
    /// Messages that the log publishes, which must not be taken from the index when nobody knows which of them it settled.
    private let skipped: Set<UInt64>
    private var pending: [(table: Table, key: [UInt8], value: [UInt8])] = []
    private var pendingBytes = 0
    private var rottenStates: Set<UInt64> = []
    /// Where messages stood whose records have not been found, or say something else.
    private var undecided: [UInt64: SettledPlace] = [:]

    private(set) var meta: StoreMeta?
    /// The queues as their records say.
    private(set) var queues: [UInt32: SettledQueue] = [:]
    /// The highest number of a queue that a message is in.
    private(set) var lastQueue: UInt32 = 0
    private(set) var lastSequence: UInt64 = 0
    private(set) var kept = 0
    private(set) var mended = 0
    private(set) var lost = 0
    /// Messages of which only a part could be read.
    private(set) var setAside: Set<UInt64> = []

    init(into tables: SettledTables, damaged: DamagedFiles, skipping skipped: Set<UInt64>) throws(StalkError) {
        self.tables = tables
        self.damaged = damaged
        self.skipped = skipped
        self.rows = try IndexRows()
    }

    /// Reads what can be read.
    ///
    /// - Parameters:
    ///   - file: The damaged index.
    ///   - wall: The wall clock, for notes in the history of messages.
    mutating func run(_ file: PageFile, wall: Int64) throws(StalkError) {
        try self.readStore(file)
        try self.readMessages(file)
        try self.readStates(file)
        try self.readPlaces(file)
        // All trees were read: what is left are the pages that none of them leads to any more.
        try file.forEachLostRow { row throws(StalkError) in
            guard let table = self.rows.table(of: row) else { return }
            try self.takeLost(row, table)
        }
        try self.flush()
        try self.mendStates(wall: wall)
    }

    // MARK: Rows

    private mutating func put(_ table: Table, _ key: [UInt8], _ value: [UInt8]) throws(StalkError) {
        self.pending.append((table, key, value))
        self.pendingBytes += key.count + value.count
        if self.pending.count >= Self.batchRows || self.pendingBytes >= Self.batchBytes { try self.flush() }
    }

    private mutating func flush() throws(StalkError) {
        let rows = self.pending
        guard !rows.isEmpty else { return }
        try self.tables.index.write { transaction throws(StalkError) in
            for row in rows { try transaction.append(row.table, row.key, row.value) }
        }
        self.pending = []
        self.pendingBytes = 0
    }

    private mutating func readStore(_ file: PageFile) throws(StalkError) {
        try self.forEach(file, "meta") { this, row throws(StalkError) in
            guard let meta = try this.rows.meta(row) else { return false }
            this.meta = meta
            return true
        }
        try self.forEach(file, "dictionaries") { this, row throws(StalkError) in try this.takeDictionary(row) }
        // Bodies on sound pages may need a dictionary on a lost one.
        try file.forEachLostRow { row throws(StalkError) in
            if self.rows.table(of: row) == "dictionaries" { _ = try self.takeDictionary(row) }
        }
        try self.forEach(file, "queues") { this, row throws(StalkError) in try this.takeQueue(row) }
    }

    private mutating func takeDictionary(_ row: PageCursor.Row) throws(StalkError) -> Bool {
        guard try self.rows.addDictionary(row), let value = self.rows.value(of: row, in: "dictionaries") else {
            return false
        }
        try self.put(self.tables.dictionaries, row.key, value)
        return true
    }

    private mutating func takeQueue(_ row: PageCursor.Row) throws(StalkError) -> Bool {
        guard let queue = try self.rows.queue(row), !self.queues.values.contains(where: { $0.name == queue.name })
        else {
            return false
        }
        self.queues[queue.number] = queue
        return true
    }

    private mutating func readMessages(_ file: PageFile) throws(StalkError) {
        try self.forEach(file, "messages") { this, row throws(StalkError) in
            let isTaken = try this.takeMessage(row)
            if !isTaken, let sequence = IndexRows.sequence(row.key) { this.setAside.insert(sequence) }
            return isTaken
        }
        try self.flush()
    }

    private mutating func takeMessage(_ row: PageCursor.Row) throws(StalkError) -> Bool {
        guard let message = try self.rows.message(row), let value = self.rows.value(of: row, in: "messages") else {
            return false
        }
        let sequence = message.standing.key.sequence
        self.lastSequence = max(self.lastSequence, sequence)
        guard !self.skipped.contains(sequence) else { return true }
        self.lastQueue = max(self.lastQueue, message.standing.queue)
        self.kept += 1
        try self.put(self.tables.messages, row.key, value)
        return true
    }

    private mutating func readStates(_ file: PageFile) throws(StalkError) {
        try self.forEach(file, "states") { this, row throws(StalkError) in
            guard let state = try this.rows.state(row) else {
                if let sequence = IndexRows.sequence(row.key) { this.rottenStates.insert(sequence) }
                return false
            }
            return try this.take(state, row)
        }
        try self.flush()
    }

    private mutating func take(_ state: MessageStanding, _ row: PageCursor.Row) throws(StalkError) -> Bool {
        guard !self.skipped.contains(state.key.sequence) else { return true }
        guard let value = self.rows.value(of: row, in: "states") else { return false }
        // What belongs to no message is dropped again when everything was read.
        self.lastQueue = max(self.lastQueue, state.queue)
        try self.put(self.tables.states, row.key, value)
        return true
    }

    /// The lines are made anew: their rows only say where messages stood whose record in `states` is lost.
    private mutating func readPlaces(_ file: PageFile) throws(StalkError) {
        for (name, isDead) in [("ready", false), ("dead", true)] {
            try self.forEach(file, name) { this, row throws(StalkError) in
                guard let place = this.rows.place(row, isDead: isDead) else { return false }
                try this.note(place)
                return true
            }
        }
        try self.forEach(file, "schedule") { this, row throws(StalkError) in
            this.rows.value(of: row, in: "schedule") != nil
        }
    }

    private mutating func note(_ place: SettledPlace) throws(StalkError) {
        let sequence = place.key.sequence
        guard !self.skipped.contains(sequence), !self.setAside.contains(sequence) else { return }
        self.lastSequence = max(self.lastSequence, sequence)
        if let own = try self.ownStanding(sequence), !self.rottenStates.contains(sequence) {
            if own.place == place { return }
            if try self.tables.standing(sequence) != nil { return }
        }
        self.undecided[sequence] = place
    }

    private mutating func put(_ state: MessageStanding) throws(StalkError) {
        var writer = ByteWriter()
        state.write(to: &writer)
        self.mended += 1
        self.lastQueue = max(self.lastQueue, state.queue)
        try self.put(self.tables.states, KeyBuilder.message(state.key.sequence), writer.bytes)
    }

    /// Where a message stood when it was settled; `nil` when there is no such message.
    private func ownStanding(_ sequence: UInt64) throws(StalkError) -> MessageStanding? {
        try self.tables.index.read { transaction throws(StalkError) in
            try withKey(KeyBuilder.message(sequence)) { key throws(StalkError) in
                try transaction.withValue(self.tables.messages, key) { value throws(StalkError) in
                    try MessageValue.read(value, sequence: sequence) { record, _ throws(StalkError) in record.standing }
                }
            }
        }
    }

    /// Takes a sound row from a page that no tree leads to any more.
    private mutating func takeLost(_ row: PageCursor.Row, _ table: String) throws(StalkError) {
        switch table {
        case "messages": _ = try self.takeMessage(row)
        case "states":
            guard let state = try self.rows.state(row) else { return }
            _ = try self.take(state, row)
        case "queues": _ = try self.takeQueue(row)
        case "meta": if self.meta == nil { self.meta = try self.rows.meta(row) }
        default: break
        }
    }

    /// Sees to messages without a sound record in `states`, and to records there without a message.
    private mutating func mendStates(wall: Int64) throws(StalkError) {
        for (sequence, place) in self.undecided.sorted(by: { $0.key < $1.key }) {
            guard try self.ownStanding(sequence) != nil else {
                self.lost += 1
                continue
            }
            guard try self.tables.standing(sequence) == nil else { continue }
            self.rottenStates.remove(sequence)
            try self.put(Self.standing(at: place, wall: wall))
        }
        for sequence in self.rottenStates.sorted() where !self.setAside.contains(sequence) {
            guard try self.tables.standing(sequence) == nil, let own = try self.ownStanding(sequence) else { continue }
            // Nothing says where it stood: a person is to decide.
            var place = own.place
            (place.isDead, place.isScheduled) = (true, false)
            try self.put(Self.standing(at: place, wall: wall))
        }
        try self.flush()
        try self.dropOrphanedStates()
    }

    /// What is known of a message of which only the place is known.
    private static func standing(at place: SettledPlace, wall: Int64) -> MessageStanding {
        let why = "stalk repair: the history of this message was damaged"
        return MessageStanding(
            queue: place.queue,
            key: place.key,
            isScheduled: place.isScheduled,
            isDead: place.isDead,
            attempts: 1,
            failures: [FailureRecord(attempt: 1, at: wall, reason: why)]
        )
    }

    private mutating func dropOrphanedStates() throws(StalkError) {
        var orphans: [(key: [UInt8], value: [UInt8])] = []
        try self.tables.index.read { transaction throws(StalkError) in
            try transaction.scan(self.tables.states) { key, value throws(StalkError) in
                if try !transaction.contains(self.tables.messages, key) {
                    orphans.append(([UInt8](key), [UInt8](value)))
                }
                return .next
            }
        }
        guard !orphans.isEmpty else { return }
        for row in orphans {
            try self.damaged.keep(table: "states", key: row.key, stored: row.value, "belongs to no message")
            if let sequence = IndexRows.sequence(row.key), self.undecided[sequence] == nil {
                self.setAside.insert(sequence)
            }
        }
        try self.tables.index.write { transaction throws(StalkError) in
            for row in orphans { try transaction.delete(self.tables.states, row.key) }
        }
    }

    /// Goes over a table; rows that the closure does not take are kept aside.
    private mutating func forEach(
        _ file: PageFile,
        _ table: String,
        _ take: (inout Self, PageCursor.Row) throws(StalkError) -> Bool
    ) throws(StalkError) {
        guard var cursor = file.rows(of: table) else { return }
        while let row = cursor.next() {
            guard try !take(&self, row) else { continue }
            try self.damaged.keep(table: table, key: row.key, stored: row.stored, "is damaged")
        }
    }
}
