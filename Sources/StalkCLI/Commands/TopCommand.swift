// `stalk top`: the figures live, in the terminal.

internal import ArgumentParser
internal import FoundationEssentials
internal import StalkAdmin
internal import StalkCore
internal import StalkLocal

#if canImport(Glibc)
    internal import Glibc
#endif

struct TopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Show the queues live, in the terminal.",
        discussion: """
            Without --http it looks into the store, which other processes may use meanwhile. With --http it asks a worker \
            or a server that runs, also on another machine.

              stalk work mail --http 1323 -- ./send.sh &
              stalk top --http 1323

            Ctrl-C ends it.
            """
    )

    @OptionGroup var storeOptions: StoreOptions
    @OptionGroup var tokenOption: TokenOption

    @Option(
        help: ArgumentHelp("Whom to ask.", valueName: "address"),
        transform: parseAdminAddress
    )
    var http: AdminAddress?

    @Option(help: ArgumentHelp("How often to look.", valueName: "duration"), transform: parseDuration)
    var interval: Duration = .seconds(1)

    @Option(
        help: ArgumentHelp("End after so many looks; without it, never.", valueName: "count"),
        transform: { try parseCount($0, atLeast: 1) }
    )
    var count: Int?

    @Flag(help: "Print each look as one line of JSON.")
    var json = false

    func validate() throws {
        guard self.interval >= .milliseconds(100) else {
            throw ValidationError("Looking more often than every 100ms is no help: give a longer interval.")
        }
    }

    func run() async throws {
        if let address = self.http {
            let client = AdminClient(address: address, token: try self.tokenOption.token())
            try await self.show { try await client.overview() }
        } else {
            try await self.storeOptions.withStore { store in
                let figures = AdminAPI(store: store)
                try await self.show { try await figures.overview() }
            }
        }
    }

    private func show(_ look: @escaping @Sendable () async throws -> AdminOverview) async throws {
        do {
            try await cancelledBySignals { [self] in
                try await self.loop(look)
            }
        } catch is CancellationError {
            // Ctrl-C is how one leaves it.
        }
    }

    private func loop(_ look: @Sendable () async throws -> AdminOverview) async throws {
        let isLive = Terminal.isTerminal(STDOUT_FILENO) && !self.json
        var before: (overview: AdminOverview, at: ContinuousClock.Instant)?
        var looks = 0
        while true {
            let (overview, now) = (try await look(), ContinuousClock.now)
            let earlier = before.map { TopScreen.Earlier(overview: $0.overview, elapsed: now - $0.at) }
            if self.json {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
                try await OutputStream.standardOutput.write([UInt8](try encoder.encode(overview)) + Array("\n".utf8))
            } else {
                let text = TopScreen(overview, earlier: earlier).text
                // Home, the text with the rest of each line cleared, and everything below it cleared.
                let clearing = text.replacing("\n", with: "\u{1B}[K\n")
                try await OutputStream.standardOutput.write(isLive ? "\u{1B}[H\(clearing)\u{1B}[J" : text + "\n")
            }
            before = (overview, now)
            looks += 1
            if let count = self.count, looks >= count { return }
            try await Task.sleep(for: self.interval)
        }
    }
}

/// One look as text.
struct TopScreen {
    /// The look before, to tell rates from.
    struct Earlier {
        var overview: AdminOverview
        var elapsed: Duration
    }

    private let overview: AdminOverview
    private let earlier: Earlier?

    init(_ overview: AdminOverview, earlier: Earlier?) {
        self.overview = overview
        self.earlier = earlier
    }

    var text: String {
        var text = ""
        if let store = self.overview.store {
            text += "\(printable(store.path, keepingNewlines: false)): log \(sizeText(store.logBytes)), "
            text += "LMDB \(sizeText(store.lmdbBytes)), schedule lag \(ageText(milliseconds: store.scheduleLagMs))\n\n"
            text += self.queues
        }
        if !self.overview.collectors.isEmpty { text += "\n" + self.collectors }
        if !self.overview.failovers.isEmpty { text += "\n" + self.failovers }
        return text
    }

    private var queues: String {
        var table = TextTable([
            ("QUEUE", .left), ("READY", .right), ("DELAYED", .right), ("LEASED", .right), ("DEAD", .right),
            ("IN/s", .right), ("OUT/s", .right), ("OLDEST", .right), ("", .left),
        ])
        for queue in self.overview.queues {
            let rates = self.rates(of: queue)
            table.add([
                queue.name, "\(queue.ready)", "\(queue.delayed)", "\(queue.leased)", "\(queue.dead)",
                Self.rate(rates?.incoming), Self.rate(rates?.outgoing),
                queue.oldestAgeMs.map { ageText(milliseconds: $0) } ?? "-", queue.paused ? "paused" : "",
            ])
        }
        return table.text
    }

    private var collectors: String {
        var table = TextTable([
            ("COLLECTOR", .left), ("QUEUE", .left), ("BACKEND", .left), ("STATE", .left), ("IN FLIGHT", .right),
            ("OF", .right), ("DONE", .right), ("RETRIED", .right), ("FAILED", .right),
        ])
        for one in self.overview.collectors {
            let state =
                !one.backendReachable
                ? "away" : one.sleeping == true ? "asleep" : one.stopping == true ? "stopping" : "awake"
            func figure(_ value: Int?) -> String { value.map { "\($0)" } ?? "-" }
            table.add([
                printable(one.id, keepingNewlines: false), printable(one.queue, keepingNewlines: false),
                printable(one.backend, keepingNewlines: false), state, figure(one.inFlight), figure(one.concurrency),
                figure(one.processed), figure(one.retried), figure(one.failed),
            ])
        }
        return table.text
    }

    private var failovers: String {
        var table = TextTable([
            ("FAILOVER", .left), ("TO", .left), ("BREAKER", .left), ("WAITING", .right), ("SET ASIDE", .right),
            ("BYTES", .right), ("OLDEST", .right), ("OUT/s", .right), ("EMPTY IN", .right), ("AMBIGUOUS", .right),
        ])
        for one in self.overview.failovers {
            func figure(_ value: Int?) -> String { value.map { "\($0)" } ?? "-" }
            func age(_ value: Int64?) -> String { value.map { ageText(milliseconds: $0) } ?? "-" }
            table.add([
                printable(one.id, keepingNewlines: false), printable(one.destination, keepingNewlines: false),
                one.breaker == "halfOpen" ? "trying" : one.breaker, figure(one.waiting), figure(one.setAside),
                one.bytes.map { sizeText($0) } ?? "-", age(one.oldestAgeMs), figure(one.rate),
                one.waiting == 0 ? "-" : age(one.timeToEmptyMs), figure(one.ambiguous),
            ])
        }
        return table.text
    }

    /// What came in and what was finished in a second, as far as two looks tell.
    func rates(of queue: AdminOverview.Queue) -> (incoming: Double, outgoing: Double)? {
        guard let earlier = self.earlier, earlier.elapsed > .zero,
            let before = earlier.overview.queues.first(where: { $0.name == queue.name })
        else { return nil }
        let seconds = earlier.elapsed / .seconds(1)
        let outgoing = Double(queue.finished - before.finished) / seconds
        return (max(0, Double(queue.held - before.held) / seconds + outgoing), outgoing)
    }

    private static func rate(_ value: Double?) -> String {
        value.map { decimalText($0, places: 1) } ?? "-"
    }
}
