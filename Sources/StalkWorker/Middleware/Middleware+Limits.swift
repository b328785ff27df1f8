// Limits around a handler: time, rate, and how many of a kind at once. The rules are values; see TokenBucket, KeyedGate.

public import StalkCore

/// Thrown by ``Middleware/timeLimit(_:clock:)``: the handler did not end in time, and the message is retried.
public struct HandlerTimedOut: Error, Hashable, CustomStringConvertible {
    /// How long it was given.
    public var limit: Duration

    /// The reason as it stands in the message's history.
    public var description: String { "timed out after \(self.limit.stalkText)" }
}

extension Middleware {
    /// Cancels what stands inside when it takes longer than this, and fails the message.
    ///
    /// It counts what stands inside alone, not what waits outside. It waits until the handler has ended: only
    /// ``WorkerOptions/timeout`` goes on without one that ignores its cancellation.
    ///
    /// - Parameters:
    ///   - limit: How long it may take, more than zero.
    ///   - clock: What it is counted by.
    public static func timeLimit(_ limit: Duration, clock: any Clock<Duration> = ContinuousClock()) -> Middleware {
        let clock = ElapsedClock(clock)
        return Middleware { delivery, next in
            let deadline = clock.elapsed() + limit
            return try await withThrowingTaskGroup(of: Disposition?.self) { group in
                group.addTask { try await next(delivery) }
                group.addTask {
                    try await clock.sleep(deadline)
                    return nil
                }
                defer { group.cancelAll() }
                // Of the two the first decides; a group that is left waits for the other.
                guard let disposition = try await group.next() ?? nil else { throw HandlerTimedOut(limit: limit) }
                return disposition
            }
        }
    }

    /// Lets no more than so many messages begin in a period, and a burst of as many at once; the others wait.
    ///
    /// - Parameters:
    ///   - count: How many, at least 1.
    ///   - period: In how much time, more than zero.
    ///   - burst: How many may begin at once after a pause, at least 1; `nil` for `count`.
    ///   - clock: What it is counted by.
    public static func rateLimit(
        _ count: Int,
        per period: Duration,
        burst: Int? = nil,
        clock: any Clock<Duration> = ContinuousClock()
    ) -> Middleware {
        let clock = ElapsedClock(clock)
        let bucket = Shared(TokenBucket(count: max(count, 1), period: period, burst: max(burst ?? count, 1)))
        return Middleware { delivery, next in
            let startAt = bucket.value.withLock { $0.reserve(now: clock.elapsed()) }
            if startAt > clock.elapsed() { try await clock.sleep(startAt) }
            return try await next(delivery)
        }
    }

    /// Lets no more than so many messages with the same key run at once; the others wait, first come first served.
    ///
    /// - Parameters:
    ///   - limit: How many of one key, at least 1.
    ///   - key: The key of a delivery; `nil` for one without a limit.
    public static func perKey(
        limit: Int,
        _ key: @escaping @Sendable (Delivery) -> String?
    ) -> Middleware {
        let gate = Shared(KeyedGate<CheckedContinuation<Void, any Error>>(limit: max(limit, 1)))
        return Middleware { delivery, next in
            guard let key = key(delivery) else { return try await next(delivery) }
            try await gate.enter(key)
            defer { gate.value.withLock { $0.leave(key) }?.resume() }
            return try await next(delivery)
        }
    }
}

/// A value behind a lock that closures share.
final class Shared<Value: Sendable>: Sendable {
    let value: Locked<Value>

    init(_ value: Value) {
        self.value = Locked(value)
    }
}

extension Shared<KeyedGate<CheckedContinuation<Void, any Error>>> {
    /// Returns when there is room; throws `CancellationError` when the task is cancelled first.
    fileprivate func enter(_ key: String) async throws {
        let ticket = self.value.withLock { $0.makeTicket() }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let isAdmitted = self.value.withLock { $0.enter(key, ticket, waiter: continuation) }
                if isAdmitted { continuation.resume() }
                // Cancelled before it stood in line: the handler below found nobody.
                if Task.isCancelled { self.leaveLine(key, ticket) }
            }
        } onCancel: {
            self.leaveLine(key, ticket)
        }
    }

    private func leaveLine(_ key: String, _ ticket: UInt64) {
        self.value.withLock { $0.cancel(key, ticket) }?.resume(throwing: CancellationError())
    }
}
