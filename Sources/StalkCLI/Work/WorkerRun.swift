// The one place where `stalk work` meets the worker runtime.

internal import StalkCore
internal import StalkLocal

/// A worker that runs a command for each message of a queue.
struct WorkerRun: Sendable {
    var policy: RetryPolicy
    var jobs: Int
    var drains: Bool
    var command: ShellCommand
    var tally: WorkTally

    func callAsFunction(on queue: LocalQueue) async throws {
        throw StalkError(.unsupported, "not built yet")
    }
}
