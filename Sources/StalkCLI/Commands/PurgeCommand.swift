// `stalk purge`: a queue is emptied.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

struct PurgeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "purge",
        abstract: "Delete all messages of a queue.",
        discussion: """
            They are never delivered again, and can't be had back. The queue itself stays, with its settings. The number \
            of messages is printed.

              stalk purge mail --dry-run                 only count
              stalk purge mail --state dead              only what failed for good
              stalk purge mail
            """
    )

    @OptionGroup var storeOptions: StoreOptions
    @OptionGroup var options: ChangeOptions

    @Argument(help: "The queue.")
    var queue: String

    @Option(
        help: ArgumentHelp("Only messages in this state: ready, delayed or dead; may be repeated.", valueName: "state"),
        transform: Self.parseState
    )
    var state: [MessageState] = []

    @Option(
        help: ArgumentHelp("The most messages; all without it.", valueName: "count"),
        transform: { try parseCount($0, atLeast: 1) }
    )
    var max: Int?

    func run() async throws {
        let name = try localQueueName(self.queue)
        let states: Set<MessageState> = self.state.isEmpty ? [.ready, .delayed, .dead] : Set(self.state)
        let count = try await self.storeOptions.withStore { store in
            try await store.requireQueue(name)
            if self.options.dryRun { return try await self.count(name, states, in: store) }
            let progress = SharedProgress("deleted")
            defer { progress.end() }
            return try await store.purge(name, states: states, max: self.max) {
                progress.update(counted($0, "message"), fraction: nil)
            }
        }
        try await self.options.report(count, done: "purged", planned: "wouldPurge")
    }

    private func count(_ name: QueueName, _ states: Set<MessageState>, in store: LocalStore) async throws -> Int {
        guard let queue = try await store.stats().queues.first(where: { $0.name == name }) else { return 0 }
        let counts: [MessageState: Int] = [.ready: queue.ready, .delayed: queue.delayed, .dead: queue.dead]
        return min(states.reduce(0) { $0 + (counts[$1] ?? 0) }, self.max ?? .max)
    }

    static func parseState(_ text: String) throws -> MessageState {
        guard let state = MessageState(rawValue: text), state != .leased else {
            throw ValidationError("Give one of ready, delayed, dead.")
        }
        return state
    }
}
