// How much the spool may hold, and what can be seen of it.

internal import StalkCore
internal import StalkLocal

extension FailoverCollector {
    /// Counts a message as being stored once there is room for it.
    ///
    /// - Throws: ``StalkCore/StalkError`` with `storageFull`, or `interrupted` when the task was cancelled as it waited.
    func admit(_ group: String, bytes: Int, isCounted: Bool) async throws(StalkError) {
        var deadline: Duration?
        var mayBeOld = false
        while true {
            let wall = self.wallTime()
            let (isAdmitted, isTooOld) = self.state.locked.withLock { state in
                let isTooOld = state.routing.isTooOld(at: wall) && !mayBeOld
                guard !isTooOld, state.routing.hasRoom(bytes: bytes) else { return (false, isTooOld) }
                state.routing.begin(group, bytes: bytes, isCounted: isCounted, at: wall)
                return (true, false)
            }
            if isAdmitted { return }
            switch self.options.whenFull {
            case .reject: throw self.full()
            case .dropOldest where isTooOld:
                // What is too old and in the forwarder's hands can't be dropped, and holds up nobody.
                mayBeOld = await !self.dropOldest(before: wall)
            case .dropOldest: guard await self.dropOldest() else { throw self.full() }
            case .wait(let longest):
                let end = deadline ?? self.clock.elapsed() + longest
                deadline = end
                guard self.clock.elapsed() < end else { throw self.full() }
                guard !Task.isCancelled else {
                    throw StalkError(.interrupted, "Cancelled while it waited for room: nothing was stored.")
                }
                await self.roomOrDeadline(end, bytes: bytes)
            }
        }
    }

    private func full() -> StalkError {
        let wall = self.wallTime()
        let (messages, bytes, isTooOld) = self.state.locked.withLock {
            ($0.routing.messages, $0.routing.bytes, $0.routing.isTooOld(at: wall))
        }
        let age = isTooOld ? ", the first of which is older than it may be" : ""
        return StalkError(
            .storageFull,
            "The spool of \(self.queue) is full with \(messages) messages of \(bytes) bytes\(age): wait until the "
                + "remote is back, or allow more. Nothing was stored."
        )
    }

    /// Lets the first in line go.
    ///
    /// - Parameter wall: The time by which it must be too old; `nil` where its age does not matter.
    /// - Returns: Whether there was one to go.
    private func dropOldest(before wall: Timestamp? = nil) async -> Bool {
        let taker = self.spool.queue(self.queue)
        _ = try? await taker.wake()
        guard let oldest = try? await taker.take(TakeRequest(max: 1)).first else { return false }
        if let wall, let limit = self.options.maxOldestAge, wall.remaining(at: oldest.publishedAt) <= limit {
            try? await taker.finish(oldest, .release)
            return false
        }
        guard (try? await taker.acknowledge(oldest)) != nil else { return false }
        let group = self.options.forwarding.order == .queue ? "" : oldest.headers[FailoverHeader.group] ?? ""
        self.state.locked.withLock { state in
            state.dropped += 1
            state.routing.left(
                group,
                bytes: oldest.body.count,
                isCounted: oldest.headers[FailoverHeader.spool] == self.token
            )
        }
        return true
    }

    private func roomOrDeadline(_ deadline: Duration, bytes: Int) async {
        let (clock, state, wall) = (self.clock, self.state, self.wallTime())
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await state.roomChanges(bytes: bytes, at: wall) }
            group.addTask { try? await clock.sleep(deadline) }
            await group.next()
            group.cancelAll()
        }
    }

    // MARK: Figures

    /// How it is doing.
    ///
    /// - Throws: ``StalkCore/StalkError`` when the store can't be read.
    public func stats() async throws -> FailoverStats {
        let queues = try await self.spool.stats().queues
        let waiting = queues.first { $0.name == self.queue }
        let outcomes = queues.first { $0.name == self.outcomes.queue }
        let figures = self.forwarder.figures()
        let wall = self.wallTime()
        let count = (waiting?.ready ?? 0) + (waiting?.leased ?? 0)
        return self.state.locked.withLock { state in
            FailoverStats(
                waiting: count,
                delayed: waiting?.delayed ?? 0,
                setAside: waiting?.dead ?? 0,
                bytes: waiting?.bytes ?? 0,
                oldestAge: waiting?.oldestAge,
                breaker: figures.breaker,
                triedIn: figures.triedAt?.remaining(at: wall),
                rateLimit: figures.rateLimit,
                rate: figures.rate,
                byteRate: figures.byteRate,
                timeToEmpty: FailoverStats.timeToEmpty(count, rate: figures.rate),
                direct: state.direct,
                stored: state.stored,
                dropped: state.dropped,
                refusedFull: state.refusedFull,
                outcomesWaiting: (outcomes?.ready ?? 0) + (outcomes?.leased ?? 0),
                recognised: self.outcomes.recognised,
                forwarding: figures.counters
            )
        }
    }
}

extension SharedState {
    /// Returns when something left the spool, there is room already, or the task is cancelled.
    func roomChanges(bytes: Int, at wall: Timestamp) async {
        let id = UInt64.random(in: .min ... .max)
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isOver = self.locked.withLock { state in
                    if state.isClosed || Task.isCancelled { return true }
                    if !state.routing.isTooOld(at: wall), state.routing.hasRoom(bytes: bytes) { return true }
                    state.roomWaiters[id] = continuation
                    return false
                }
                if isOver { continuation.resume() }
                // Cancelled before it waited: the handler below found nobody.
                if Task.isCancelled { self.endRoomWait(id) }
            }
        } onCancel: {
            self.endRoomWait(id)
        }
    }

    private func endRoomWait(_ id: UInt64) {
        self.locked.withLock { $0.roomWaiters.removeValue(forKey: id) }?.resume()
    }
}
