// Ending a command that takes too long, with everything it started.

internal import StalkCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// The process group of one run of a command.
final class ProcessGroup: Sendable {
    private struct State {
        var id: pid_t?
        var hasEnded = false
        var isOverdue = false
    }

    private let state = Locked(State())

    /// Whether the run's time was over before it ended.
    var isOverdue: Bool { self.state.withLock { $0.isOverdue } }

    /// The command runs.
    ///
    /// - Parameter id: Its process, which leads the group.
    func started(_ id: pid_t) {
        self.state.withLock { $0.id = id }
    }

    /// The command has ended; what it left behind goes too when its time was over.
    ///
    /// The number can't belong to somebody else while a process of the group is left, since the kernel keeps it reserved.
    func ended() {
        self.state.withLock { state in
            state.hasEnded = true
            if state.isOverdue, let id = state.id { kill(-id, SIGKILL) }
        }
    }

    /// Ends the group once its time is over: it is asked to, and a grace later it is killed.
    ///
    /// - Parameters:
    ///   - timeout: How long it may run.
    ///   - grace: How long it has to obey.
    /// - Throws: `CancellationError` when the run ended before.
    func end(after timeout: Duration, grace: Duration) async throws {
        try await Task.sleep(for: timeout)
        self.send(SIGTERM)
        try await Task.sleep(for: grace)
        self.send(SIGKILL)
    }

    private func send(_ signal: Int32) {
        self.state.withLock { state in
            guard !state.hasEnded, let id = state.id else { return }
            state.isOverdue = true
            kill(-id, signal)
        }
    }
}
