// `stalk move` and `stalk delete`: single messages go elsewhere, or away.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

struct MoveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "move",
        abstract: "Move messages to another queue.",
        discussion: """
            They are ready at its end, their attempts count from zero, their history stays. Ready, delayed and dead \
            messages can be moved; the number is printed. When one of them is not there, none is moved.

              stalk move 0000000000007 --to by-hand
            """
    )

    @OptionGroup var storeOptions: StoreOptions
    @OptionGroup var options: ChangeOptions

    @Argument(help: "The messages, by the ids that 'put' and 'peek' print.")
    var ids: [String]

    @Option(help: ArgumentHelp("The queue that they go to; it is made when there is none.", valueName: "queue"))
    var to: String

    func run() async throws {
        let target = try localQueueName(self.to)
        let count = try await self.storeOptions.withStore { store in
            let messages = try await store.requireChangeable(self.ids)
            guard !self.options.dryRun else { return messages.count }
            for message in messages { try await store.move(message.id, to: target) }
            return messages.count
        }
        try await self.options.report(count, done: "moved", planned: "wouldMove")
    }
}

struct DeleteCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete",
        abstract: "Delete messages by their ids.",
        discussion: """
            They are never delivered again, and can't be had back. Ready, delayed and dead messages can be deleted; the \
            number is printed. When one of them is not there, none is deleted.

              stalk delete 0000000000007
              stalk delete --dry-run 0000000000007       only see whether it is there

            'stalk purge QUEUE' deletes all of a queue.
            """
    )

    @OptionGroup var storeOptions: StoreOptions
    @OptionGroup var options: ChangeOptions

    @Argument(help: "The messages, by the ids that 'put' and 'peek' print.")
    var ids: [String]

    func run() async throws {
        let count = try await self.storeOptions.withStore { store in
            let messages = try await store.requireChangeable(self.ids)
            guard !self.options.dryRun else { return messages.count }
            for message in messages { try await store.delete(message.id) }
            return messages.count
        }
        try await self.options.report(count, done: "deleted", planned: "wouldDelete")
    }
}
