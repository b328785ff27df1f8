/// When the next message may begin: the generic cell rate algorithm (ITU-T I.371), which needs one number.
struct TokenBucket: Sendable {
    private let interval: Duration
    /// How far the schedule may run ahead of the time.
    private let tolerance: Duration
    /// When the next one would begin, were they spread evenly.
    private var nextAt: Duration = .zero

    init(count: Int, period: Duration, burst: Int) {
        self.interval = period / count
        self.tolerance = self.interval * (burst - 1)
    }

    /// Takes the next place and says when it begins.
    mutating func reserve(now: Duration) -> Duration {
        let place = max(self.nextAt, now)
        self.nextAt = place + self.interval
        return max(now, place - self.tolerance)
    }
}

/// Who may run of each key, and who waits in line.
struct KeyedGate<Waiter: Sendable>: Sendable {
    private struct Line: Sendable {
        var running = 0
        var waiting: [(ticket: UInt64, waiter: Waiter)] = []
    }

    private let limit: Int
    private var lines: [String: Line] = [:]
    private var nextTicket: UInt64 = 0

    init(limit: Int) {
        self.limit = limit
    }

    /// How many keys are held in memory: those with somebody running.
    var keyCount: Int { self.lines.count }

    /// A number that nobody else has.
    mutating func makeTicket() -> UInt64 {
        defer { self.nextTicket += 1 }
        return self.nextTicket
    }

    /// Lets one run, or puts it in line.
    ///
    /// - Returns: Whether it may run now.
    mutating func enter(_ key: String, _ ticket: UInt64, waiter: Waiter) -> Bool {
        guard self.lines[key]?.running ?? 0 >= self.limit else {
            self.lines[key, default: Line()].running += 1
            return true
        }
        self.lines[key]?.waiting.append((ticket, waiter))
        return false
    }

    /// Ends one that ran.
    ///
    /// - Returns: Who runs in its place.
    mutating func leave(_ key: String) -> Waiter? {
        guard var line = self.lines[key] else { return nil }
        if !line.waiting.isEmpty {
            let next = line.waiting.removeFirst()
            self.lines[key] = line
            return next.waiter
        }
        line.running -= 1
        self.lines[key] = line.running == 0 ? nil : line
        return nil
    }

    /// Takes one out of line; `nil` when it does not stand there.
    mutating func cancel(_ key: String, _ ticket: UInt64) -> Waiter? {
        guard let position = self.lines[key]?.waiting.firstIndex(where: { $0.ticket == ticket }) else { return nil }
        return self.lines[key]?.waiting.remove(at: position).waiter
    }
}
