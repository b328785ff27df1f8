// Group commit: while one frame is being synced, the next one gathers.

internal import StalkCore
internal import StalkLog

/// Writes the log.
struct LogWorker: StoreWorker {
    let core: StoreCore
    var writer: LogWriter
    /// What it has taken on and not done yet.
    private var job: LogJob?
    /// Memory of the last frame, to be used again.
    private var memory: [UInt8] = []

    init(core: StoreCore, writer: LogWriter) {
        self.core = core
        self.writer = writer
    }

    mutating func step() -> WorkerWish {
        if let job = self.job.take() {
            switch job {
            case .write(let frame): self.write(frame)
            case .sync: self.sync()
            }
            return .goOn
        }
        var used: [UInt8] = []
        swap(&used, &self.memory)
        self.job = self.core.step { engine, now in engine.nextLogJob(now: now, reusing: used) }
        if self.job != nil { return .goOn }
        return self.core.isStopping ? .end : .sleep(until: nil)
    }

    private mutating func write(_ frame: consuming StagedFrame) {
        var bytes = frame.bytes.take()
        var syncTime: Int?
        do throws(StalkError) {
            try self.writer.append(
                &bytes,
                sequence: frame.sequence,
                storeTime: frame.storeTime,
                rollingTo: frame.nextSegment
            )
            if frame.needsSync { syncTime = try self.timedSync() }
        } catch {
            let failed = frame
            self.core.step { engine, _ in engine.fail(error, includingCallersOf: failed) }
            return
        }
        let written = frame
        let time = syncTime
        self.core.step { engine, now in engine.complete(written, syncTime: time, now: now) }
        // A frame of unusual size is not worth keeping.
        if bytes.capacity <= 8 << 20 { self.memory = bytes }
    }

    private mutating func sync() {
        do throws(StalkError) {
            let time = try self.timedSync()
            self.core.step { engine, _ in engine.completeSync(syncTime: time) }
        } catch {
            self.core.step { engine, _ in engine.fail(error) }
        }
    }

    /// Syncs the log.
    ///
    /// - Returns: How long that took, in microseconds.
    private mutating func timedSync() throws(StalkError) -> Int {
        let start = self.core.now
        try self.writer.sync()
        return Int((self.core.now.nanoseconds - start.nanoseconds) / 1000)
    }
}
