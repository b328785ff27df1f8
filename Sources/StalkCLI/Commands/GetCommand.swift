// `stalk get`: from a queue to standard output.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal
internal import StalkNSQ
internal import StalkSQS

struct GetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get",
        abstract: "Take messages and print them.",
        discussion: """
            Prints each body and a newline, or one JSON object per line:

              stalk get mail --ack                       take one message and be done with it
              stalk get mail --ack --max 0 > all.txt     take all that is ready
              stalk get mail --wait 1m --format json     wait for one, look at it, give it back

            With --ack a message leaves the queue only after its bytes were written to standard output. Without it \
            the messages return to the queue when the command ends.
            """
    )

    enum Format: String, ExpressibleByArgument, CaseIterable {
        case raw
        case json
    }

    @OptionGroup var storeOptions: StoreOptions

    @Argument(
        help: "The queue to take from; or sqs://NAME[?region=R&endpoint=URL&account=ID], or \(QueueArgument.nsqForm)."
    )
    var queue: String

    @Option(
        help: ArgumentHelp("The most messages; 0 takes until the queue is empty.", valueName: "count"),
        transform: { try parseCount($0, atLeast: 0) }
    )
    var max = 1

    @Option(
        help: ArgumentHelp(
            "How long to wait whenever nothing is ready, such as 500ms, 5s or 2m.",
            valueName: "duration"
        ),
        transform: parseDuration
    )
    var wait: Duration = .zero

    @Flag(help: "Acknowledge what was printed.")
    var ack = false

    @Option(help: "'raw' prints body and newline; 'json' one object per line.")
    var format: Format = .raw

    func run() async throws {
        let place = try QueueArgument(self.queue)
        try await cancelledBySignals { [self] in
            switch place {
            case .local(let name):
                try await self.storeOptions.withStore { store in
                    try await store.requireQueue(name)
                    try await self.take(from: store.queue(name), wait: self.wait)
                }
            case .sqs(let name, var configuration):
                // What is not asked for stays with others.
                configuration.prefetch = 0
                // A poll that does not wait asks just some of SQS's machines.
                try await withSQS(name, configuration) { queue in
                    try await self.take(from: queue, wait: Swift.max(self.wait, .seconds(1)))
                }
            case .nsq(let configuration):
                try await withNSQ(configuration) { queue in try await self.take(from: queue, wait: self.wait) }
            }
        }
    }

    private func take(from queue: any Collector, wait: Duration) async throws {
        try await queue.wake()
        var taking = Taking(
            queue: queue,
            limit: self.max == 0 ? nil : self.max,
            wait: wait,
            acknowledges: self.ack,
            format: self.format
        )
        try await taking.run()
    }
}
