// `stalk stats`: the figures of the store and its queues.

internal import ArgumentParser
internal import StalkCore
internal import StalkFailover
internal import StalkLocal

struct StatsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats",
        abstract: "Show how many messages are where.",
        discussion: """
            For each queue: how many messages are ready to be taken, delayed until later, leased to somebody who works \
            on them, and dead because they failed for good; the size of their bodies; how long the first in line waits. \
            Other processes may use the store meanwhile.

            Where a process forwards from a queue ('put --spool', 'forward'), a second table says how that is going: the \
            circuit breaker and when it is tried next, messages and bytes in the last second, what was sent without an \
            answer, what was set aside, and how long the queue takes to empty.

              stalk stats
              stalk stats mail --json | jq '.queues[0].ready'
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Argument(help: "Only this queue.")
    var queue: String?

    @Flag(help: "Report as JSON.")
    var json = false

    func run() async throws {
        let name = try self.queue.map(localQueueName)
        var (stats, reports) = try await self.storeOptions.withStore { store in
            let reports = try await ForwardingReport.all(in: store).filter { name == nil || $0.queue == name }
            // What is forwarded as it comes has a queue only once something had to wait.
            if let name, reports.isEmpty { try await store.requireQueue(name) }
            return (try await store.stats(), reports)
        }
        if let name { stats.queues.removeAll { $0.name != name } }
        let forwardings = reports.map { ForwardingFigures($0, stats) }
        try await OutputStream.standardOutput.write(
            self.json ? Self.json(stats, forwardings).line : Array(Self.text(stats, forwardings).utf8)
        )
    }

    static func json(_ stats: StoreStats, _ forwardings: [ForwardingFigures] = []) -> JSONValue {
        .object([
            .init("queues", .array(stats.queues.map(Self.json))),
            .init("forwarding", .array(forwardings.map(\.json))),
            .init("logBytes", .number(stats.logBytes)),
            .init("lmdbBytes", .number(stats.lmdbBytes)),
            .init("checkpointLag", .number(stats.checkpointLag)),
            .init("setAside", .number(stats.setAside)),
            .init("owner", .integer(Int64(stats.owner))),
        ])
    }

    private static func json(_ queue: QueueStats) -> JSONValue {
        .object([
            .init("name", .string(queue.name.rawValue)),
            .init("ready", .number(queue.ready)),
            .init("delayed", .number(queue.delayed)),
            .init("leased", .number(queue.leased)),
            .init("dead", .number(queue.dead)),
            .init("bytes", .number(queue.bytes)),
            .init("oldestAgeMs", queue.oldestAge.map { .integer($0.wholeMillisecondsRoundedUp) } ?? .null),
            .init("paused", .bool(queue.isPaused)),
        ])
    }

    static func text(_ stats: StoreStats, _ forwardings: [ForwardingFigures] = []) -> String {
        var table = TextTable([
            ("QUEUE", .left), ("READY", .right), ("DELAYED", .right), ("LEASED", .right), ("DEAD", .right),
            ("BODIES", .right), ("OLDEST", .right), ("", .left),
        ])
        for queue in stats.queues {
            table.add([
                queue.name.rawValue, "\(queue.ready)", "\(queue.delayed)", "\(queue.leased)", "\(queue.dead)",
                sizeText(queue.bytes),
                queue.oldestAge.map { ageText(milliseconds: $0.wholeMillisecondsRoundedUp) } ?? "-",
                queue.isPaused ? "paused" : "",
            ])
        }
        let damage = stats.setAside == 0 ? "" : "\(counted(stats.setAside, "damaged value")) set aside\n"
        let forwarding = forwardings.isEmpty ? "" : "\n" + ForwardingFigures.table(forwardings)
        return table.text + damage + forwarding + """

            log \(sizeText(stats.logBytes)), of which \(sizeText(stats.checkpointLag)) wait for the next checkpoint; \
            LMDB \(sizeText(stats.lmdbBytes)); owner is process \(stats.owner)

            """
    }
}

/// How the forwarding from a queue is going, with what the store says of the queue.
struct ForwardingFigures {
    let report: ForwardingReport
    /// How long the queue takes to empty; `nil` where that can't be said.
    let timeToEmpty: Duration?
    private let now: Timestamp

    init(_ report: ForwardingReport, _ stats: StoreStats, now: Timestamp = .now) {
        let queue = stats.queues.first { $0.name == report.queue }
        let waiting = queue.map { $0.ready + $0.leased } ?? 0
        let rate = report.isAlive ? report.figures.rate : 0
        self.report = report
        self.timeToEmpty = FailoverStats.timeToEmpty(waiting, rate: rate)
        self.now = now
    }

    /// How long it is until the destination is tried again.
    private var triedInMs: Int64? {
        self.report.figures.triedAt.map { max($0.millisecondsSince1970 - self.now.millisecondsSince1970, 0) }
    }

    var json: JSONValue {
        let (figures, counters, isAlive) = (self.report.figures, self.report.figures.counters, self.report.isAlive)
        func live(_ value: JSONValue?) -> JSONValue { isAlive ? value ?? .null : .null }
        return .object([
            .init("queue", .string(self.report.queue.rawValue)),
            .init("destination", .string(self.report.destination.rawValue)),
            .init("process", .number(self.report.process)),
            .init("alive", .bool(isAlive)),
            .init("breaker", live(.string(figures.breaker.rawValue))),
            .init("triedInMs", live(self.triedInMs.map { .integer($0) })),
            .init("rate", live(.number(figures.rate))),
            .init("byteRate", live(.number(figures.byteRate))),
            .init("rateLimit", live(figures.rateLimit.map { .decimal($0, places: 1) })),
            .init("emptyInMs", live(self.timeToEmpty.map { .integer($0.wholeMillisecondsRoundedUp) })),
            .init("forwarded", .number(counters.forwarded)),
            .init("ambiguous", .number(counters.ambiguous)),
            .init("mayBeDuplicate", .number(counters.mayBeDuplicate)),
            .init("setAside", .number(counters.setAside)),
            .init("throttled", .number(counters.throttled)),
            .init("opened", .number(counters.opened)),
        ])
    }

    private var breakerText: String {
        switch self.report.figures.breaker {
        case _ where !self.report.isAlive: "nobody forwards"
        case .closed: "closed"
        case .halfOpen: "trying"
        case .open: "open, tried in \(ageText(milliseconds: self.triedInMs ?? 0))"
        }
    }

    static func table(_ all: [Self]) -> String {
        var table = TextTable([
            ("QUEUE", .left), ("TO", .left), ("BREAKER", .left), ("OUT/s", .right), ("BYTES/s", .right),
            ("AMBIGUOUS", .right), ("SET ASIDE", .right), ("EMPTY IN", .right), ("PROCESS", .right),
        ])
        for one in all {
            let (report, figures) = (one.report, one.report.figures)
            table.add([
                report.queue.rawValue, report.destination.rawValue, one.breakerText,
                report.isAlive ? "\(figures.rate)" : "-", report.isAlive ? sizeText(figures.byteRate) : "-",
                "\(figures.counters.ambiguous)", "\(figures.counters.setAside)",
                one.timeToEmpty.map { $0 == .zero ? "-" : ageText(milliseconds: $0.wholeMillisecondsRoundedUp) } ?? "?",
                report.isAlive ? "\(report.process)" : "-",
            ])
        }
        return table.text
    }
}
