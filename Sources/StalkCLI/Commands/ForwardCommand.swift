// `stalk forward`: from any queue to any other one.

internal import ArgumentParser
internal import StalkAdmin
internal import StalkCore
internal import StalkFailover
internal import StalkLocal
internal import StalkNSQ
internal import StalkSQS

struct ForwardCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "forward",
        abstract: "Move messages from one queue to another.",
        discussion: """
            Each of the two is a queue in the store or a remote one:

              stalk --store spool forward orders sqs://orders --drain     send what 'put --spool' left
              stalk forward sqs://orders orders                          fetch, until it is interrupted
              stalk forward mail mail-2 --rate 100 --drain

            A message leaves the first queue only after the second one has it; killed at any time, the command goes on \
            where it was. While the second one is away, messages stay in the first. What it refuses for good is set \
            aside in the first one as dead. Order is kept.
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Argument(help: "The queue to take from: a name in the store, sqs://NAME, or \(QueueArgument.nsqForm).")
    var from: String

    @Argument(help: "The queue to publish to, likewise.")
    var to: String

    @Option(
        help: ArgumentHelp("The most messages per second.", valueName: "count"),
        transform: { try parseCount($0, atLeast: 1) }
    )
    var rate: Int?

    @OptionGroup var tokenOption: TokenOption

    @Option(
        help: ArgumentHelp("Show how it is doing over HTTP, as 'stalk serve' does.", valueName: "address"),
        transform: parseAdminAddress
    )
    var http: AdminAddress?

    @Flag(help: "End when nothing is ready, delayed or worked on in the first queue.")
    var drain = false

    @Flag(help: "Report the counts as JSON, on standard output.")
    var json = false

    /// Where messages come from.
    private struct Source {
        var collector: any Collector
        var drained: @Sendable () async throws -> Void
        /// How many messages there are, where that is known.
        var count: Int?
        /// Whether only this command takes from it, so that its attempts are sends.
        var isStore: Bool
    }

    func run() async throws {
        let (from, to) = (try QueueArgument(self.from), try QueueArgument(self.to))
        if case (.local(let from), .local(let to)) = (from, to), from == to {
            throw StalkError(.invalidArgument, "Both queues are \(from): name two.")
        }
        if case .nsq = from, self.drain {
            throw StalkError(.unsupported, "NSQ can't say whether a channel is empty: leave --drain out.")
        }
        let counters = try await cancelledBySignals { [self] in
            guard from.isLocal || to.isLocal else { return try await self.forward(from, to, nil) }
            return try await self.storeOptions.withStore(creating: !from.isLocal) { store in
                if case .local(let name) = from { try await store.requireQueue(name) }
                return try await self.forward(from, to, store)
            }
        }
        try await self.report(counters)
    }

    private func forward(
        _ from: QueueArgument,
        _ to: QueueArgument,
        _ store: LocalStore?
    ) async throws -> ForwardingCounters {
        let remote = try to.remote()
        do {
            let counters = try await self.withSource(from, store) { source in
                let destination: any Collector
                if let remote {
                    destination = remote.collector
                } else if case .local(let name) = to, let store {
                    destination = store.queue(name)
                } else {
                    throw StalkError(.unsupported, "Can't publish to \(self.to).")
                }
                return try await self.forward(source, destination, store, takesHeaders: remote?.takesHeaders ?? true)
            }
            await remote?.close()
            return counters
        } catch {
            await remote?.close()
            throw error
        }
    }

    private func withSource(
        _ place: QueueArgument,
        _ store: LocalStore?,
        _ body: (Source) async throws -> ForwardingCounters
    ) async throws -> ForwardingCounters {
        switch place {
        case .local(let name):
            guard let store else { throw StalkError(.noSuchStore, "There is no store.") }
            let queue = store.queue(name)
            let stats = try await store.stats().queues.first { $0.name == name }
            let count = stats.map { $0.ready + $0.delayed }
            return try await body(Source(collector: queue, drained: queue.drained, count: count, isStore: true))
        case .sqs(let name, let configuration):
            return try await withSQS(name, configuration) { queue in
                try await body(Source(collector: queue, drained: queue.drained, count: nil, isStore: false))
            }
        case .nsq(let configuration):
            return try await withNSQ(configuration) { queue in
                try await body(Source(collector: queue, drained: {}, count: nil, isStore: false))
            }
        }
    }

    private func forward(
        _ source: Source,
        _ destination: any Collector,
        _ store: LocalStore?,
        takesHeaders: Bool
    ) async throws -> ForwardingCounters {
        var options = ForwardingOptions()
        options.messagesPerSecond = self.rate.map(Double.init)
        options.sendsID = takesHeaders
        let forwarder = try Forwarder(
            from: source.collector,
            to: destination,
            options: options,
            attemptsAreSends: source.isStore,
            reportingIn: source.isStore ? store : nil
        ) { StandardError.note("\($0)") }
        let progress = SharedProgress("forwarded")
        defer { progress.end() }
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                while (try? await Task.sleep(for: .milliseconds(200))) != nil {
                    let done = forwarder.counters.forwarded
                    progress.update(
                        counted(done, "message"),
                        fraction: source.count.map { Double(done) / Double(Swift.max($0, 1)) }
                    )
                }
            }
            defer { group.cancelAll() }
            let http = try self.http.map { AdminOptions(address: $0, token: try self.tokenOption.token()) }
            let shown = AdminFailover(id: self.to, forwarder, from: source.isStore ? store : nil)
            try await withAdminServer(http, collectors: [], failovers: [shown], store: store) { [self] in
                try await self.run(forwarder, drained: source.drained)
            }
            return forwarder.counters
        }
    }

    private func run(_ forwarder: Forwarder, drained: @escaping @Sendable () async throws -> Void) async throws {
        guard self.drain else { return try await forwarder.run() }
        try await forwarder.run(until: drained)
        guard !Task.isCancelled else {
            let count = counted(forwarder.counters.forwarded, "message")
            throw StalkError(.interrupted, "Interrupted: \(count) forwarded, the rest stays where it was.")
        }
    }

    private func report(_ counters: ForwardingCounters) async throws {
        guard self.json else {
            let doubt = counters.ambiguous == 0 ? "" : ", \(counters.ambiguous) sent without an answer"
            let aside = counters.setAside == 0 ? "" : ", \(counters.setAside) set aside"
            StandardError.write("\(counted(counters.forwarded, "message")) forwarded\(aside)\(doubt)\n")
            return
        }
        let report = JSONValue.object([
            .init("forwarded", .number(counters.forwarded)),
            .init("setAside", .number(counters.setAside)),
            .init("ambiguous", .number(counters.ambiguous)),
            .init("mayBeDuplicate", .number(counters.mayBeDuplicate)),
        ])
        try await OutputStream.standardOutput.write(report.line)
    }
}

extension QueueArgument {
    /// Whether it names a queue in the store.
    var isLocal: Bool {
        if case .local = self { true } else { false }
    }
}
