// Calls to the store itself, as bytes.

internal import StalkCore

extension StoreOrder {
    private enum Kind: UInt8 {
        case hasQueue = 1
        case stats, peek, message, redrive, countRedrivable, kick, kickQueue, move, delete, purge, setPaused, sync,
            checkpoint, compact, backup
    }

    func write(to writer: inout ByteWriter) {
        func kind(_ kind: Kind) { writer.write(kind.rawValue) }
        switch self {
        case .hasQueue(let queue):
            kind(.hasQueue)
            writer.writeQueue(queue)
        case .stats: kind(.stats)
        case .peek(let queue, let state, let max):
            kind(.peek)
            writer.writeQueue(queue)
            writer.write(state.wireNumber)
            writer.writeOptional(max)
        case .message(let id):
            kind(.message)
            writer.writeID(id)
        case .redrive(let queue, let max):
            kind(.redrive)
            writer.writeQueue(queue)
            writer.writeOptional(max)
        case .countRedrivable(let queue):
            kind(.countRedrivable)
            writer.writeQueue(queue)
        case .kick(let id):
            kind(.kick)
            writer.writeID(id)
        case .kickQueue(let queue, let max):
            kind(.kickQueue)
            writer.writeQueue(queue)
            writer.writeOptional(max)
        case .move(let id, let queue):
            kind(.move)
            writer.writeID(id)
            writer.writeQueue(queue)
        case .delete(let id):
            kind(.delete)
            writer.writeID(id)
        case .purge(let queue, let states, let max):
            kind(.purge)
            writer.writeQueue(queue)
            writer.write(UInt8(states.reduce(0) { $0 | 1 << $1.wireNumber }))
            writer.writeOptional(max)
        case .setPaused(let isPaused, let queue):
            kind(.setPaused)
            writer.write(UInt8(isPaused ? 1 : 0))
            writer.writeQueue(queue)
        case .sync: kind(.sync)
        case .checkpoint: kind(.checkpoint)
        case .compact: kind(.compact)
        case .backup(let path):
            kind(.backup)
            writer.writeText(path)
        }
    }

    init(reading reader: inout ByteReader) throws(Wire.Malformed) {
        switch Kind(rawValue: try reader.number(UInt8.self)) {
        case .hasQueue: self = .hasQueue(try reader.queue())
        case .stats: self = .stats
        case .peek:
            let queue = try reader.queue()
            let state = try MessageState(wireNumber: try reader.number())
            guard let max = try reader.optionalNumber() else { throw Wire.Malformed() }
            self = .peek(queue, state, max: max)
        case .message: self = .message(try reader.id())
        case .redrive:
            let queue = try reader.queue()
            self = .redrive(queue, max: try reader.optionalNumber())
        case .countRedrivable: self = .countRedrivable(try reader.queue())
        case .kick: self = .kick(try reader.id())
        case .kickQueue:
            let queue = try reader.queue()
            self = .kickQueue(queue, max: try reader.optionalNumber())
        case .move:
            let id = try reader.id()
            self = .move(id, to: try reader.queue())
        case .delete: self = .delete(try reader.id())
        case .purge:
            let queue = try reader.queue()
            let bits = try reader.number(UInt8.self)
            guard bits < 1 << MessageState.allCases.count else { throw Wire.Malformed() }
            let states = Set(MessageState.allCases.filter { bits & 1 << $0.wireNumber != 0 })
            self = .purge(queue, states, max: try reader.optionalNumber())
        case .setPaused:
            let isPaused = try reader.flag()
            self = .setPaused(isPaused, try reader.queue())
        case .sync: self = .sync
        case .checkpoint: self = .checkpoint
        case .compact: self = .compact
        case .backup: self = .backup(path: try reader.readLongText())
        case nil: throw Wire.Malformed()
        }
    }
}

extension MessageState {
    fileprivate var wireNumber: UInt8 {
        switch self {
        case .ready: 0
        case .delayed: 1
        case .leased: 2
        case .dead: 3
        }
    }

    fileprivate init(wireNumber: UInt8) throws(Wire.Malformed) {
        guard let state = Self.allCases.first(where: { $0.wireNumber == wireNumber }) else { throw Wire.Malformed() }
        self = state
    }
}

extension StoreReply {
    private enum Kind: UInt8 {
        case done = 1
        case count, stats, messages, compaction, backup
    }

    func write(to writer: inout ByteWriter) {
        switch self {
        case .done: writer.write(Kind.done.rawValue)
        case .count(let count):
            writer.write(Kind.count.rawValue)
            writer.write(Int64(count))
        case .stats(let stats):
            writer.write(Kind.stats.rawValue)
            stats.write(to: &writer)
        case .messages(let messages):
            writer.write(Kind.messages.rawValue)
            writer.write(UInt32(messages.count))
            for message in messages { message.write(to: &writer) }
        case .compaction(let report):
            writer.write(Kind.compaction.rawValue)
            writer.write(Int64(report.bytesBefore))
            writer.write(Int64(report.bytesAfter))
        case .backup(let report):
            writer.write(Kind.backup.rawValue)
            writer.writeText(report.path)
            writer.write(Int64(report.messages))
            writer.write(Int64(report.bytes))
        }
    }

    init(reading reader: inout ByteReader) throws(Wire.Malformed) {
        switch Kind(rawValue: try reader.number(UInt8.self)) {
        case .done: self = .done
        case .count: self = .count(try reader.int())
        case .stats: self = .stats(try StoreStats(reading: &reader))
        case .messages:
            var messages: [StoredMessage] = []
            for _ in 0..<(try reader.count(ofItemsFrom: 40)) { messages.append(try StoredMessage(reading: &reader)) }
            self = .messages(messages)
        case .compaction:
            let before = try reader.int()
            self = .compaction(CompactionReport(bytesBefore: before, bytesAfter: try reader.int()))
        case .backup:
            let path = try reader.readLongText()
            self = .backup(BackupReport(path: path, messages: try reader.int(), bytes: try reader.int()))
        case nil: throw Wire.Malformed()
        }
    }
}

extension ByteReader {
    mutating func int() throws(Wire.Malformed) -> Int { Int(try self.number(Int64.self)) }
}

// MARK: - Figures

extension StoreStats {
    fileprivate func write(to writer: inout ByteWriter) {
        writer.write(UInt32(self.queues.count))
        for queue in self.queues {
            writer.writeQueue(queue.name)
            let figures = [queue.ready, queue.delayed, queue.leased, queue.dead, queue.bytes]
            for figure in figures { writer.write(Int64(figure)) }
            writer.write(UInt8(queue.oldestAge == nil ? 0 : 1))
            writer.writeDuration(queue.oldestAge ?? .zero)
            writer.write(UInt8(queue.isPaused ? 1 : 0))
        }
        for number in [self.logBytes, self.lmdbBytes, self.checkpointLag, self.setAside] { writer.write(Int64(number)) }
        writer.write(self.owner)
        writer.writeDuration(self.scheduleLag)
        let activity = self.activity
        for number in [activity.frames, activity.lmdbCommits, activity.syncs, activity.logBytesWritten] {
            writer.write(Int64(number))
        }
        activity.commitCalls.write(to: &writer)
        activity.logSyncs.write(to: &writer)
    }

    fileprivate init(reading reader: inout ByteReader) throws(Wire.Malformed) {
        var queues: [QueueStats] = []
        for _ in 0..<(try reader.count(ofItemsFrom: 53)) {
            var queue = QueueStats(
                name: try reader.queue(),
                ready: try reader.int(),
                delayed: try reader.int(),
                leased: try reader.int(),
                dead: try reader.int(),
                bytes: try reader.int()
            )
            let hasAge = try reader.flag()
            let age = try reader.duration()
            guard hasAge || age == .zero else { throw Wire.Malformed() }
            queue.oldestAge = hasAge ? age : nil
            queue.isPaused = try reader.flag()
            queues.append(queue)
        }
        let (logBytes, lmdbBytes) = (try reader.int(), try reader.int())
        let (checkpointLag, setAside) = (try reader.int(), try reader.int())
        let owner = try reader.number(Int32.self)
        let scheduleLag = try reader.duration()
        let activity = StoreActivity(
            frames: try reader.int(),
            lmdbCommits: try reader.int(),
            syncs: try reader.int(),
            logBytesWritten: try reader.int(),
            commitCalls: try StoreHistogram(reading: &reader),
            logSyncs: try StoreHistogram(reading: &reader)
        )
        self.init(
            queues: queues,
            logBytes: logBytes,
            lmdbBytes: lmdbBytes,
            checkpointLag: checkpointLag,
            owner: owner,
            setAside: setAside,
            activity: activity,
            scheduleLag: scheduleLag
        )
    }
}

extension StoreHistogram {
    fileprivate func write(to writer: inout ByteWriter) {
        writer.write(UInt32(self.bounds.count))
        for number in self.bounds + self.counts + [self.sum] { writer.write(Int64(number)) }
    }

    fileprivate init(reading reader: inout ByteReader) throws(Wire.Malformed) {
        let count = try reader.count(ofItemsFrom: 16)
        var numbers: [Int] = []
        for _ in 0..<(2 * count + 2) { numbers.append(try reader.int()) }
        self.init(
            bounds: Array(numbers[..<count]),
            counts: Array(numbers[count...(2 * count)]),
            sum: numbers[2 * count + 1]
        )
    }
}

extension StoredMessage {
    fileprivate func write(to writer: inout ByteWriter) {
        writer.writeID(self.id)
        writer.writeQueue(self.queue)
        writer.write(self.state.wireNumber)
        writer.writeHeaders(self.headers)
        writer.writeBlob(self.body)
        writer.write(Int64(self.attempts))
        writer.write(self.publishedAt.millisecondsSince1970)
        writer.write(self.dueAt.millisecondsSince1970)
        writer.writeShortText(self.diedIn?.rawValue ?? "")
        writer.write(UInt32(self.failures.count))
        for failure in self.failures {
            writer.write(Int64(failure.attempt))
            writer.write(failure.at.millisecondsSince1970)
            writer.writeText(failure.reason)
        }
    }

    fileprivate init(reading reader: inout ByteReader) throws(Wire.Malformed) {
        let id = try reader.id()
        let queue = try reader.queue()
        let state = try MessageState(wireNumber: try reader.number())
        let headers = try reader.headers()
        let body = try reader.readBlob()
        let attempts = try reader.int()
        let (publishedAt, dueAt) = (try reader.timestamp(), try reader.timestamp())
        let diedIn = try reader.optionalQueue()
        var failures: [Failure] = []
        for _ in 0..<(try reader.count(ofItemsFrom: 20)) {
            let attempt = try reader.int()
            let time = try reader.timestamp()
            failures.append(Failure(attempt: attempt, at: time, reason: try reader.readLongText()))
        }
        self.init(
            id: id,
            queue: queue,
            state: state,
            body: body,
            headers: headers,
            attempts: attempts,
            publishedAt: publishedAt,
            dueAt: dueAt,
            failures: failures,
            diedIn: diedIn
        )
    }
}
