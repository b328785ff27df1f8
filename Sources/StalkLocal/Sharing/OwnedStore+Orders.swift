// What one asks of a store besides publishing and taking, carried out by its owner.

internal import Glibc
internal import StalkCore
internal import StalkIndex

extension OwnedStore {
    func carryOut(_ order: StoreOrder, progress: StoreProgress?) async throws -> StoreReply {
        switch order {
        case .hasQueue(let queue): return .count(self.core.look { $0.queueNumbers[queue] == nil ? 0 : 1 })
        case .stats: return .stats(try await self.inspector.stats(owner: getpid()))
        case .peek(let queue, let state, let max):
            return .messages(try await self.inspector.peek(queue, state: state, max: max))
        case .message(let id): return .messages([try await self.inspector.message(id)])
        case .redrive(let queue, let max): return .count(try await self.redrive(queue, max: max, progress: progress))
        case .countRedrivable(let queue):
            let redrive = Redrive(core: self.core, queue: try self.inspector.number(of: queue), max: .max)
            return .count(try await onOwnThread("stalk-look") { () throws(StalkError) in try redrive.count() })
        case .kick(let id): return .count(try await self.change(.kick, id) ? 1 : 0)
        case .kickQueue(let queue, let max): return .count(try await self.kick(queue, max: max, progress: progress))
        case .move(let id, let queue): return .count(try await self.change(.move(to: queue), id) ? 1 : 0)
        case .delete(let id): return .count(try await self.change(.delete, id) ? 1 : 0)
        case .purge(let queue, let states, let max):
            let number = try self.inspector.number(of: queue)
            return .count(try await self.change(.delete, number, states, max: max ?? .max, progress))
        case .setPaused(let isPaused, let queue): try await self.setPaused(isPaused, queue)
        case .sync: try await self.sync()
        case .checkpoint: try await self.checkpoint()
        case .compact: return .compaction(try await self.compact())
        case .backup(let path): return .backup(try await self.backup(to: path))
        }
        return .done
    }

    private func setPaused(_ isPaused: Bool, _ queue: QueueName) async throws {
        let number = try self.inspector.number(of: queue)
        self.core.step { engine, now in engine.setPaused(isPaused, queue: number, now: now) }
        // No record of the log says it: earlier versions could not read one. LMDB is told at once instead.
        try await self.checkpoint()
    }

    private func sync() async throws {
        try await withCheckedThrowingContinuation { continuation in
            self.core.step { engine, _ in
                engine.waitForSync { outcome in continuation.resume(with: outcome) }
            }
        }
    }

    private func checkpoint() async throws {
        try await withCheckedThrowingContinuation { continuation in
            self.core.step { engine, _ in
                engine.requestCheckpoint { outcome in continuation.resume(with: outcome) }
            }
        }
    }

    // MARK: Many messages

    private func redrive(_ queue: QueueName, max: Int?, progress: StoreProgress?) async throws -> Int {
        let redrive = Redrive(core: self.core, queue: try self.inspector.number(of: queue), max: max ?? .max)
        var total = 0
        for pass in Redrive.Pass.allCases {
            var start: RedriveStart? = .first(pass)
            while let from = start, total < redrive.max {
                let limit = min(512, redrive.max - total)
                let (count, next) = try await onOwnThread("stalk-redrive") { () throws(StalkError) in
                    try redrive.step(from, limit: limit)
                }
                total += count
                start = next
                progress?(total)
                if self.core.look({ $0.dirtyCount > $0.limits.dirtyMessagesMax / 2 }) {
                    try await self.checkpoint()
                }
            }
        }
        try await self.sync()
        return total
    }

    private func kick(_ queue: QueueName, max: Int?, progress: StoreProgress?) async throws -> Int {
        let number = try self.inspector.number(of: queue)
        // A message that fails and is delayed again meanwhile is not kicked for ever.
        let delayed = self.core.look { $0.queues[number].delayed }
        return try await self.change(.kick, number, [.delayed], max: min(delayed, max ?? .max), progress)
    }

    private func change(_ change: MessageChange, _ id: MessageID) async throws -> Bool {
        let changes = MessageChanges(core: self.core, change: change)
        let isChanged = try await onOwnThread("stalk-change") { () throws(StalkError) in try changes.one(id) }
        if isChanged { try await self.sync() }
        return isChanged
    }

    private func change(
        _ change: MessageChange,
        _ number: UInt32,
        _ states: Set<MessageState>,
        max: Int,
        _ progress: StoreProgress?
    ) async throws -> Int {
        let changes = MessageChanges(core: self.core, change: change)
        let end = self.core.look { $0.meta.nextSequence }
        let selection = MessageChanges.Selection(queue: number, states: states, end: end)
        var total = 0
        var bytes = 0
        for isDead in [false, true] where !states.isDisjoint(with: isDead ? [.dead] : [.ready, .delayed]) {
            var place: MessageChanges.Place? = MessageChanges.Place(isDead: isDead)
            while let from = place, total < max {
                let limit = min(512, max - total)
                let part = try await onOwnThread("stalk-change") { () throws(StalkError) in
                    try changes.step(selection, from: from, limit: limit)
                }
                total += part.count
                bytes += change == .delete ? 0 : part.bytes
                place = part.next
                progress?(total)
                if bytes > 32 << 20 || self.core.look({ $0.dirtyCount > $0.limits.dirtyMessagesMax / 2 }) {
                    try await self.checkpoint()
                    bytes = 0
                }
            }
        }
        try await self.sync()
        return total
    }

    // MARK: Care

    private func compact() async throws -> CompactionReport {
        // What was finished since the last checkpoint is still in the file. Without room it stays there.
        do {
            try await self.checkpoint()
        } catch let error as StalkError where error.code == .storageFull {}
        return try await onOwnThread("stalk-compact") { () throws(StalkError) in
            guard let index = self.core.tables.index as? Environment else {
                throw StalkError(.unsupported, "Only an index in LMDB can be compacted.")
            }
            let before = index.fileBytes
            try StoreCompaction.compact(index, liveBytes: index.statistics().liveBytes, of: self.core)
            return CompactionReport(bytesBefore: before, bytesAfter: index.fileBytes)
        }
    }

    private func backup(to path: String) async throws -> BackupReport {
        let backup = StoreBackup(source: self.core, path: path)
        try await onOwnThread("stalk-backup") { () throws(StalkError) in try backup.checkTarget() }
        try await self.checkpoint()
        return try await onOwnThread("stalk-backup") { () throws(StalkError) in try backup.run() }
    }
}
