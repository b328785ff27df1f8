// One non-generic view of any Swift clock, so that a collector needs no type parameter.

/// The time since it was made, by a clock whose type is forgotten.
struct ElapsedClock: Sendable {
    /// The time since this value was made.
    let elapsed: @Sendable () -> Duration
    /// Suspends until that much time has passed; throws `CancellationError` when the task is cancelled first.
    let sleep: @Sendable (_ until: Duration) async throws -> Void

    init(_ clock: some Clock<Duration>) {
        let start = clock.now
        self.elapsed = { start.duration(to: clock.now) }
        self.sleep = { try await clock.sleep(until: start.advanced(by: $0), tolerance: nil) }
    }
}
