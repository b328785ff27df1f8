// The one place where `stalk work` meets the worker runtime.

internal import Logging
internal import StalkAdmin
internal import StalkCore
internal import StalkLocal
internal import StalkWorker

/// A worker that runs a command for each message of a queue.
struct WorkerRun: Sendable {
    /// A failure that may be tried again; the worker keeps its description as the reason.
    private struct CommandFailed: Error, CustomStringConvertible {
        var description: String
    }

    let queue: any Collector
    let policy: RetryPolicy
    let jobs: Int
    let command: ShellCommand
    /// What names the worker, and the kind of its backend, in metrics and over HTTP.
    var collectorID = WorkerOptions.makeCollectorID()
    var backend = "unknown"
    /// How long running commands may go on after the first signal; `nil` until they end.
    var stopGrace: Duration?
    /// Between which bounds the number of commands follows the work, and how many messages wait.
    var autoscale: AutoscaleOptions?
    var backlog: @Sendable () async throws -> Int = { 0 }
    /// Where to show and control it over HTTP, and a store to show beside it.
    var admin: AdminOptions?
    var store: LocalStore?
    /// Returns once there is nothing left to do; `nil` to go on for ever.
    var drained: (@Sendable () async throws -> Void)?

    /// Works until the first signal that asks the process to end, or until the queue is drained where that was asked for.
    ///
    /// What runs then finishes; a second signal kills it.
    ///
    /// - Returns: What became of the messages.
    /// - Throws: ``StalkError`` with `interrupted` after a second signal; what the worker throws.
    func callAsFunction() async throws -> WorkerCounters {
        let (stop, stopping) = AsyncStream.makeStream(of: Never.self)
        let worker = self.makeWorker(stop: stop)
        return try await withAdminServer(self.admin, collectors: [AdminCollector(worker)], store: self.store) {
            let work: @Sendable () async throws -> WorkerCounters = { try await Self.run(worker, first: stopping) }
            guard let autoscale = self.autoscale else { return try await work() }
            let autoscaling = Autoscaling(worker, options: autoscale, backlog: self.backlog)
            return try await withCompanion({ try await autoscaling.run() }, work)
        }
    }

    private static func run(
        _ worker: Worker,
        first stopping: AsyncStream<Never>.Continuation
    ) async throws -> WorkerCounters {
        try await withEndingSignals { signals in
            try await withThrowingTaskGroup(of: Bool.self) { group in
                group.addTask {
                    try await worker.run()
                    return true
                }
                group.addTask {
                    await Self.twoSignals(signals, first: stopping)
                    return false
                }
                defer { group.cancelAll() }
                guard try await group.next() == true else {
                    let count = worker.counters.inFlight
                    group.cancelAll()
                    // The messages are given back before anything is said.
                    _ = await group.nextResult()
                    throw StalkError(
                        .interrupted,
                        "Stopped at once: \(counted(count, "command")) killed, so \(count == 1 ? "its message comes" : "their messages come") again."
                    )
                }
            }
        }
        return worker.counters
    }

    private func makeWorker(stop: AsyncStream<Never>) -> Worker {
        Worker(
            collector: self.queue,
            options: WorkerOptions(
                collectorID: self.collectorID,
                backend: self.backend,
                concurrency: self.jobs,
                retryPolicy: self.policy,
                stopGrace: self.stopGrace
            ),
            logger: Logger(label: "stalk") { _ in NoteLogHandler() },
            until: { [drained] in
                try await withThrowingTaskGroup(of: Void.self) { group in
                    group.addTask { for await _ in stop {} }
                    if let drained { group.addTask { try await drained() } }
                    defer { group.cancelAll() }
                    try await group.next()
                }
            },
            handler: { [command] delivery in
                switch try await command.run(delivery) {
                case .acknowledge: return .acknowledge
                case .retry(let reason): throw CommandFailed(description: reason)
                case .deadLetter(let reason): throw DeadLetter(reason)
                }
            }
        )
    }

    /// Returns at the second signal, or when the signals end; the first one ends `stopping`.
    private static func twoSignals(
        _ signals: AsyncStream<Int32>,
        first stopping: AsyncStream<Never>.Continuation
    ) async {
        var isStopping = false
        for await _ in signals {
            if isStopping { return }
            isStopping = true
            StandardError.note("Letting what runs finish; another signal stops it at once.")
            stopping.finish()
        }
    }
}

/// Writes what the worker tells as notes on standard error.
private struct NoteLogHandler: LogHandler {
    var logLevel = Logger.Level.info
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { self.metadata[key] }
        set { self.metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let facts = self.metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
        let text = facts.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
        StandardError.note("\(event.message)\(text.isEmpty ? "" : " (\(text))")")
    }
}

extension WorkerCounters {
    /// The counts as a sentence.
    var text: String {
        "\(self.acknowledged) acknowledged, \(self.retried) retried, \(self.deadLettered) dead-lettered"
            + (self.lostLeases == 0 ? "" : ", \(self.lostLeases) lost \(self.lostLeases == 1 ? "its" : "their") lease")
    }

    /// The counts as JSON.
    var json: JSONValue {
        .object([
            .init("received", .number(self.received)),
            .init("acknowledged", .number(self.acknowledged)),
            .init("retried", .number(self.retried)),
            .init("deadLettered", .number(self.deadLettered)),
            .init("released", .number(self.released)),
            .init("lostLeases", .number(self.lostLeases)),
        ])
    }
}
