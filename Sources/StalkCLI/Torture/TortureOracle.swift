// What a store may hold after everything that a journal says: the rules by which it is judged.

/// Follows a journal, and knows of each message whether it must be there, may be there, or must not, and where.
///
/// A call under way when its process ended may have happened or not, and so may one that failed with the storage. All
/// other calls are facts. Lines of several tasks stand in the order in which they were written, which can differ a
/// little from the order in which things happened: a message can be delivered before the line that says it is published.
struct TortureOracle {
    /// How sure it is that a message is done.
    enum End: Comparable {
        case open
        case perhaps
        case certain
    }

    /// What is known of a message.
    struct Record {
        /// The queue that it was published to.
        var home: String
        /// The queue that it was taken from last.
        var queue: String
        /// Where it can stand.
        var places: Set<TorturePlace>
        /// Whether it is certain that it was stored.
        var isStored = false
        /// Whether the store said that it does not take it.
        var isRefused = false
        var end = End.open
        /// The attempts that were reported as taken, less what may have been taken back.
        var attempts = 0
        /// The attempt whose failure is the last one, where that is certain.
        var failedAttempt: Int?
        var id: String?
        /// The life in which it was delivered and not finished.
        var holder: UInt64?
        /// Counts what makes an older call's outcome no longer the last word.
        var version = 0
        /// The line that announced it.
        var line: Int
    }

    /// A finish that is under way.
    struct Finish {
        var ending: TortureEvent.Ending
        var number: UInt64
        var outgoing: [UInt64]
        var version: Int
        var before: Record
        var speaker: UInt64?
        var line: Int
    }

    /// An acknowledge-and-publish: all of it, or nothing.
    struct Group {
        var parent: (number: UInt64, version: Int)
        var children: [UInt64]
    }

    /// Codes that promise that nothing was done.
    static let refusals: Set<String> = ["storageFull", "unavailable", "staleReceipt", "bodyTooLarge"]

    private(set) var records: [UInt64: Record] = [:]
    private(set) var groups: [Group] = []
    private(set) var problems: [TortureVerdict.Problem] = []
    private(set) var lives = 0
    private(set) var settledCount = 0
    private(set) var failures = 0

    /// The messages that are not certainly done: few of all those that a long journal speaks of.
    private var unfinished: Set<UInt64> = []
    private var numbers: [String: UInt64] = [:]
    private var finishes: [String: [Finish]] = [:]
    private var redrives: Set<String> = []
    /// Which of several processes speaks; `nil` when there is one at a time.
    private var speaker: UInt64?
    private var line = 0
    private var isSingle = false
    /// Where the storage failed in this life.
    private var failedAt: Int?

    /// Follows one event.
    mutating func note(_ event: TortureEvent) {
        self.line += 1
        switch event {
        case .life(_, let isSingle): self.beginLife(isSingle: isSingle)
        case .speaker(let speaker): self.speaker = speaker
        case .publishing(let number, let queue): self.publishing(number, queue)
        case .published(let number, let id): self.published(number, id)
        case .unpublished(let number, let code): self.unpublished(number, code)
        case .taken(let id, let attempt, let number, let queue): self.taken(id, attempt, number, queue)
        case .finishing(let id, let ending, let outgoing): self.finishing(id, ending, outgoing)
        case .finished(let id, let ending): self.finished(id, ending)
        case .unfinished(let id, let ending, let code): self.unfinished(id, ending, code)
        case .redriving(let queue): self.redriving(queue)
        case .redriven(let queue, _): self.redrives.remove(queue)
        case .failed(let code, _):
            self.failures += 1
            if code == "storageFailed", self.failedAt == nil, self.speaker == nil { self.failedAt = self.line }
        case .wrong(let id, let number): self.add(.wrong, "message \(id) was delivered, and is not what \(number) was")
        case .early(let id, let number, let what): self.add(.early, "message \(id), \(number): \(what)")
        case .settled(let message): self.settled(message)
        case .opened, .checkpointed, .closed: break
        }
    }

    private mutating func add(_ kind: TortureVerdict.Kind, _ what: String) {
        self.problems.append(TortureVerdict.Problem(kind: kind, what: what))
    }

    private mutating func beginLife(isSingle: Bool) {
        self.lives += 1
        // The others live on.
        guard self.speaker == nil else { return }
        self.isSingle = isSingle
        self.failedAt = nil
        self.finishes = [:]
        self.redrives = []
    }

    /// The life that speaks.
    var life: UInt64 { self.speaker ?? UInt64(self.lives) }

    /// A call that began after the storage had failed must not succeed.
    private mutating func succeeded(_ what: String, begunAt line: Int) {
        guard let failedAt = self.failedAt, line > failedAt || self.isSingle else { return }
        self.add(.acknowledgedAfterFailure, what)
    }

    // MARK: Publishing

    private mutating func publishing(_ number: UInt64, _ queue: String) {
        if self.records[number] != nil {
            self.add(.journal, "message \(number) is published twice: give each life a seed of its own")
        }
        let place = TorturePlace(queue: queue, isDead: false)
        self.records[number] = Record(home: queue, queue: queue, places: [place], line: self.line)
        self.unfinished.insert(number)
    }

    private mutating func published(_ number: UInt64, _ id: String) {
        guard let record = self.records[number] else {
            return self.add(.journal, "message \(number) was published before it was announced")
        }
        self.succeeded("message \(number) was published", begunAt: record.line)
        self.records[number]?.isStored = true
        self.name(number, id)
    }

    private mutating func unpublished(_ number: UInt64, _ code: String) {
        guard Self.refusals.contains(code), let record = self.records[number] else { return }
        if record.isStored {
            self.add(.invented, "message \(number) was refused with \(code), and was delivered")
        }
        self.records[number]?.isRefused = true
    }

    /// Learns the id of a message, which stays the same.
    private mutating func name(_ number: UInt64, _ id: String) {
        if let known = self.records[number]?.id, known != id {
            self.add(.doubled, "message \(number) has the ids \(known) and \(id)")
        }
        if let other = self.numbers[id], other != number {
            self.add(.doubled, "the id \(id) was given to the messages \(other) and \(number)")
        }
        self.records[number]?.id = id
        self.numbers[id] = number
    }

    private mutating func settled(_ message: TortureEvent.Settled) {
        let place = TorturePlace(queue: message.queue, isDead: message.isDead)
        self.settledCount += 1
        self.records[message.number] = Record(
            home: message.home,
            queue: message.queue,
            places: [place],
            isStored: true,
            attempts: message.attempts,
            line: self.line
        )
        self.unfinished.insert(message.number)
        self.name(message.number, message.id)
    }

    // MARK: Taking

    private mutating func taken(_ id: String, _ attempt: Int, _ number: UInt64, _ queue: String) {
        guard var record = self.records[number] else {
            return self.add(.invented, "message \(id), \(number), was delivered, and nobody had published it")
        }
        if self.isSingle { self.succeeded("message \(number) was delivered", begunAt: self.line) }
        let isHeldHere = record.holder == self.life
        if record.isRefused { self.add(.invented, "message \(number) was refused, and was delivered") }
        if record.end == .certain {
            // A line with an older attempt is only late: its lease had run out before somebody else finished the message.
            if attempt > record.attempts {
                self.add(.revived, "message \(number) was done, and was delivered again as attempt \(attempt)")
            }
            return
        }
        if attempt <= record.attempts, !isHeldHere {
            self.add(
                .forgotten,
                "message \(number) was delivered as attempt \(attempt), after \(record.attempts) attempts"
            )
        }
        let place = TorturePlace(queue: queue, isDead: false)
        if !record.places.contains(place) {
            self.add(.misplaced, "message \(number) was delivered from \(queue), and was not left there")
        }
        record.isStored = true
        record.end = .open
        record.queue = queue
        record.places = [place]
        record.attempts = max(record.attempts, attempt)
        record.holder = self.life
        record.version += 1
        self.store(record, number)
        self.name(number, id)
    }

    /// Keeps a record; a redrive that is under way may send it back at any moment.
    private mutating func store(_ record: Record, _ number: UInt64) {
        var record = record
        let canGoBack = record.places.contains { place in
            self.redrives.contains(place.queue) && (place.isDead || place.queue == TortureQueues.errors)
        }
        if canGoBack {
            record.places.insert(TorturePlace(queue: record.home, isDead: false))
            record.attempts = 0
            record.version += 1
        }
        self.records[number] = record
        if record.end == .certain { self.unfinished.remove(number) }
    }

    // MARK: Finishing

    private mutating func finishing(_ id: String, _ ending: TortureEvent.Ending, _ outgoing: [TortureEvent.Outgoing]) {
        guard let number = self.numbers[id], var record = self.records[number] else {
            return self.add(.journal, "message \(id) is finished, and nobody had taken it")
        }
        let before = record
        record.version += 1
        record.holder = nil
        switch ending {
        case .acknowledge, .publish: record.end = max(record.end, .perhaps)
        case .retry: record.places.insert(TorturePlace(queue: record.queue, isDead: false))
        case .dead:
            let place = TortureQueues.placeOfDead(from: record.queue)
            record.places.insert(place)
            // In an error queue they are counted anew.
            if !place.isDead { record.attempts = 0 }
        case .release: record.attempts = max(0, record.attempts - 1)
        }
        if ending == .retry || ending == .dead { record.failedAttempt = nil }
        let finish = Finish(
            ending: ending,
            number: number,
            outgoing: outgoing.map(\.number),
            version: record.version,
            before: before,
            speaker: self.speaker,
            line: self.line
        )
        self.finishes[id, default: []].append(finish)
        self.store(record, number)
        for message in outgoing { self.publishing(message.number, message.queue) }
        if ending == .publish {
            self.groups.append(Group(parent: (number, record.version), children: finish.outgoing))
        }
    }

    private mutating func take(_ id: String, _ ending: TortureEvent.Ending) -> Finish? {
        guard
            let index = self.finishes[id]?.lastIndex(where: { finish in
                finish.ending == ending && finish.speaker == self.speaker
            })
        else {
            self.add(.journal, "a finish of \(id) ended that had not begun")
            return nil
        }
        return self.finishes[id]?.remove(at: index)
    }

    private mutating func finished(_ id: String, _ ending: TortureEvent.Ending) {
        guard let finish = self.take(id, ending), var record = self.records[finish.number] else { return }
        self.succeeded("message \(finish.number) was finished", begunAt: finish.line)
        let isLastWord = record.version == finish.version
        let queue = finish.before.queue
        switch ending {
        case .acknowledge, .publish: record.end = .certain
        case .retry where isLastWord: record.places = [TorturePlace(queue: queue, isDead: false)]
        case .dead where isLastWord: record.places = [TortureQueues.placeOfDead(from: queue)]
        case .retry, .dead, .release: break
        }
        if isLastWord, ending == .retry || ending == .dead { record.failedAttempt = finish.before.attempts }
        self.store(record, finish.number)
        for number in finish.outgoing { self.records[number]?.isStored = true }
        if ending == .publish { self.removeGroup(of: finish) }
    }

    private mutating func unfinished(_ id: String, _ ending: TortureEvent.Ending, _ code: String) {
        guard let finish = self.take(id, ending), Self.refusals.contains(code) else { return }
        for number in finish.outgoing { self.records[number]?.isRefused = true }
        if ending == .publish { self.removeGroup(of: finish) }
        guard let record = self.records[finish.number], record.version == finish.version else { return }
        var restored = finish.before
        restored.version = record.version + 1
        // Refused as stale, it is somebody else's.
        restored.holder = code == "staleReceipt" ? nil : restored.holder
        self.store(restored, finish.number)
    }

    private mutating func removeGroup(of finish: Finish) {
        self.groups.removeAll { $0.parent == (finish.number, finish.version) }
    }

    // MARK: Redriving

    private mutating func redriving(_ queue: String) {
        self.redrives.insert(queue)
        for number in self.unfinished {
            guard let record = self.records[number] else { continue }
            if record.places.contains(where: { $0.queue == queue }) { self.store(record, number) }
        }
    }
}
