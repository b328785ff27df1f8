// Changing messages by hand: one by its id, or those of a queue, a part at a time, so that memory stays bounded.

internal import StalkCore
internal import StalkPlatform

/// Changes messages that nobody works on.
struct MessageChanges: Sendable {
    /// How large the bodies of one part may be, in bytes.
    static var partBytes: Int { 4 << 20 }

    let core: StoreCore
    let change: MessageChange

    // MARK: One message

    /// Changes one message; blocks.
    ///
    /// - Returns: Whether it was changed: a kick leaves what is ready as it is.
    func one(_ id: MessageID) throws(StalkError) -> Bool {
        while true {
            if let isChanged = try self.attempt(id) { return isChanged }
            // What the log gathered is on its way, or the keeper prepares a segment: the next try finds room.
            DedicatedThread.yield()
        }
    }

    /// Tries it once; `nil` when memory has forgotten something meanwhile, or the log has no room yet.
    func attempt(_ id: MessageID) throws(StalkError) -> Bool? {
        guard let sequence = id.sequence else { throw .noSuchMessage(id) }
        let (epoch, isInMemory) = self.core.look { ($0.epoch, $0.entries[sequence] != nil) }
        let found = isInMemory ? nil : try self.core.tables.message(sequence)
        let outcome = self.core.step { engine, now in
            engine.change(self.change, one: id, sequence, found: found, epoch: epoch, now: now)
        }
        return try outcome.get()
    }

    // MARK: A queue

    /// Where the change of a queue goes on.
    struct Place: Sendable {
        var isDead: Bool
        var key = OrderKey.first
    }

    /// What was done in one part.
    struct Part: Sendable {
        var count = 0
        /// The bodies that it brought into memory, in bytes.
        var bytes = 0
        /// Where to go on; `nil` at the end.
        var next: Place?
    }

    /// Which messages of a queue are meant.
    struct Selection: Sendable {
        var queue: UInt32
        var states: Set<MessageState>
        /// The first message number that is not meant, since it came later.
        var end: UInt64
    }

    /// Changes some messages, first in line first; blocks.
    func step(_ selection: Selection, from place: Place, limit: Int) throws(StalkError) -> Part {
        while true {
            if let part = try self.attempt(selection, from: place, limit: limit) { return part }
            DedicatedThread.yield()
        }
    }

    /// Tries it once; `nil` when memory has forgotten something meanwhile, or the log has no room yet.
    func attempt(_ selection: Selection, from place: Place, limit: Int) throws(StalkError) -> Part? {
        let (epoch, released, overlay) = self.core.look { engine in
            (engine.epoch, engine.meta.releasedThrough, engine.overlay(of: selection.queue))
        }
        var keys = overlay.values.filter { entry in
            guard entry.queue == selection.queue, let state = entry.state, entry.sequence < selection.end else {
                return false
            }
            return selection.states.contains(state) && (state == .dead) == place.isDead && entry.key >= place.key
        }.map(\.key)
        var settled = 0
        try self.core.tables.forEachPlace(of: selection.queue, isDead: place.isDead, from: place.key) {
            key,
            isScheduled in
            let waits = isScheduled && key.scheduleKey > released
            let state: MessageState = place.isDead ? .dead : waits ? .delayed : .ready
            if overlay[key.sequence] == nil, key.sequence < selection.end, selection.states.contains(state) {
                keys.append(key)
                settled += 1
            }
            return settled < limit
        }
        keys.sort()
        var part = Part()
        if keys.count >= limit { part.next = Place(isDead: place.isDead, key: keys[limit - 1].successor) }
        var sequences: [UInt64] = []
        var found: [SettledMessage] = []
        for key in keys.prefix(limit) {
            guard part.bytes < Self.partBytes else {
                part.next = Place(isDead: place.isDead, key: key)
                break
            }
            if let entry = overlay[key.sequence] {
                sequences.append(entry.sequence)
                continue
            }
            let (message, isRotten) = try self.core.tables.soundMessage(key.sequence)
            if isRotten { self.core.look { _ = $0.setAside.insert(key.sequence) } }
            guard let message else { continue }
            part.bytes += message.content.body.count
            sequences.append(key.sequence)
            found.append(message)
        }
        return try self.perform(part, sequences, found, epoch)
    }

    private func perform(
        _ part: Part,
        _ sequences: [UInt64],
        _ found: [SettledMessage],
        _ epoch: UInt64
    ) throws(StalkError) -> Part? {
        let outcome = self.core.step { engine, now in
            engine.change(self.change, sequences, found: found, epoch: epoch, now: now)
        }
        guard let count = try outcome.get() else { return nil }
        var part = part
        part.count = count
        return part
    }
}
