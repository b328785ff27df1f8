// Everything that depends on whether a person watches: width, and progress of long work.

internal import StalkCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// What is known of the terminal.
enum Terminal {
    /// Whether a descriptor is a terminal.
    static func isTerminal(_ descriptor: Int32) -> Bool {
        isatty(descriptor) == 1
    }

    /// How many characters a line of standard output holds; 100 where it is no terminal.
    static var width: Int {
        var size = winsize()
        guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col >= 40 else { return 100 }
        return Int(size.ws_col)
    }
}

/// One line on standard error that says how far long work is; nothing off a terminal, nothing in the first second.
struct ProgressLine {
    private let verb: String
    private let isShown: Bool
    private let start: ContinuousClock.Instant
    private var lastDrawn: ContinuousClock.Instant
    private var isDrawn = false

    /// Begins.
    ///
    /// - Parameters:
    ///   - verb: What is done, such as "published".
    ///   - quiet: Whether to show nothing even on a terminal.
    init(_ verb: String, quiet: Bool = false) {
        self.verb = verb
        self.isShown = !quiet && Terminal.isTerminal(STDERR_FILENO)
        self.start = .now
        self.lastDrawn = .now
    }

    /// Draws the line, at most ten times a second.
    ///
    /// - Parameters:
    ///   - count: How much is done, as text.
    ///   - fraction: How much of all is done, from 0 to 1, where that is known.
    mutating func update(_ count: @autoclosure () -> String, fraction: Double? = nil) {
        guard self.isShown else { return }
        let now = ContinuousClock.now
        guard now - self.start >= .seconds(1), now - self.lastDrawn >= .milliseconds(100) else { return }
        self.lastDrawn = now
        self.isDrawn = true
        StandardError.write("\r\u{1B}[K" + Self.text(self.verb, count(), fraction: fraction))
    }

    /// Takes the line away.
    mutating func end() {
        guard self.isDrawn else { return }
        self.isDrawn = false
        StandardError.write("\r\u{1B}[K")
    }

    /// The line: a bar and a percentage where the end is known, else the count alone.
    static func text(_ verb: String, _ count: String, fraction: Double?) -> String {
        guard let fraction else { return "\(verb) \(count)" }
        let part = min(max(fraction, 0), 1)
        let filled = Int(part * 24)
        let bar = String(repeating: "=", count: filled) + String(repeating: " ", count: 24 - filled)
        return "[\(bar)] \(Int(part * 100))%  \(verb) \(count)"
    }
}

/// A ``ProgressLine`` for callbacks that come from other threads.
final class SharedProgress: Sendable {
    private let line: Locked<ProgressLine>

    init(_ verb: String) {
        self.line = Locked(ProgressLine(verb))
    }

    /// As ``ProgressLine/update(_:fraction:)``.
    func update(_ count: String, fraction: Double?) {
        self.line.withLock { $0.update(count, fraction: fraction) }
    }

    /// As ``ProgressLine/end()``.
    func end() {
        self.line.withLock { $0.end() }
    }
}
