// `stalk redrive`: a second chance for what failed for good.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

struct RedriveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "redrive",
        abstract: "Send dead messages back to the queue where they died.",
        discussion: """
            They are ready at once, their attempts count from zero, their history stays. Of a named error queue, the \
            messages go back to where they came from. The number of messages is printed.

              stalk redrive mail --dry-run               only count
              stalk redrive mail --max 10                try a few first
              stalk redrive mail
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Argument(help: "The queue, or the error queue, that holds the dead messages.")
    var queue: String

    @Option(
        help: ArgumentHelp("The most messages to send back; all without it.", valueName: "count"),
        transform: { try parseCount($0, atLeast: 1) }
    )
    var max: Int?

    @Flag(help: "Change nothing, only print how many would go back.")
    var dryRun = false

    @Flag(help: "Report as JSON.")
    var json = false

    func run() async throws {
        let name = try localQueueName(self.queue)
        let count = try await self.storeOptions.withStore { store in
            try await store.requireQueue(name)
            return self.dryRun ? try await self.count(name, in: store) : try await self.redrive(name, in: store)
        }
        let report: [UInt8] =
            if self.json {
                JSONValue.object([.init(self.dryRun ? "wouldRedrive" : "redriven", .number(count))]).line
            } else {
                Array("\(count)\n".utf8)
            }
        try await OutputStream.standardOutput.write(report)
    }

    private func count(_ name: QueueName, in store: LocalStore) async throws -> Int {
        min(try await store.countRedrivable(name), self.max ?? .max)
    }

    private func redrive(_ name: QueueName, in store: LocalStore) async throws -> Int {
        let progress = SharedProgress("sent back")
        defer { progress.end() }
        return try await store.redrive(name, max: self.max) { progress.update(counted($0, "message"), fraction: nil) }
    }
}
