// Sending back what failed for good, a part at a time, so that memory stays bounded.

internal import StalkCore
internal import StalkPlatform

/// Where a redrive goes on.
struct RedriveStart: Sendable {
    var pass: Redrive.Pass
    var key: OrderKey

    static func first(_ pass: Redrive.Pass) -> RedriveStart { RedriveStart(pass: pass, key: .first) }
}

/// Sends messages of one queue back to where they died.
struct Redrive: Sendable {
    /// Where such messages stand.
    enum Pass: CaseIterable, Sendable {
        case inMemory
        case dead
        case movedHere
    }

    let core: StoreCore
    let queue: UInt32
    let max: Int

    /// Sends some messages back; blocks.
    ///
    /// - Returns: How many, and where to go on; `nil` at the end of the pass.
    func step(_ start: RedriveStart, limit: Int) throws(StalkError) -> (count: Int, next: RedriveStart?) {
        while true {
            if let done = try self.attempt(start, limit: limit) { return done }
            // What the log gathered is on its way, or the keeper prepares a segment: the next try finds room.
            DedicatedThread.yield()
        }
    }

    /// Tries it once; `nil` when memory has forgotten something meanwhile, or the log has no room yet.
    func attempt(_ start: RedriveStart, limit: Int) throws(StalkError) -> (count: Int, next: RedriveStart?)? {
        let (epoch, resident) = self.core.look { engine in
            (engine.epoch, Set(engine.overlay(of: self.queue).keys))
        }
        var sequences: [UInt64] = []
        var found: [SettledMessage] = []
        var next: RedriveStart?
        if start.pass == .inMemory {
            sequences = self.core.look { engine in
                resident.filter { engine.entries[$0]?.queue == self.queue && engine.isRedrivable($0) }
            }.sorted().prefix(limit).map(\.self)
            next = sequences.count == limit ? start : nil
        } else {
            (found, next) = try self.settled(start, limit: limit, resident)
            sequences = found.map(\.standing.key.sequence)
        }
        let redrivable = sequences
        let messages = found
        let outcome = self.core.step { engine, now in
            engine.redrive(redrivable, found: messages, epoch: epoch, now: now)
        }
        return try outcome.get().map { ($0, next) }
    }

    /// How many messages there are to send back; blocks.
    func count() throws(StalkError) -> Int {
        while true {
            let (epoch, overlay, inMemory, released) = self.core.look { engine in
                let overlay = engine.overlay(of: self.queue)
                let count = overlay.values.count { $0.queue == self.queue && engine.isRedrivable($0.sequence) }
                return (engine.epoch, Set(overlay.keys), count, engine.meta.releasedThrough)
            }
            var settled = 0
            for isDead in [true, false] {
                var keys: [OrderKey] = []
                try self.core.tables.forEachPlace(of: self.queue, isDead: isDead) { key, isScheduled in
                    if !isScheduled || key.scheduleKey <= released { keys.append(key) }
                    return true
                }
                for key in keys where !overlay.contains(key.sequence) {
                    let diedIn = isDead ? 1 : try self.core.tables.standing(key.sequence)?.diedIn ?? 0
                    if diedIn != 0 { settled += 1 }
                }
            }
            if self.core.look({ $0.epoch }) == epoch { return inMemory + settled }
        }
    }

    private func settled(
        _ start: RedriveStart,
        limit: Int,
        _ resident: Set<UInt64>
    ) throws(StalkError) -> ([SettledMessage], RedriveStart?) {
        var keys: [OrderKey] = []
        try self.core.tables.forEachPlace(of: self.queue, isDead: start.pass == .dead, from: start.key) { key, _ in
            keys.append(key)
            return keys.count < limit
        }
        var found: [SettledMessage] = []
        for key in keys where !resident.contains(key.sequence) {
            guard let message = try self.core.tables.soundMessage(key.sequence).message else { continue }
            if start.pass == .dead || message.standing.diedIn != 0 { found.append(message) }
        }
        guard keys.count == limit, let last = keys.last else { return (found, nil) }
        return (found, RedriveStart(pass: start.pass, key: last.successor))
    }
}
