// Messages on their way to a remote queue, as the page, the metrics and `stalk top` show them.

internal import StalkCore
public import StalkFailover
public import StalkLocal

/// A forwarding that can be seen: a ``StalkFailover/FailoverCollector``, or a ``StalkFailover/Forwarder`` by itself.
public struct AdminFailover: Sendable {
    /// What names it; unique in the process.
    public var id: String
    let look: @Sendable () async throws -> AdminOverview.Failover

    /// Shows a remote queue with a store in front of it.
    ///
    /// - Parameters:
    ///   - id: What names it; unique in the process.
    ///   - collector: The remote queue and its spool.
    public init(id: String, _ collector: FailoverCollector) {
        self.id = id
        self.look = {
            let stats = try await collector.stats()
            var report = AdminOverview.Failover(
                id: id,
                queue: collector.queue.rawValue,
                destination: collector.queue.rawValue,
                breaker: stats.breaker.rawValue,
                rate: stats.rate,
                rateLimit: stats.rateLimit,
                stats.forwarding
            )
            report.byteRate = stats.byteRate
            report.triedInMs = stats.triedIn?.wholeMillisecondsRoundedUp
            report.waiting = stats.waiting
            report.delayed = stats.delayed
            report.setAside = stats.setAside
            report.bytes = stats.bytes
            report.oldestAgeMs = stats.oldestAge?.wholeMillisecondsRoundedUp
            report.timeToEmptyMs = stats.timeToEmpty?.wholeMillisecondsRoundedUp
            report.direct = stats.direct
            report.stored = stats.stored
            report.dropped = stats.dropped
            report.refusedFull = stats.refusedFull
            report.outcomesWaiting = stats.outcomesWaiting
            report.recognised = stats.recognised
            return report
        }
    }

    /// Shows a forwarder.
    ///
    /// - Parameters:
    ///   - id: What names it; unique in the process.
    ///   - forwarder: It.
    ///   - store: The store that its source is a queue of; `nil` for another source, whose depth is not known.
    public init(id: String, _ forwarder: Forwarder, from store: LocalStore?) {
        self.id = id
        self.look = {
            let queue = forwarder.source.queue
            let rate = forwarder.rate
            var report = AdminOverview.Failover(
                id: id,
                queue: queue.rawValue,
                destination: forwarder.destination.queue.rawValue,
                breaker: forwarder.breaker.rawValue,
                rate: rate,
                rateLimit: forwarder.rateLimit,
                forwarder.counters
            )
            report.byteRate = forwarder.byteRate
            report.triedInMs = forwarder.triedIn?.wholeMillisecondsRoundedUp
            guard let waiting = try await store?.stats().queues.first(where: { $0.name == queue }) else {
                return report
            }
            let count = waiting.ready + waiting.leased
            report.waiting = count
            report.delayed = waiting.delayed
            report.setAside = waiting.dead
            report.bytes = waiting.bytes
            report.oldestAgeMs = waiting.oldestAge?.wholeMillisecondsRoundedUp
            report.timeToEmptyMs = FailoverStats.timeToEmpty(count, rate: rate)?.wholeMillisecondsRoundedUp
            return report
        }
    }
}

extension AdminOverview {
    /// Messages on their way to a remote queue.
    package struct Failover: Codable, Sendable {
        package var id: String
        package var queue: String
        package var destination: String
        /// `closed`, `open` or `halfOpen`.
        package var breaker: String
        /// When the destination is tried next, while the breaker is open.
        package var triedInMs: Int64?
        /// Messages that left in the last second, and the most that may.
        package var rate: Int
        package var rateLimit: Double?
        /// Bytes of bodies that left in the last second.
        package var byteRate = 0
        package var forwarded: Int
        package var ambiguous: Int
        package var mayBeDuplicate: Int
        package var throttled: Int
        package var opened: Int
        /// What waits in the store; `nil` where messages come from elsewhere.
        package var waiting: Int?
        package var delayed: Int?
        package var setAside: Int?
        package var bytes: Int?
        package var oldestAgeMs: Int64?
        package var timeToEmptyMs: Int64?
        /// Of publishing and taking; `nil` for a forwarder by itself.
        package var direct: Int?
        package var stored: Int?
        package var dropped: Int?
        package var refusedFull: Int?
        package var outcomesWaiting: Int?
        package var recognised: Int?

        init(
            id: String,
            queue: String,
            destination: String,
            breaker: String,
            rate: Int,
            rateLimit: Double?,
            _ counters: ForwardingCounters
        ) {
            self.id = id
            self.queue = queue
            self.destination = destination
            self.breaker = breaker
            self.rate = rate
            self.rateLimit = rateLimit
            self.forwarded = counters.forwarded
            self.ambiguous = counters.ambiguous
            self.mayBeDuplicate = counters.mayBeDuplicate
            self.throttled = counters.throttled
            self.opened = counters.opened
        }
    }
}

// MARK: As Prometheus' text

extension AdminAPI {
    func write(_ failovers: [AdminOverview.Failover], to text: inout PrometheusText) {
        guard !failovers.isEmpty else { return }
        func labels(_ one: AdminOverview.Failover) -> PrometheusText.Labels {
            [("failover", one.id), ("queue", one.queue)]
        }
        text.family("stalk_failover_messages", .gauge, "Messages in the spool by state.")
        for one in failovers {
            for (state, value) in [("waiting", one.waiting), ("delayed", one.delayed), ("set_aside", one.setAside)] {
                if let value { text.sample("stalk_failover_messages", labels(one) + [("state", state)], value) }
            }
        }
        let figures: [(String, PrometheusText.Kind, String, KeyPath<AdminOverview.Failover, Int?>)] = [
            ("stalk_failover_bytes", .gauge, "Size of the bodies in the spool.", \.bytes),
            ("stalk_failover_breaker_open", .gauge, "1 while the remote is away or only tried.", \.openFigure),
            ("stalk_failover_rate", .gauge, "Messages that left in the last second.", \.rateFigure),
            ("stalk_failover_byte_rate", .gauge, "Bytes of bodies that left in the last second.", \.byteRateFigure),
            ("stalk_failover_outcomes_waiting", .gauge, "Outcomes that wait for the remote.", \.outcomesWaiting),
            ("stalk_failover_direct_total", .counter, "Messages that went to the remote at once.", \.direct),
            ("stalk_failover_stored_total", .counter, "Messages that were stored first.", \.stored),
            ("stalk_failover_dropped_total", .counter, "Messages that newer ones displaced.", \.dropped),
            ("stalk_failover_refused_full_total", .counter, "Publishes refused by a full spool.", \.refusedFull),
            ("stalk_failover_recognised_total", .counter, "Deliveries that were done before.", \.recognised),
            ("stalk_failover_forwarded_total", .counter, "Messages that left the spool.", \.counted.forwarded),
            ("stalk_failover_ambiguous_total", .counter, "Sends without an answer.", \.counted.ambiguous),
            ("stalk_failover_may_be_duplicate_total", .counter, "Sent again too late.", \.counted.mayBeDuplicate),
            ("stalk_failover_throttled_total", .counter, "How often the remote asked for less.", \.counted.throttled),
            ("stalk_failover_opened_total", .counter, "How often the breaker opened.", \.counted.opened),
        ]
        for (name, kind, help, path) in figures {
            text.family(name, kind, help)
            for one in failovers { if let value = one[keyPath: path] { text.sample(name, labels(one), value) } }
        }
        text.family("stalk_failover_rate_limit", .gauge, "The most messages per second.")
        for one in failovers {
            if let limit = one.rateLimit { text.sample("stalk_failover_rate_limit", labels(one), "\(limit)") }
        }
        let times: [(String, String, KeyPath<AdminOverview.Failover, Int64?>)] = [
            ("stalk_failover_oldest_age_seconds", "How long the first in line has waited.", \.oldestAgeMs),
            ("stalk_failover_empty_in_seconds", "How long the spool takes to empty.", \.timeToEmptyMs),
        ]
        for (name, help, path) in times {
            text.family(name, .gauge, help)
            for one in failovers {
                if let value = one[keyPath: path] { text.sample(name, labels(one), Duration.milliseconds(value)) }
            }
        }
    }
}

extension AdminOverview.Failover {
    fileprivate var openFigure: Int? { self.breaker == BreakerPhase.closed.rawValue ? 0 : 1 }
    fileprivate var rateFigure: Int? { self.rate }
    fileprivate var byteRateFigure: Int? { self.byteRate }
    /// The counters as they are in every report.
    fileprivate var counted: Counted {
        Counted(
            forwarded: self.forwarded,
            ambiguous: self.ambiguous,
            mayBeDuplicate: self.mayBeDuplicate,
            throttled: self.throttled,
            opened: self.opened
        )
    }

    fileprivate struct Counted {
        var forwarded: Int?
        var ambiguous: Int?
        var mayBeDuplicate: Int?
        var throttled: Int?
        var opened: Int?
    }
}
