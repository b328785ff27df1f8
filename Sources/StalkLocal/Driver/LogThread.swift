// Group commit: while one frame is being synced, the next one gathers.

internal import StalkCore
internal import StalkLog
internal import StalkPlatform

/// What the log's thread runs.
struct LogThread {
    let core: StoreCore
    var writer: LogWriter

    /// Writes frames until the store stops.
    mutating func run() {
        var memory: [UInt8] = []
        while true {
            let used = memory
            memory = []
            let job = self.core.step { engine, now in engine.nextLogJob(now: now, reusing: used) }
            switch job {
            case .write(let frame): memory = self.write(frame)
            case .sync: self.sync()
            case nil:
                if self.core.isStopping { return }
                self.core.clock.wait(for: self.core.logWaker, until: nil)
            }
        }
    }

    /// - Returns: The frame's memory, to be used again.
    private mutating func write(_ frame: StagedFrame) -> [UInt8] {
        var frame = frame
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
            self.core.step { engine, _ in engine.fail(error, includingCallersOf: frame) }
            return []
        }
        let written = frame
        self.core.step { engine, now in engine.complete(written, now: now) }
        // A frame of unusual size is not worth keeping.
        return bytes.capacity <= 8 << 20 ? bytes : []
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
