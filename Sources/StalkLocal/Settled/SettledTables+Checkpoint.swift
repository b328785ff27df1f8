// What a checkpoint writes.

internal import StalkCore
internal import StalkIndex
internal import StalkZstd

extension SettledTables {
    /// Writes a checkpoint in one synced transaction.
    ///
    /// Compressing comes before it, so that the transaction stays short.
    func apply(_ batch: SettleBatch) throws(StalkError) {
        let changes = batch.changesInOrder
        let packed = try self.bodies.packed(changes)
        let newDictionaries = self.bodies.newDictionaries()
        try self.index.write { transaction throws(StalkError) in
            var writer = ChangeWriter(tables: self)
            for (change, envelope) in zip(changes, packed) {
                try writer.write(change, envelope, to: &transaction)
            }
            try self.write(batch, newDictionaries, to: &transaction)
        }
        self.bodies.noteStored(newDictionaries)
    }

    /// Writes what is not about single messages.
    private func write(
        _ batch: SettleBatch,
        _ newDictionaries: [StoredDictionary],
        to transaction: inout WriteTransaction
    ) throws(StalkError) {
        for queue in batch.queues {
            var writer = ByteWriter()
            queue.write(to: &writer)
            try transaction.put(self.queues, KeyBuilder.queue(queue.number), writer.bytes)
        }
        for dictionary in newDictionaries {
            try transaction.put(self.dictionaries, KeyBuilder.queue(dictionary.id), dictionary.record)
        }
        // What the schedule has released stands among the ready ones alone.
        let released = batch.meta.releasedThrough
        let end = ScheduleKey(dueAt: released.dueAt, sequence: released.sequence)
        try transaction.deleteRange(self.schedule, upTo: KeyBuilder.schedule(end) + [0])
        var writer = ByteWriter()
        batch.meta.write(to: &writer)
        try transaction.put(self.meta, Self.metaKey, writer.bytes)
    }
}

extension SettleBatch {
    /// The changes by message, as LMDB takes them fastest.
    fileprivate var changesInOrder: [SettleChange] {
        let changes = self.changes
        // Those of a queue that only grows are.
        let isInOrder = changes.indices.dropFirst().allSatisfy { changes[$0 - 1].sequence < changes[$0].sequence }
        return isInOrder ? changes : changes.sorted { $0.sequence < $1.sequence }
    }
}

/// Writes the changes of messages, one after the other; it keeps its memory, so that a change costs few allocations.
private struct ChangeWriter {
    let tables: SettledTables
    private var key = KeyBuilder()
    private var value = ByteWriter()

    init(tables: SettledTables) {
        self.tables = tables
    }

    /// - Parameter envelope: The body's envelope; `nil` when it is stored as it is, or LMDB holds it.
    mutating func write(
        _ change: SettleChange,
        _ envelope: [UInt8]?,
        to transaction: inout WriteTransaction
    ) throws(StalkError) {
        if let before = change.before, change.after?.place != before {
            try self.remove(before, from: &transaction)
        }
        guard let after = change.after else {
            guard change.before != nil else { return }
            self.key.setMessage(change.sequence)
            try transaction.delete(self.tables.messages, self.key.bytes)
            try transaction.delete(self.tables.states, self.key.bytes)
            return
        }
        let hasState = change.content == nil || after.needsState
        // The first record in `states` is announced in `ready`, also when the place stays.
        if change.before != after.place || hasState {
            try self.add(after.place, hasState: hasState, to: &transaction)
        }
        self.key.setMessage(change.sequence)
        if let content = change.content {
            self.value = ByteWriter(reusing: self.value.take())
            MessageValue.write(after, content, to: &self.value)
            if let envelope {
                self.value.write(envelope)
            } else {
                try Envelope.write(raw: content.body, to: &self.value)
            }
            try transaction.append(self.tables.messages, self.key.bytes, self.value.bytes)
        }
        guard hasState else { return }
        self.value = ByteWriter(reusing: self.value.take())
        after.write(to: &self.value)
        try transaction.put(self.tables.states, self.key.bytes, self.value.bytes)
    }

    private mutating func add(
        _ place: SettledPlace,
        hasState: Bool,
        to transaction: inout WriteTransaction
    ) throws(StalkError) {
        self.key.setPlace(place.queue, place.key)
        guard !place.isDead else {
            try transaction.put(self.tables.dead, self.key.bytes, [])
            return
        }
        self.value = ByteWriter(reusing: self.value.take())
        self.value.write(UInt8(place.isScheduled ? 1 : 0))
        if hasState { self.value.write(UInt8(1)) }
        try transaction.put(self.tables.ready, self.key.bytes, self.value.bytes)
        guard place.isScheduled else { return }
        self.key.setSchedule(place.key.scheduleKey)
        try transaction.put(self.tables.schedule, self.key.bytes, KeyBuilder.queue(place.queue))
    }

    private mutating func remove(
        _ place: SettledPlace,
        from transaction: inout WriteTransaction
    ) throws(StalkError) {
        self.key.setPlace(place.queue, place.key)
        try transaction.delete(place.isDead ? self.tables.dead : self.tables.ready, self.key.bytes)
        guard place.isScheduled else { return }
        self.key.setSchedule(place.key.scheduleKey)
        try transaction.delete(self.tables.schedule, self.key.bytes)
    }
}
