// The ceiling of the engine: the same log with nothing behind it.

internal import StalkCore
internal import StalkFiles
internal import StalkLog
internal import StalkPlatform

/// Appends records by group commit and forgets them: no queues, no memory of messages, no LMDB.
///
/// The same records, frames and segments as the engine's, written by the same `LogWriter`. Callers wait until their frame
/// is written, or synced. Segments are prepared before and used again without being renamed.
final class BareLog: Sendable {
    private struct State {
        var staging = ByteWriter(reserving: 1 << 20)
        var waiters: [CheckedContinuation<Void, any Error>] = []
        var nextMessage: UInt64 = 1
        var isAsleep = false
        var isStopping = false
        var failure: StalkError?
        var frames = 0
    }

    private let state = Locked(State())
    private let waker: Waker
    private let clock = SystemStoreClock()
    private let durability: Durability
    private let segmentBytes: Int

    private init(durability: Durability, segmentBytes: Int) throws(StalkError) {
        self.waker = try Waker()
        self.durability = durability
        self.segmentBytes = segmentBytes
        self.state.withLock { $0.staging.writeZeros(FrameHeader.byteCount) }
    }

    /// Runs `body` with a log in a directory; its files stay behind.
    static func with<Value>(
        in directory: RealDirectory,
        durability: Durability,
        segmentBytes: Int,
        _ body: (BareLog) async throws -> Value
    ) async throws -> Value {
        let log = try BareLog(durability: durability, segmentBytes: segmentBytes)
        try directory.makeDirectory(Segment.directory)
        var segments: [Segment] = []
        for number in UInt64(1)...4 {
            let file = try directory.open(Segment.path(number), .ifMissing)
            try file.fillWithZeros(segmentBytes)
            segments.append(Segment(number: number, file: file))
        }
        let ready = segments
        let thread = try DedicatedThread(name: "bench-log") { log.write(to: ready) }
        defer {
            log.state.withLock { $0.isStopping = true }
            log.waker.signal()
            thread.join()
        }
        return try await body(log)
    }

    /// Frames that were written so far.
    var frames: Int { self.state.withLock { $0.frames } }

    /// Publishes bodies and returns their numbers once they are safe.
    func publish(_ bodies: [[UInt8]]) async throws -> Range<UInt64> {
        let now = self.clock.wallTime().millisecondsSince1970
        return try await self.append { state in
            let first = state.nextMessage
            state.nextMessage += UInt64(bodies.count)
            for (sequence, body) in zip(first..., bodies) {
                let record = PublishRecord(
                    sequence: sequence,
                    queue: 1,
                    publishedAt: now,
                    dueAt: now,
                    isScheduled: false,
                    headers: [:],
                    body: body
                )
                LogRecord.publish(record).write(to: &state.staging)
            }
            return first..<state.nextMessage
        }
    }

    /// Says that messages were taken.
    func take(_ sequences: Range<UInt64>) async throws {
        try await self.append { LogRecord.take(Array(sequences)).write(to: &$0.staging) }
    }

    /// Says that messages are done.
    func acknowledge(_ sequences: Range<UInt64>) async throws {
        try await self.append { LogRecord.acknowledge(Array(sequences)).write(to: &$0.staging) }
    }

    private func append<Value: Sendable>(_ stage: (inout State) -> Value) async throws -> Value {
        var value: Value?
        try await withCheckedThrowingContinuation { continuation in
            let (isAsleep, failure) = self.state.withLock { state in
                guard state.failure == nil else { return (false, state.failure) }
                value = stage(&state)
                state.waiters.append(continuation)
                defer { state.isAsleep = false }
                return (state.isAsleep, nil)
            }
            if let failure { continuation.resume(throwing: failure) }
            if isAsleep { self.waker.signal() }
        }
        guard let value else { throw StalkError(.closed, "The log failed before anything was staged.") }
        return value
    }

    // MARK: The thread

    private func write(to segments: [Segment]) {
        var segments = segments
        var writer = LogWriter(store: 1, segment: segments[0], after: 0)
        var (active, remaining) = (0, self.segmentBytes)
        var number = segments[0].number
        var memory: [UInt8] = []
        while true {
            let (bytes, waiters, isStopping) = self.nextFrame(reusing: memory)
            guard var frame = bytes else {
                if isStopping { return }
                self.clock.wait(for: self.waker, until: nil)
                memory = []
                continue
            }
            var next: Segment?
            let padded = (frame.count + 7) & ~7
            if padded > remaining {
                active = (active + 1) % segments.count
                number += 1
                segments[active].number = number
                next = segments[active]
                remaining = self.segmentBytes
            }
            remaining -= padded
            let outcome = self.write(&frame, to: &writer, rollingTo: next)
            for waiter in waiters { waiter.resume(with: outcome) }
            memory = frame
        }
    }

    private func nextFrame(
        reusing memory: [UInt8]
    ) -> (frame: [UInt8]?, waiters: [CheckedContinuation<Void, any Error>], isStopping: Bool) {
        self.state.withLock { state in
            guard !state.waiters.isEmpty else {
                state.isAsleep = true
                return (nil, [], state.isStopping)
            }
            let frame = state.staging.take()
            state.staging = ByteWriter(reusing: memory)
            state.staging.writeZeros(FrameHeader.byteCount)
            let waiters = state.waiters
            state.waiters = []
            state.frames += 1
            return (frame, waiters, state.isStopping)
        }
    }

    private func write(
        _ frame: inout [UInt8],
        to writer: inout LogWriter,
        rollingTo next: Segment?
    ) -> Result<Void, any Error> {
        do throws(StalkError) {
            let sequence = writer.writtenThrough + 1
            try writer.append(&frame, sequence: sequence, storeTime: 0, rollingTo: next)
            if self.durability == .synced { try writer.sync() }
            return .success(())
        } catch {
            self.state.withLock { $0.failure = error }
            return .failure(error)
        }
    }
}
