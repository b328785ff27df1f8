// What Ctrl-C and `kill` do: they end the work in order instead of cutting it off.

internal import Dispatch

#if canImport(Glibc)
    internal import Glibc
#endif

/// The signals that ask the process to end.
private let endingSignals = [SIGINT, SIGTERM, SIGHUP]

/// Runs `body` with the signals that ask the process to end, one element for each, instead of ending.
///
/// - Parameter body: What to run; the sequence ends with it.
func withEndingSignals<Value: Sendable>(
    _ body: @Sendable (AsyncStream<Int32>) async throws -> Value
) async rethrows -> Value {
    let (signals, continuation) = AsyncStream.makeStream(of: Int32.self)
    let (registered, registering) = AsyncStream.makeStream(of: Void.self)
    let sources = endingSignals.map { number in
        let source = DispatchSource.makeSignalSource(signal: number)
        source.setEventHandler { continuation.yield(number) }
        source.setRegistrationHandler { registering.yield() }
        source.activate()
        return source
    }
    // Until then a signal would end the process in the middle of what `body` does.
    for await _ in registered.prefix(sources.count) {}
    defer {
        for source in sources { source.cancel() }
        continuation.finish()
    }
    return try await body(signals)
}

/// Runs `body` and cancels it at the first signal that asks the process to end.
///
/// - Parameter body: What to run; it decides what to say when it is cancelled.
func cancelledBySignals<Value: Sendable>(
    _ body: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    try await withEndingSignals { signals in
        try await withThrowingTaskGroup(of: Value?.self) { group in
            group.addTask { try await body() }
            group.addTask {
                for await _ in signals { break }
                return nil
            }
            defer { group.cancelAll() }
            while let value = try await group.next() {
                if let value { return value }
                group.cancelAll()
            }
            throw CancellationError()
        }
    }
}
