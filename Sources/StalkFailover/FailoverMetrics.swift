// The figures of a failover collector for swift-metrics. Names and labels: docs/failover.md, "Metrics".

internal import CoreMetrics
internal import StalkCore

/// Hands what changes on to the metrics backend of the process.
struct FailoverMetrics: Sendable {
    private let direct: Counter
    private let stored: Counter
    private let forwarded: Counter
    private let setAside: Counter
    private let ambiguous: Counter
    private let mayBeDuplicate: Counter
    private let throttled: Counter
    private let messages: Meter
    private let bytes: Meter
    private let isOpen: Meter

    init(queue: QueueName) {
        let factory = MetricsSystem.factory
        let labels = [("queue", queue.rawValue)]
        func counter(_ name: String) -> Counter {
            Counter(label: "stalk_failover_\(name)", dimensions: labels, factory: factory)
        }
        func meter(_ name: String) -> Meter {
            Meter(label: "stalk_failover_\(name)", dimensions: labels, factory: factory)
        }
        self.direct = counter("direct")
        self.stored = counter("stored")
        self.forwarded = counter("forwarded")
        self.setAside = counter("set_aside")
        self.ambiguous = counter("ambiguous")
        self.mayBeDuplicate = counter("may_be_duplicate")
        self.throttled = counter("throttled")
        self.messages = meter("messages")
        self.bytes = meter("bytes")
        self.isOpen = meter("breaker_open")
    }

    /// Messages went to the remote at once.
    func passed(direct count: Int) {
        if count > 0 { self.direct.increment(by: count) }
    }

    /// Messages were stored first.
    func passed(stored count: Int) {
        if count > 0 { self.stored.increment(by: count) }
    }

    /// What the spool holds.
    func holds(_ routing: RoutingStateMachine) {
        self.messages.set(routing.messages)
        self.bytes.set(routing.bytes)
    }

    /// The steps from one reading to the next; in any order, since steps only add up.
    func report(_ before: ForwardingCounters, _ after: ForwardingCounters, _ breaker: BreakerPhase) {
        func step(_ counter: Counter, _ path: KeyPath<ForwardingCounters, Int>) {
            let step = after[keyPath: path] - before[keyPath: path]
            if step > 0 { counter.increment(by: step) }
        }
        step(self.forwarded, \.forwarded)
        step(self.setAside, \.setAside)
        step(self.ambiguous, \.ambiguous)
        step(self.mayBeDuplicate, \.mayBeDuplicate)
        step(self.throttled, \.throttled)
        self.isOpen.set(breaker == .closed ? 0 : 1)
    }
}
