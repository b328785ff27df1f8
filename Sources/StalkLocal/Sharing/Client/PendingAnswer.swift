// What a caller of the owner waits for.

internal import StalkCore
internal import Synchronization

/// The answer to a call, which may come before its caller waits for it.
final class PendingAnswer: Sendable {
    private enum State {
        case open
        case awaited(CheckedContinuation<WireAnswer, any Error>)
        case answered(Result<WireAnswer, any Error>)
    }

    private let state = Locked<State>(.open)

    func resume(with result: Result<WireAnswer, any Error>) {
        let continuation = self.state.withLock { state -> CheckedContinuation<WireAnswer, any Error>? in
            defer { state = .answered(result) }
            if case .awaited(let continuation) = state { return continuation }
            return nil
        }
        continuation?.resume(with: result)
    }

    /// Waits for it; asked once.
    var value: WireAnswer {
        get async throws {
            try await withCheckedThrowingContinuation { continuation in
                let result = self.state.withLock { state -> Result<WireAnswer, any Error>? in
                    if case .answered(let result) = state { return result }
                    state = .awaited(continuation)
                    return nil
                }
                if let result { continuation.resume(with: result) }
            }
        }
    }
}
