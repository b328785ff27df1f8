// The log, played into memory again after a restart: the same changes by the same rules.

internal import StalkCore
internal import StalkLog
internal import StalkWheel

extension Engine {
    /// The messages that a record speaks of and that memory does not know: they must be loaded before it is replayed.
    func missingMessages(for record: LogRecord) -> [UInt64] {
        let sequences: [UInt64] =
            switch record {
            case .session, .createQueue, .publish, .call: []
            case .take(let list), .acknowledge(let list), .release(let list), .redrive(_, let list),
                .move(_, _, let list):
                list
            case .retry(let record): [record.sequence]
            case .deadLetter(let record): [record.sequence]
            }
        return sequences.filter { self.entries[$0] == nil && !self.setAside.contains($0) }
    }

    /// Puts a message into memory as LMDB holds it, for a record that is about to be replayed.
    mutating func addForReplay(_ message: SettledMessage, now: Moment) {
        let standing = message.standing
        let isReleased = !standing.isScheduled || standing.key.scheduleKey <= self.meta.releasedThrough
        let status: Entry.Status = standing.isDead ? .dead : isReleased ? .ready : .delayed
        let entry = self.addLoaded(message, status: status)
        guard status == .delayed else { return }
        var actions = Actions()
        self.startDelay(of: entry, &actions)
    }

    /// Replays one record.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/storeDamaged`` when it speaks of what does not exist.
    mutating func replay(_ record: LogRecord, now: Moment) throws(StalkError) {
        var actions = Actions()
        switch record {
        case .session(let session):
            self.meta.epoch = max(self.meta.epoch, session.epoch)
            self.nextLease = Self.firstLease(of: session.epoch)
            self.meta.bootID = session.bootID
            self.meta.clockOffset = session.clockOffset
        case .createQueue(let number, let name):
            guard number == self.queues.numbers.upperBound, self.queueNumbers[name] == nil else {
                throw Self.contradiction("queue \(name) has the number \(number) out of turn")
            }
            self.addQueue(number: number, name: name)
        case .publish(let record):
            guard self.queues.contains(record.queue) else {
                throw Self.contradiction("message \(record.sequence) is in queue number \(record.queue)")
            }
            self.lastReadyAt = max(self.lastReadyAt, record.isScheduled ? .min : record.dueAt)
            self.add(record)
            if let entry = self.entries[record.sequence] { self.makeVisible(entry, now: now, &actions) }
        case .take(let sequences):
            for sequence in sequences {
                // Numbered as they were when they were given.
                let lease = self.nextLease
                self.nextLease += 1
                guard let entry = try self.alive(sequence) else { continue }
                self.makeReadyForReplay(entry)
                self.countAttempt(of: entry, lease: lease)
            }
        case .acknowledge(let sequences):
            for sequence in sequences {
                if let entry = try self.alive(sequence) { self.remove(entry) }
            }
        case .release(let sequences):
            for sequence in sequences {
                if let entry = try self.alive(sequence) { self.uncountAttempt(of: entry) }
            }
        case .retry(let record):
            guard let entry = try self.alive(record.sequence) else { break }
            self.makeReadyForReplay(entry)
            // One without a delay was ready at once; when everything due by then is released, so is it.
            let key = ScheduleKey(dueAt: record.dueAt, sequence: record.sequence)
            self.apply(record, to: entry, isScheduled: key > self.meta.releasedThrough, &actions)
        case .deadLetter(let record):
            guard let entry = try self.alive(record.sequence) else { break }
            guard record.target == 0 || self.queues.contains(record.target) else {
                throw Self.contradiction("message \(record.sequence) died into queue number \(record.target)")
            }
            self.makeReadyForReplay(entry)
            self.apply(record, to: entry)
        case .redrive(let dueAt, let sequences):
            for sequence in sequences {
                guard let entry = try self.alive(sequence) else { continue }
                self.makeReadyForReplay(entry)
                self.redrive(entry, dueAt: dueAt)
            }
        case .move(let dueAt, let target, let sequences):
            guard target == 0 || self.queues.contains(target) else {
                throw Self.contradiction("messages were moved to queue number \(target)")
            }
            for sequence in sequences {
                if let entry = try self.alive(sequence) { self.moveToEnd(entry, of: target, dueAt: dueAt) }
            }
        case .call(let record): self.meta.calls.note(record)
        }
        self.freedQueues = []
    }

    /// A message that the log handed out or moved had been released, whatever its delay.
    private mutating func makeReadyForReplay(_ entry: Entry) {
        guard entry.status == .delayed else { return }
        if let timer = entry.timer { self.wheel.cancel(timer) }
        entry.timer = nil
        entry.standing.isScheduled = false
        self.setStatus(.ready, of: entry)
        self.enqueueReady(entry)
    }

    /// The message that a record changes; `nil` for one that was set aside, which is passed over.
    private func alive(_ sequence: UInt64) throws(StalkError) -> Entry? {
        if self.setAside.contains(sequence) { return nil }
        guard let entry = self.entries[sequence], entry.status != .gone else {
            throw Self.contradiction("message \(sequence) does not exist")
        }
        return entry
    }

    private static func contradiction(_ what: String) -> StalkError {
        StalkError(
            .storeDamaged,
            "The log contradicts itself: \(what). No crash can cause this; run stalk verify. Nothing was changed."
        )
    }
}
