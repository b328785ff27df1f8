// Messages that say the same twice, within the memory of one process.

public import StalkCore

extension Middleware {
    /// Acknowledges a message without running it when one with the same key was acknowledged a short time ago.
    ///
    /// It is a saving, not a promise: another process, and this one after a restart, knows nothing of it. A message whose
    /// twin runs at this moment waits for how that ends.
    ///
    /// - Parameters:
    ///   - window: How long a key is remembered.
    ///   - capacity: How many keys are remembered at most; the oldest is forgotten first.
    ///   - clock: What the window is counted by.
    ///   - key: The key of a delivery; `nil` for one that is always run.
    public static func deduplicate(
        window: Duration,
        capacity: Int = 100_000,
        clock: any Clock<Duration> = ContinuousClock(),
        _ key: @escaping @Sendable (Delivery) -> String?
    ) -> Middleware {
        let clock = ElapsedClock(clock)
        let keys = Shared(RecentKeys(window: window, capacity: max(capacity, 1)))
        let oneAtATime = Middleware.perKey(limit: 1, key)
        return Middleware { delivery, next in
            guard let key = key(delivery) else { return try await next(delivery) }
            return try await oneAtATime.body(delivery) { delivery in
                if keys.value.withLock({ $0.contains(key, now: clock.elapsed()) }) { return .acknowledge }
                let disposition = try await next(delivery)
                if disposition.isSuccess { keys.value.withLock { $0.insert(key, now: clock.elapsed()) } }
                return disposition
            }
        }
    }
}

/// Keys that were seen within a window of time, as many as there is room for.
struct RecentKeys: Sendable {
    private let window: Duration
    private let capacity: Int
    private var seenAt: [String: Duration] = [:]
    /// In the order in which they were seen; one that was seen again stands here more than once.
    private var order: [(key: String, at: Duration)] = []
    /// The first of `order` that counts.
    private var start = 0

    init(window: Duration, capacity: Int) {
        self.window = window
        self.capacity = capacity
    }

    /// How many keys are held in memory.
    var count: Int { self.seenAt.count }

    mutating func contains(_ key: String, now: Duration) -> Bool {
        self.forget(now: now)
        return self.seenAt[key] != nil
    }

    mutating func insert(_ key: String, now: Duration) {
        self.seenAt[key] = now
        self.order.append((key, now))
        self.forget(now: now)
    }

    private mutating func forget(now: Duration) {
        while self.start < self.order.count {
            let (key, at) = self.order[self.start]
            let isCurrent = self.seenAt[key] == at
            guard !isCurrent || now - at >= self.window || self.seenAt.count > self.capacity else { break }
            if isCurrent { self.seenAt[key] = nil }
            self.start += 1
        }
        // Half of the array is a mark that makes moving the rest cheap on average.
        if self.start > 64, self.start > self.order.count / 2 {
            self.order.removeFirst(self.start)
            self.start = 0
        }
    }
}
