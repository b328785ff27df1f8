// `stalk kick`: what waits for its time is ready at once.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

struct KickCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kick",
        abstract: "Make delayed messages ready at once.",
        discussion: """
            Of a queue, its delayed messages become ready, first in line first; attempts and history stay. By its id, a \
            message that failed for good is sent back as well, as 'stalk redrive' does. The number of messages is \
            printed; one that is ready already does not count.

              stalk kick mail --dry-run                  only count
              stalk kick mail --max 10                   try a few first
              stalk kick --id 0000000000007 --id 0000000000009
            """
    )

    @OptionGroup var storeOptions: StoreOptions
    @OptionGroup var options: ChangeOptions

    @Argument(help: "The queue whose delayed messages are kicked.")
    var queue: String?

    @Option(
        name: .customLong("id"),
        help: ArgumentHelp("A message, by the id that 'put' and 'peek' print; may be repeated.", valueName: "id")
    )
    var ids: [String] = []

    @Option(
        help: ArgumentHelp("The most messages of the queue; all without it.", valueName: "count"),
        transform: { try parseCount($0, atLeast: 1) }
    )
    var max: Int?

    func validate() throws {
        guard (self.queue == nil) != self.ids.isEmpty else {
            throw ValidationError("Name a queue, or messages with --id.")
        }
        if self.queue == nil, self.max != nil { throw ValidationError("--max is for a queue: every --id counts.") }
    }

    func run() async throws {
        let name = try self.queue.map { text in try localQueueName(text) }
        let count = try await self.storeOptions.withStore { store in
            guard let name else { return try await self.kickEach(in: store) }
            try await store.requireQueue(name)
            return try await self.kick(name, in: store)
        }
        try await self.options.report(count, done: "kicked", planned: "wouldKick")
    }

    private func kickEach(in store: LocalStore) async throws -> Int {
        var count = 0
        for message in try await store.requireChangeable(self.ids) {
            let isKicked =
                self.options.dryRun
                ? message.state != .ready || message.diedIn != nil : try await store.kick(message.id)
            if isKicked { count += 1 }
        }
        return count
    }

    private func kick(_ name: QueueName, in store: LocalStore) async throws -> Int {
        if self.options.dryRun {
            let delayed = try await store.stats().queues.first { $0.name == name }?.delayed ?? 0
            return min(delayed, self.max ?? .max)
        }
        let progress = SharedProgress("kicked")
        defer { progress.end() }
        return try await store.kick(name, max: self.max) { progress.update(counted($0, "message"), fraction: nil) }
    }
}
