// Group commit: while one frame is being synced, the next one gathers.

internal import StalkCore
internal import StalkLog
internal import Synchronization

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
        do throws(StalkError) {
            try self.writer.append(
                &bytes,
                sequence: frame.sequence,
                storeTime: frame.storeTime,
                rollingTo: frame.nextSegment
            )
            if frame.needsSync { try self.writer.sync() }
        } catch {
            let failed = frame
            self.core.step { engine, _ in engine.fail(error, includingCallersOf: failed) }
            return
        }
        let written = frame
        self.core.committedCalls.wrappingAdd(written.waiters.count, ordering: .relaxed)
        self.core.step { engine, now in engine.complete(written, now: now) }
        // A frame of unusual size is not worth keeping.
        if bytes.capacity <= 8 << 20 { self.memory = bytes }
    }

    private mutating func sync() {
        do throws(StalkError) {
            try self.writer.sync()
            self.core.step { engine, _ in engine.completeSync() }
        } catch {
            self.core.step { engine, _ in engine.fail(error) }
        }
    }
}
