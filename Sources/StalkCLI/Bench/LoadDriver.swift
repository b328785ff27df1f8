// Concurrent callers that do the same call again and again.

/// What concurrent callers got done.
struct LoadResult: Sendable {
    var messages = 0
    var calls = 0
    var seconds = 0.0
    var latency = LatencyHistogram()

    var rate: Double { self.seconds > 0 ? Double(self.messages) / self.seconds : 0 }

    /// Puts another round of the same load to this one.
    mutating func merge(_ other: LoadResult) {
        self.messages += other.messages
        self.calls += other.calls
        self.seconds += other.seconds
        self.latency.merge(other.latency)
    }
}

/// A load: concurrent callers, each with one call under way at a time.
struct Load: Sendable {
    /// How many callers.
    var callers: Int
    /// How many messages a call handles.
    var batch: Int
    /// One call; it says how many messages it handled.
    ///
    /// - Parameter first: The number of its first message, different in every call.
    var call: @Sendable (_ first: Int) async throws -> Int

    /// Calls for a while.
    ///
    /// - Parameter duration: When no further call is begun.
    /// - Throws: What a call throws, and `CancellationError`.
    func run(for duration: Duration) async throws -> LoadResult {
        let start = monotonicNanoseconds()
        let end = start + duration.nanoseconds
        return try await withThrowingTaskGroup(of: LoadResult.self) { group in
            for caller in 0..<self.callers {
                group.addTask {
                    var result = LoadResult()
                    var now = monotonicNanoseconds()
                    while now < end {
                        try Task.checkCancellation()
                        result.messages += try await self.call((result.calls * self.callers + caller) * self.batch)
                        let finished = monotonicNanoseconds()
                        result.latency.record(finished - now)
                        result.calls += 1
                        now = finished
                    }
                    return result
                }
            }
            var all = LoadResult()
            for try await result in group { all.merge(result) }
            all.seconds = Double(monotonicNanoseconds() - start) / 1e9
            return all
        }
    }
}

extension Duration {
    /// Whole nanoseconds.
    var nanoseconds: Int64 {
        let (seconds, attoseconds) = self.components
        return seconds * 1_000_000_000 + attoseconds / 1_000_000_000
    }

    /// Seconds with a fraction.
    var inSeconds: Double { Double(self.nanoseconds) / 1e9 }
}
