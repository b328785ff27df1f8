// What is sent together, and what follows from the answer.

internal import StalkCore

extension ForwardingStateMachine {
    var trialLimit: Int { self.refusals >= self.options.refusalsInARow ? 1 : self.options.trialBatch }

    mutating func nextSend(_ moment: Moment) -> Action? {
        guard !self.isStopping, !self.isGivingBack, !self.pending.isEmpty,
            self.inFlight.count < self.options.maxInFlight
        else { return nil }
        let permission = self.breaker.permission(now: moment.now)
        var limit = min(self.maxBatch, self.rate.largestBatch)
        switch permission {
        case .all: break
        case .trial where self.inFlight.isEmpty: limit = min(limit, self.trialLimit)
        case .trial, .nothing: return nil
        }
        guard self.rate.startAt(now: moment.now) <= moment.now else { return nil }
        let batch = self.takeBatch(limit: limit)
        guard !batch.isEmpty else { return nil }
        if permission == .trial { self.breaker.beginTrial() }
        self.rate.left(
            messages: batch.count,
            bytes: batch.reduce(0) { $0 + $1.message.body.count },
            now: moment.now
        )
        let number = self.makeCall()
        self.busyGroups.formUnion(batch.map(\.group))
        self.inFlight[number] = batch
        return .send(number, batch.map { self.outgoing($0, moment) })
    }

    mutating func takeBatch(limit: Int) -> [Entry] {
        var limit = limit
        var bytes = 0
        var batch: [Entry] = []
        for entry in self.pending where !self.busyGroups.contains(entry.group) {
            limit = min(limit, entry.batchLimit)
            let size = entry.message.body.count
            guard batch.count < limit, batch.isEmpty || bytes + size <= self.options.maxBatchBytes else { break }
            bytes += size
            batch.append(entry)
        }
        let chosen = Set(batch.map(\.index))
        if !chosen.isEmpty { self.pending.removeAll { chosen.contains($0.index) } }
        return batch
    }

    mutating func sent(
        _ number: UInt64,
        _ result: Result<[Result<MessageID, StalkError>], any Error>,
        _ moment: Moment,
        _ actions: inout [Action]
    ) {
        guard var batch = self.inFlight.removeValue(forKey: number) else { return }
        for entry in batch { self.busyGroups.remove(entry.group) }
        for position in batch.indices { batch[position].tries += 1 }
        let results = Self.results(result, count: batch.count)
        // A batch that was refused as a whole is halved until the message that is to blame stands alone.
        if case .failure(let error) = result, FailureKind(error) == .message, batch.count > 1 {
            for position in batch.indices { batch[position].batchLimit = batch.count / 2 }
            self.breaker.succeeded()
            return self.putBack(batch)
        }
        var verdict = BatchVerdict()
        var records: [Record] = []
        var back: [Entry] = []
        for (entry, result) in zip(batch, results) {
            switch result {
            case .success:
                verdict.addAccepted(bytes: entry.message.body.count)
                self.refusals = 0
                self.settle(entry, moment)
                records.append(Record(entry: entry, disposition: .acknowledge))
            case .failure(let error):
                verdict.add(error)
                let isRefused = FailureKind(error) == .message
                if isRefused, self.refusals < self.options.refusalsInARow || batch.count == 1 {
                    self.refusals += 1
                    records.append(self.setAside(entry, Self.reason(error), &actions))
                } else {
                    back.append(self.afterFailure(entry, error, moment))
                }
            }
        }
        self.putBack(back)
        self.judge(verdict, moment, &actions)
        self.record(records, &actions)
    }

    static func results(
        _ result: Result<[Result<MessageID, StalkError>], any Error>,
        count: Int
    ) -> [Result<MessageID, StalkError>] {
        switch result {
        case .success(let results):
            let silence = StalkError(.interrupted, "The remote gave no outcome for a message: it is in doubt.")
            return (0..<count).map { $0 < results.count ? results[$0] : .failure(silence) }
        case .failure(let error):
            let known = error as? StalkError
            let failure = known ?? StalkError(.interrupted, "Publishing was cut short: it is in doubt.", cause: error)
            return Array(repeating: .failure(failure), count: count)
        }
    }

    mutating func afterFailure(_ entry: Entry, _ error: StalkError, _ moment: Moment) -> Entry {
        var entry = entry
        if FailureKind(error) == .ambiguous {
            self.counters.ambiguous += 1
            entry.doubt = entry.doubt ?? moment.wall
        }
        return entry
    }

    /// A message is at the destination: whether it is there once is known only within the destination's window.
    mutating func settle(_ entry: Entry, _ moment: Moment) {
        self.counters.forwarded += 1
        guard let doubt = entry.doubt else { return }
        let age = Duration.milliseconds(moment.wall.millisecondsSince1970 - doubt.millisecondsSince1970)
        if age >= self.options.deduplicationWindow { self.counters.mayBeDuplicate += 1 }
    }

    mutating func judge(_ verdict: BatchVerdict, _ moment: Moment, _ actions: inout [Action]) {
        let before = self.breaker.phase
        if verdict.throttled > 0 {
            self.counters.throttled += 1
            self.rate.throttled(now: moment.now)
        } else if verdict.accepted > 0 {
            self.rate.accepted(verdict.accepted, bytes: verdict.acceptedBytes, now: moment.now)
        }
        if verdict.accepted > 0 {
            self.breaker.succeeded()
        } else if verdict.queue > 0 || verdict.message > 0 && self.refusals >= self.options.refusalsInARow {
            self.breaker.refused(now: moment.now, using: &self.random)
        } else if verdict.transport + verdict.ambiguous > 0 {
            self.breaker.failed(now: moment.now, using: &self.random)
        } else if verdict.throttled + verdict.message > 0 {
            self.breaker.succeeded()
        }
        if before == .closed, self.breaker.phase != .closed { self.counters.opened += 1 }
        guard self.breaker.phase != .closed, let error = verdict.error else { return }
        if self.away == nil {
            self.away = (moment.now, self.counters.forwarded)
            self.wasRefused = self.breaker.isRefused
            actions.append(.note(.began(error, isRefused: self.breaker.isRefused)))
        } else if self.breaker.isRefused, !self.wasRefused {
            self.wasRefused = true
            actions.append(.note(.refused(error)))
        }
    }

    mutating func putBack(_ entries: [Entry]) {
        guard !entries.isEmpty else { return }
        self.pending = (entries + self.pending).sorted { $0.index < $1.index }
    }
}
