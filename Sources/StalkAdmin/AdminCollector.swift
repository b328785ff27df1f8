public import StalkCore
public import StalkWorker

/// A collector that can be seen and controlled.
public struct AdminCollector: Sendable {
    /// What names it; unique in the process.
    public var id: String
    /// What kind of backend it is: `local`, `sqs`, `nsq` or another word.
    public var backend: String
    /// The collector.
    public var collector: any Collector
    /// The worker that takes from it, where there is one.
    public var worker: Worker?

    /// Shows a worker and its collector, under the id and the backend of the worker's options.
    public init(_ worker: Worker) {
        self.id = worker.options.collectorID
        self.backend = worker.options.backend
        self.collector = worker.collector
        self.worker = worker
    }

    /// Shows a collector that no worker of this process takes from.
    ///
    /// - Parameters:
    ///   - id: What names it; unique in the process.
    ///   - backend: What kind of backend it is.
    ///   - collector: The collector.
    public init(id: String, backend: String, collector: any Collector) {
        self.id = id
        self.backend = backend
        self.collector = collector
    }
}

extension AdminCollector {
    /// Looks at the collector and its worker.
    func report() async -> AdminOverview.Collector {
        var report = AdminOverview.Collector(
            id: self.id,
            queue: self.collector.queue.rawValue,
            backend: self.backend,
            backendReachable: true
        )
        do {
            let status = try await self.collector.status
            report.sleeping = status.isAsleep
            report.concurrency = status.maxInFlight
            report.inFlight = status.inFlight
        } catch {
            report.backendReachable = false
            report.error = "\(error)"
        }
        if let worker = self.worker {
            let (status, counters) = (worker.status, worker.counters)
            report.running = status.isRunning
            report.stopping = status.isStopping
            report.concurrency = status.concurrency
            report.inFlight = counters.inFlight
            report.stuck = counters.stuck
            report.processed = counters.acknowledged
            report.retried = counters.retried
            report.failed = counters.deadLettered
            report.backendReachable = report.backendReachable && status.isBackendReachable
            report.lastSuccessMs = status.sinceLastSuccess?.wholeMillisecondsRoundedUp
        }
        return report
    }
}
