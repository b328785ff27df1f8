// What a new owner of the store leaves to those who worked on messages when the last one went.

internal import StalkCore
internal import StalkPlatform
internal import StalkWheel

/// A lease that the last owner gave, as its holder knows it.
struct HeldLease: Sendable {
    /// The message.
    var sequence: UInt64
    var lease: UInt64
    /// When it ends.
    var deadline: BootTime
    /// The collector that holds it.
    var collector: UInt64
}

/// What became of a lease at a new owner.
enum LeaseVerdict: UInt8, Sendable {
    /// It goes on.
    case adopted
    /// Its delivery was ended before: the log says how.
    case ended
    /// The message comes, or came, again.
    case lost
}

extension Engine {
    /// Holds back what somebody may still work on, until all who may are back or gone.
    mutating func awaitHolders() {
        self.isAwaitingHolders = true
    }

    /// Gives out again what nobody came back for.
    mutating func stopAwaitingHolders(now: Moment) -> Actions {
        var actions = Actions()
        guard self.isAwaitingHolders else { return actions }
        self.isAwaitingHolders = false
        self.forEach(self.awaited.sorted()) { engine, entry in
            if entry.lease == 0 { engine.expireLease(of: entry) }
        }
        self.awaited = []
        self.serveFreedQueues(now: now, &actions)
        if !self.staging.isEmpty { actions.wakesLog = true }
        return actions
    }

    /// The first lease of an owner: none has a number of another's.
    static func firstLease(of epoch: UInt32) -> UInt64 { UInt64(epoch) << 40 }

    /// Whether somebody may work on a message that is ready: nothing tells how its last delivery ended.
    func mayBeHeld(_ standing: MessageStanding) -> Bool { standing.lease != 0 && !standing.isDead }

    /// Notes that a message is given to somebody else now, if somebody may still hold it from the last owner.
    mutating func noteLost(_ entry: Entry) {
        let lease = entry.standing.lease
        guard self.mayBeHeld(entry.standing), lease < Self.firstLease(of: self.meta.epoch) else { return }
        self.lostLeases[entry.sequence] = lease
    }

    /// Lets a lease of the last owner go on.
    ///
    /// - Parameters:
    ///   - held: The lease; its collector is one of this engine.
    ///   - found: The message as LMDB held it at `epoch`, when memory does not know it.
    ///   - deadline: When it ends, by the store's clock, in milliseconds.
    /// - Returns: What became of it; `nil` when it must be tried again, since memory forgot something meanwhile.
    mutating func adopt(
        _ held: HeldLease,
        found: SettledMessage?,
        epoch: UInt64,
        deadline: Int64
    ) -> (LeaseVerdict?, Actions) {
        var actions = Actions()
        guard epoch == self.epoch else { return (nil, actions) }
        let known = self.entries[held.sequence].flatMap { $0.status == .gone ? nil : $0.standing }
        guard let standing = self.entries[held.sequence] == nil ? found?.standing : known else {
            return (.ended, actions)
        }
        guard standing.lease == held.lease, !standing.isDead else {
            // This owner gave it to somebody else although it may have been held, or the last one ended the delivery as its
            // holder had asked; then it may have been taken again.
            return (self.lostLeases[held.sequence] == held.lease ? .lost : .ended, actions)
        }
        if self.entries[held.sequence] == nil, let found { self.addForChange(found) }
        guard let entry = self.entries[held.sequence],
            entry.status == .ready || self.awaited.contains(held.sequence),
            deadline > self.wheel.now
        else { return (.lost, actions) }
        if entry.status == .leased { self.endLease(of: entry) }
        self.awaited.remove(held.sequence)
        self.setStatus(.leased, of: entry)
        entry.lease = held.lease
        entry.holder = held.collector
        entry.timer = self.addTimer(.lease, queue: entry.queue, key: held.sequence, deadline: deadline, &actions)
        self.collectors[held.collector]?.inFlight += 1
        return (.adopted, actions)
    }

    /// Ends the leases of collectors whose process has gone: what they worked on comes again at once, and the attempts
    /// count.
    mutating func abandon(_ collectors: Set<UInt64>, now: Moment) -> Actions {
        var actions = Actions()
        // Most hold nothing when they go; of one that was forgotten before it is not known.
        if collectors.contains(where: { self.collectors[$0].map { $0.inFlight > 0 } ?? true }) {
            let held = self.entries.values.filter { $0.status == .leased && collectors.contains($0.holder) }
            for entry in held.sorted(by: { $0.sequence < $1.sequence }) { self.expireLease(of: entry) }
        }
        for collector in collectors { self.removeCollector(collector) }
        self.serveFreedQueues(now: now, &actions)
        if !self.staging.isEmpty { actions.wakesLog = true }
        return actions
    }
}
