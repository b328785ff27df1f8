// The log played over an index without opening the store: to see what it says, or to settle what can be had of it.

internal import StalkCore
internal import StalkFiles
internal import StalkLog

/// Plays the log into an engine that nobody works with.
struct LogReplay {
    /// A place of the log that says what can't be.
    struct Contradiction {
        var frame: LogPlace
        var bytes: Int
        var what: String
    }

    var engine: Engine
    /// Looks a message up in the index.
    let lookUp: (UInt64) throws(StalkError) -> (message: SettledMessage?, isRotten: Bool)
    /// The last frame that the index contains; `nil` when nobody knows.
    let settled: UInt64?
    private(set) var records = 0
    /// Records that were passed over because they speak of what is lost.
    private(set) var passedOver = 0
    private var hasGaps = false

    /// Prepares to replay.
    ///
    /// - Parameters:
    ///   - meta: What the index says of the store.
    ///   - queues: The queues, of which none is missing.
    ///   - settled: The last frame that the index contains; `nil` when nobody knows.
    ///   - isPartLost: Whether parts of the index are lost, so that records may speak of what it does not know.
    ///   - lookUp: Looks a message up in the index.
    init(
        meta: StoreMeta,
        queues: [SettledQueue],
        settled: UInt64?,
        isPartLost: Bool,
        lookUp: @escaping (UInt64) throws(StalkError) -> (message: SettledMessage?, isRotten: Bool)
    ) {
        let start = Moment(nanoseconds: max(meta.storeTime, 0) * 1_000_000)
        self.engine = Engine(meta: meta, limits: EngineLimits(options: LocalStoreOptions()), now: start)
        for queue in queues { self.engine.addSettled(queue) }
        self.settled = settled
        self.hasGaps = isPartLost
        self.lookUp = lookUp
    }

    /// Reads the log and replays it.
    ///
    /// - Parameters:
    ///   - directory: The store's directory.
    ///   - onDamage: Called for frames that can't be read although they were synced.
    ///   - onContradiction: Called for whole frames that say what can't be; the record is passed over.
    /// - Throws: ``StalkError`` with ``StalkError/Code/newerFormat``, or when a file can't be read.
    mutating func run(
        _ directory: any StorageDirectory,
        onDamage: (LogDamage) throws(StalkError) -> Void,
        onContradiction: (Contradiction) throws(StalkError) -> Void
    ) throws(StalkError) -> LogSummary {
        let now = Moment(nanoseconds: max(self.engine.meta.storeTime, 0) * 1_000_000)
        let reader = LogReader(
            directory: directory,
            store: self.engine.meta.store,
            settled: self.settled ?? 0,
            fromDisk: false
        )
        return try reader.read { damage throws(StalkError) in
            // Without a number to begin at, the frames before the first one are not missed.
            if self.settled == nil, damage.bytes == 0 { return }
            self.hasGaps = true
            try onDamage(damage)
        } _: { frame throws(StalkError) in
            var fault: StalkError?
            do throws(StalkError) {
                try frame.forEachRecord { record throws(StalkError) in
                    self.records += 1
                    do throws(StalkError) {
                        try self.replay(record, now: now)
                    } catch {
                        guard error.code == .storeDamaged else { throw error }
                        self.passedOver += 1
                        // Behind what was lost, records may speak of messages that were in it.
                        if !self.hasGaps { fault = fault ?? error }
                    }
                }
            } catch {
                guard error.code == .storeDamaged else { throw error }
                self.passedOver += 1
                fault = fault ?? error
            }
            guard let fault else { return }
            try onContradiction(
                Contradiction(frame: frame.place, bytes: frame.header.paddedBytes, what: fault.message)
            )
        }
    }

    private mutating func replay(_ record: LogRecord, now: Moment) throws(StalkError) {
        // A queue that was put back before the log is read is not made again.
        if self.hasGaps, case .createQueue(let number, _) = record, self.engine.queues.contains(number) { return }
        for sequence in self.engine.missingMessages(for: record) {
            let (message, isRotten) = try self.lookUp(sequence)
            if let message { self.engine.addForReplay(message, now: now) }
            if isRotten { self.engine.setAside.insert(sequence) }
        }
        try self.engine.replay(record, now: now)
    }
}
