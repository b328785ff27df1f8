// Metrics in Prometheus' text format (version 0.0.4). Names: docs/worker.md, "Metrics".

internal import StalkCore
internal import StalkLocal
internal import StalkWorker

/// Metrics as text, one family after the other.
struct PrometheusText {
    enum Kind: String {
        case counter, gauge, histogram
    }

    typealias Labels = [(name: String, value: String)]

    private(set) var text = ""

    /// Begins a family; its samples follow.
    mutating func family(_ name: String, _ kind: Kind, _ help: String) {
        self.text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind.rawValue)\n"
    }

    mutating func sample(_ name: String, _ labels: Labels, _ value: String) {
        let pairs = labels.map { "\($0.name)=\"\(Self.escaped($0.value))\"" }.joined(separator: ",")
        self.text += pairs.isEmpty ? "\(name) \(value)\n" : "\(name){\(pairs)} \(value)\n"
    }

    mutating func sample(_ name: String, _ labels: Labels, _ value: Int) {
        self.sample(name, labels, "\(value)")
    }

    mutating func sample(_ name: String, _ labels: Labels, _ value: Duration) {
        self.sample(name, labels, Self.seconds(value))
    }

    mutating func histogram(_ name: String, _ labels: Labels, _ histogram: DurationHistogram) {
        var total = 0
        for (count, bound) in zip(histogram.counts, DurationHistogram.bounds) {
            total += count
            self.sample("\(name)_bucket", labels + [("le", Self.seconds(bound))], total)
        }
        self.sample("\(name)_bucket", labels + [("le", "+Inf")], histogram.count)
        self.sample("\(name)_sum", labels, histogram.sum)
        self.sample("\(name)_count", labels, histogram.count)
    }

    /// - Parameter scale: What one of the histogram's figures is, in the unit of the metric.
    mutating func histogram(_ name: String, _ histogram: StoreHistogram, scale: Double = 1) {
        func figure(_ value: Int) -> String { scale == 1 ? "\(value)" : "\(Double(value) * scale)" }
        var total = 0
        for (count, bound) in zip(histogram.counts, histogram.bounds) {
            total += count
            self.sample("\(name)_bucket", [("le", figure(bound))], total)
        }
        self.sample("\(name)_bucket", [("le", "+Inf")], histogram.count)
        self.sample("\(name)_sum", [], figure(histogram.sum))
        self.sample("\(name)_count", [], histogram.count)
    }

    private static func escaped(_ value: String) -> String {
        value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }

    /// Seconds to the microsecond, without digits that say nothing.
    static func seconds(_ duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        return "\(Double(seconds) + Double(attoseconds / 1_000_000_000_000) / 1_000_000)"
    }
}

extension AdminAPI {
    func metrics() async throws -> AdminResponse {
        var text = PrometheusText()
        await self.writeCollectors(to: &text)
        self.write(try await self.failoverReports(), to: &text)
        if let store = self.store { Self.write(try await store.stats(), to: &text) }
        return AdminResponse(
            status: 200,
            contentType: "text/plain; version=0.0.4; charset=utf-8",
            body: Array(text.text.utf8)
        )
    }

    private func writeCollectors(to text: inout PrometheusText) async {
        let reports = await self.reports()
        let rows = zip(self.collectors, reports).map { collector, report in
            let labels: PrometheusText.Labels = [
                ("collector", report.id), ("queue", report.queue), ("backend", report.backend),
            ]
            return (labels: labels, report: report, counters: collector.worker?.counters)
        }
        guard !rows.isEmpty else { return }
        let counters: [(String, String, KeyPath<WorkerCounters, Int>)] = [
            ("stalk_messages_received_total", "Deliveries that the worker got.", \.received),
            ("stalk_messages_processed_total", "Messages that are done.", \.acknowledged),
            ("stalk_messages_retried_total", "Deliveries that failed and come again.", \.retried),
            ("stalk_messages_failed_total", "Messages that failed for good.", \.deadLettered),
            ("stalk_messages_released_total", "Deliveries given back without an attempt.", \.released),
            ("stalk_handlers_timed_out_total", "Handlers that ran out of time.", \.timedOut),
            ("stalk_leases_lost_total", "Deliveries whose lease was over too early.", \.lostLeases),
        ]
        for (name, help, path) in counters {
            text.family(name, .counter, help)
            for row in rows { if let value = row.counters?[keyPath: path] { text.sample(name, row.labels, value) } }
        }
        let gauges: [(String, String, KeyPath<AdminOverview.Collector, Int?>)] = [
            ("stalk_messages_in_flight", "Deliveries that are held now.", \.inFlight),
            ("stalk_handlers_stuck", "Handlers that ignore their cancellation.", \.stuck),
            ("stalk_collector_concurrency", "How many handlers may run at a time.", \.concurrency),
            ("stalk_collector_asleep", "1 while nothing is taken.", \.asleepFigure),
            ("stalk_backend_up", "1 while the backend answers.", \.upFigure),
        ]
        for (name, help, path) in gauges {
            text.family(name, .gauge, help)
            for row in rows { if let value = row.report[keyPath: path] { text.sample(name, row.labels, value) } }
        }
        text.family("stalk_handler_duration_seconds", .histogram, "How long handlers ran.")
        for row in rows {
            if let counters = row.counters {
                text.histogram("stalk_handler_duration_seconds", row.labels, counters.durations)
            }
        }
    }

    private static func write(_ stats: StoreStats, to text: inout PrometheusText) {
        func labels(_ queue: QueueStats) -> PrometheusText.Labels { [("queue", queue.name.rawValue)] }
        text.family("stalk_queue_messages", .gauge, "Messages by state.")
        let states: [(String, KeyPath<QueueStats, Int>)] = [
            ("ready", \.ready), ("delayed", \.delayed), ("leased", \.leased), ("dead", \.dead),
        ]
        for queue in stats.queues {
            for (state, path) in states {
                text.sample("stalk_queue_messages", labels(queue) + [("state", state)], queue[keyPath: path])
            }
        }
        text.family("stalk_queue_bytes", .gauge, "Size of the bodies as published.")
        for queue in stats.queues { text.sample("stalk_queue_bytes", labels(queue), queue.bytes) }
        text.family("stalk_queue_oldest_age_seconds", .gauge, "How long the first in line has been ready.")
        for queue in stats.queues {
            text.sample("stalk_queue_oldest_age_seconds", labels(queue), queue.oldestAge ?? .zero)
        }
        text.family("stalk_queue_paused", .gauge, "1 while the queue is paused.")
        for queue in stats.queues { text.sample("stalk_queue_paused", labels(queue), queue.isPaused ? 1 : 0) }

        let activity = stats.activity
        let figures: [(String, PrometheusText.Kind, String, Int)] = [
            ("stalk_store_log_bytes", .gauge, "Size of the log on the disk.", stats.logBytes),
            ("stalk_store_lmdb_bytes", .gauge, "Size of the LMDB file.", stats.lmdbBytes),
            ("stalk_store_checkpoint_lag_bytes", .gauge, "Log that LMDB lacks.", stats.checkpointLag),
            ("stalk_store_set_aside", .gauge, "Damaged values that were passed over.", stats.setAside),
            ("stalk_group_commits_total", .counter, "Group commits in the store's life.", activity.frames),
            ("stalk_lmdb_commits_total", .counter, "LMDB commits in the store's life.", activity.lmdbCommits),
            ("stalk_log_written_bytes_total", .counter, "Bytes written to the log.", activity.logBytesWritten),
        ]
        for (name, kind, help, value) in figures {
            text.family(name, kind, help)
            text.sample(name, [], value)
        }
        text.family("stalk_group_commit_size", .histogram, "How many calls share a group commit.")
        text.histogram("stalk_group_commit_size", activity.commitCalls)
        text.family("stalk_fsync_seconds", .histogram, "How long syncs of the log took.")
        text.histogram("stalk_fsync_seconds", activity.logSyncs, scale: 1e-6)
        text.family("stalk_schedule_lag_seconds", .gauge, "How late the schedule is.")
        text.sample("stalk_schedule_lag_seconds", [], stats.scheduleLag)
    }
}

extension AdminOverview.Collector {
    fileprivate var asleepFigure: Int? { self.sleeping.map { $0 ? 1 : 0 } }
    fileprivate var upFigure: Int? { self.backendReachable ? 1 : 0 }
}
