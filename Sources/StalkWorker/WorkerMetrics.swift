// The worker's figures for swift-metrics. Names and labels: docs/worker.md, "Metrics".

internal import CoreMetrics
internal import StalkCore

/// Hands what changes in a worker's counters on to the metrics backend of the process.
struct WorkerMetrics: Sendable {
    private let received: Counter
    private let processed: Counter
    private let retried: Counter
    private let failed: Counter
    private let released: Counter
    private let timedOut: Counter
    private let lostLeases: Counter
    private let inFlight: Meter
    private let duration: CoreMetrics.Timer

    init(options: WorkerOptions, queue: QueueName) {
        let factory = MetricsSystem.factory
        let labels = [
            ("collector", options.collectorID), ("queue", queue.rawValue), ("backend", options.backend),
        ]
        func counter(_ name: String) -> Counter {
            Counter(label: "stalk_messages_\(name)", dimensions: labels, factory: factory)
        }
        self.received = counter("received")
        self.processed = counter("processed")
        self.retried = counter("retried")
        self.failed = counter("failed")
        self.released = counter("released")
        self.timedOut = Counter(label: "stalk_handlers_timed_out", dimensions: labels, factory: factory)
        self.lostLeases = Counter(label: "stalk_leases_lost", dimensions: labels, factory: factory)
        self.inFlight = Meter(label: "stalk_messages_in_flight", dimensions: labels, factory: factory)
        self.duration = CoreMetrics.Timer(label: "stalk_handler_duration", dimensions: labels, factory: factory)
    }

    /// Reports the steps from one reading to the next; in any order, since steps only add up.
    func report(_ before: WorkerCounters, _ after: WorkerCounters) {
        func step(_ counter: Counter, _ path: KeyPath<WorkerCounters, Int>) {
            let step = after[keyPath: path] - before[keyPath: path]
            if step > 0 { counter.increment(by: step) }
        }
        step(self.received, \.received)
        step(self.processed, \.acknowledged)
        step(self.retried, \.retried)
        step(self.failed, \.deadLettered)
        step(self.released, \.released)
        step(self.timedOut, \.timedOut)
        step(self.lostLeases, \.lostLeases)
        let more = after.inFlight - before.inFlight
        if more > 0 { self.inFlight.increment(by: Double(more)) }
        if more < 0 { self.inFlight.decrement(by: Double(-more)) }
        if after.durations.count > before.durations.count {
            self.duration.recordNanoseconds((after.durations.sum - before.durations.sum).nanoseconds)
        }
    }
}

extension Duration {
    fileprivate var nanoseconds: Int64 {
        let (seconds, attoseconds) = self.components
        return seconds * 1_000_000_000 + attoseconds / 1_000_000_000
    }
}
