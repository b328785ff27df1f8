// When a consumer whose handler fails stops taking, and how it always comes back.

/// Pauses taking after failures in a row, tries one message after each pause, and comes back by its successes.
///
/// A pause at level n lasts `base` × 2ⁿ⁻¹, at most `cap`. Only the outcome of the probe counts while one is out, so what
/// was already running can't lengthen the pause. A probe that ends without an outcome is followed by another one.
/// A success halves the level: from the longest pause, a handler that works again is back after at most
/// log₂(levels) + 1 probes.
struct Backoff {
    private enum State {
        case open
        case paused(until: Duration)
        case probing(UInt64?)
    }

    private let options: NSQBackoff?
    private var state = State.open
    private var streak = 0
    private(set) var level = 0

    init(_ options: NSQBackoff?) {
        self.options = options
    }

    /// How many deliveries may be handed out, by how many are out.
    func room(leased: Int) -> Int {
        switch self.state {
        case .open: .max
        case .paused: 0
        // What was taken before the pause ends first.
        case .probing(let probe): probe == nil && leased == 0 ? 1 : 0
        }
    }

    /// How many messages nsqd may have out in all; `nil` for no limit of this kind.
    var budget: Int? {
        switch self.state {
        case .open: nil
        case .paused: 0
        case .probing: 1
        }
    }

    /// When the pause is over.
    var pauseEnd: Duration? {
        guard case .paused(let end) = self.state else { return nil }
        return end
    }

    mutating func handedOut(_ serial: UInt64) {
        if case .probing(nil) = self.state { self.state = .probing(serial) }
    }

    /// A delivery ended without telling anything about the handler: given back, or its connection or lease was lost.
    mutating func ended(_ serial: UInt64) {
        if case .probing(serial) = self.state { self.state = .probing(nil) }
    }

    mutating func succeeded(_ serial: UInt64, now: Duration) {
        switch self.state {
        case .open:
            self.streak = 0
        case .paused:
            break
        case .probing(let probe):
            guard probe == serial else { return }
            self.level /= 2
            self.streak = 0
            self.state = .open
            if self.level > 0 { self.pause(now: now) }
        }
    }

    mutating func failed(_ serial: UInt64, now: Duration) {
        guard let options = self.options else { return }
        switch self.state {
        case .open:
            self.streak += 1
            guard self.streak >= options.failures else { return }
            self.level = 1
            self.pause(now: now)
        case .paused:
            break
        case .probing(let probe):
            guard probe == serial else { return }
            if self.length(of: self.level) < options.cap { self.level += 1 }
            self.pause(now: now)
        }
    }

    /// Ends the pause when its time has come.
    mutating func advance(to now: Duration) {
        if case .paused(let end) = self.state, end <= now { self.state = .probing(nil) }
    }

    private mutating func pause(now: Duration) {
        self.state = .paused(until: now + self.length(of: self.level))
    }

    private func length(of level: Int) -> Duration {
        guard let options = self.options else { return .zero }
        var length = options.base
        for _ in 1..<max(level, 1) where length < options.cap { length = length * 2 }
        return min(length, options.cap)
    }
}
