// What is recorded at the source, what is given back, and when to look again.

internal import StalkCore

extension ForwardingStateMachine {
    // MARK: Recording

    mutating func setAside(_ entry: Entry, _ reason: String, _ actions: inout [Action]) -> Record {
        self.counters.setAside += 1
        let doubt = entry.doubt == nil ? "" : " An earlier send was not answered: it may have arrived."
        actions.append(.note(.setAside(entry.message.headers[FailoverHeader.id] ?? "", reason: reason)))
        return Record(entry: entry, disposition: .deadLetter(reason: reason + doubt))
    }

    static func reason(_ error: StalkError) -> String { "refused by the remote: \(error.message)" }

    mutating func record(_ records: [Record], _ actions: inout [Action]) {
        guard !records.isEmpty else { return }
        let call = self.makeCall()
        self.records[call] = records
        actions.append(.record(call, records.map { Completion($0.entry.receipt, $0.disposition) }))
    }

    mutating func recorded(
        _ call: UInt64,
        _ result: Result<[Result<Void, StalkError>], any Error>,
        _ moment: Moment,
        _ actions: inout [Action]
    ) {
        guard let records = self.records.removeValue(forKey: call) else { return }
        var gone: [Entry] = []
        var failed: [Record] = []
        switch result {
        case .success(let results):
            for (record, result) in zip(records, results) {
                // A stale one comes again, and is sent again: its attempts say that it may be a copy.
                if case .failure(let error) = result, error.isWorthWaiting {
                    failed.append(record)
                } else if record.disposition != .release {
                    gone.append(record.entry)
                }
            }
        case .failure(let error):
            failed = records
            if let error = error as? StalkError, !error.isWorthWaiting {
                self.failure = self.failure ?? error
                self.isStopping = true
            }
        }
        // After a stop nobody tries again: the source hands them out anew.
        if !self.isStopping, !failed.isEmpty {
            self.unrecorded += failed
            self.recordAt = moment.now + .seconds(1)
        }
        if !gone.isEmpty { actions.append(.note(.left(gone))) }
    }

    // MARK: Planning

    mutating func plan(_ moment: Moment) -> [Action] {
        var actions: [Action] = []
        self.setAsideWhatIsOverItsLimits(moment, &actions)
        if !self.unrecorded.isEmpty, self.recordAt <= moment.now {
            let records = self.unrecorded
            self.unrecorded = []
            self.record(records, &actions)
        }
        while let send = self.nextSend(moment) { actions.append(send) }
        self.giveBack(moment, &actions)
        actions += self.nextTake(moment)
        self.keepLeases(moment, &actions)
        if self.hasFoundNothing, self.held == 0, !self.isIdle {
            self.isIdle = true
            actions.append(.note(.idle))
        }
        if self.isIdle, self.breaker.phase == .closed, let away {
            let count = self.counters.forwarded - away.forwardedBefore
            self.away = nil
            actions.append(.note(.ended(forwarded: count, after: moment.now - away.since)))
        }
        if let alarm = self.nextAlarm(moment) { actions.append(alarm) }
        return actions
    }

    mutating func setAsideWhatIsOverItsLimits(_ moment: Moment, _ actions: inout [Action]) {
        guard self.options.maxAge != nil || self.options.maxTries != nil else { return }
        var records: [Record] = []
        var kept: [Entry] = []
        for entry in self.pending {
            let age = Duration.milliseconds(
                moment.wall.millisecondsSince1970 - entry.publishedAt.millisecondsSince1970
            )
            if let maxAge = self.options.maxAge, age > maxAge {
                records.append(self.setAside(entry, "older than the limit of \(maxAge.stalkText)", &actions))
            } else if let maxTries = self.options.maxTries, entry.tries > maxTries {
                records.append(self.setAside(entry, "sent \(maxTries) times without success", &actions))
            } else {
                kept.append(entry)
            }
        }
        guard !records.isEmpty else { return }
        self.pending = kept
        self.record(records, &actions)
    }

    /// Gives back what can't be sent now and surely did not arrive; what is in doubt stays, so that no order is lost.
    mutating func giveBack(_ moment: Moment, _ actions: inout [Action]) {
        guard !self.pending.isEmpty else { return }
        let inDoubt = self.pending.filter { $0.doubt != nil }
        if self.isStopping {
            if !inDoubt.isEmpty, self.source.leaseExtension {
                // Over at once: the message is back in its place, its attempt still counted.
                actions.append(.extend(inDoubt.map(\.receipt), lease: .milliseconds(1)))
            }
        } else if !self.isGivingBack {
            guard case .nothing(_?) = self.breaker.permission(now: moment.now), inDoubt.isEmpty,
                self.options.maxTries == nil, self.source.uncountedRelease
            else { return }
        }
        // What came while others are on their way back may belong behind them, and goes after them.
        let records = self.pending.filter { $0.doubt == nil }.map { Record(entry: $0, disposition: .release) }
        self.pending = self.isStopping ? [] : inDoubt
        self.hasFoundNothing = false
        self.record(records, &actions)
    }

    mutating func keepLeases(_ moment: Moment, _ actions: inout [Action]) {
        guard let at = self.extendAt, at <= moment.now else { return }
        var receipts = self.pending.map(\.receipt) + self.unrecorded.map(\.entry.receipt)
        for batch in self.inFlight.values { receipts += batch.map(\.receipt) }
        guard !receipts.isEmpty, self.source.leaseExtension, !self.isStopping else {
            self.extendAt = nil
            return
        }
        self.extendAt = moment.now + self.lease / 3
        actions.append(.extend(receipts, lease: self.lease))
    }

    mutating func extended(_ receipts: [Receipt], _ result: Result<[Result<Void, StalkError>], any Error>) {
        guard case .success(let results) = result else { return }
        let lost = Set(
            zip(receipts, results).filter { (_, result) in
                if case .failure(let error) = result { !error.isWorthWaiting } else { false }
            }.map(\.0)
        )
        if !lost.isEmpty { self.pending.removeAll { lost.contains($0.receipt) } }
    }

    mutating func nextAlarm(_ moment: Moment) -> Action? {
        guard !self.isStopping else { return nil }
        var moments: [Duration] = []
        if case .nothing(let until?) = self.breaker.permission(now: moment.now) { moments.append(until) }
        if !self.pending.isEmpty { moments.append(self.rate.startAt(now: moment.now)) }
        if !self.unrecorded.isEmpty { moments.append(self.recordAt) }
        if !self.isTaking { moments.append(self.takeAt) }
        if let extendAt = self.extendAt { moments.append(extendAt) }
        guard let next = moments.filter({ $0 > moment.now }).min(), self.alarmAt.map({ next < $0 }) ?? true
        else { return nil }
        self.alarmAt = next
        return .alarm(next)
    }

    mutating func makeCall() -> UInt64 {
        defer { self.nextCall += 1 }
        return self.nextCall
    }
}
