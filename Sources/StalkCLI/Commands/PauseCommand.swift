// `stalk pause` and `stalk resume`: whether anybody may take from a queue.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

struct PauseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pause",
        abstract: "Let nothing be taken from a queue, until 'stalk resume'.",
        discussion: """
            Publishing goes on. The pause lasts, whatever ends or starts meanwhile.

              stalk pause mail
              stalk resume mail

            While a worker has the store open, pause the queue on its page: see 'stalk work --http'.
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Argument(help: "The queue.")
    var queue: String

    func run() async throws {
        let name = try localQueueName(self.queue)
        try await self.storeOptions.withStore { store in
            try await store.requireQueue(name)
            try await store.pause(name)
        }
    }
}

struct ResumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume",
        abstract: "Let messages be taken from a paused queue again."
    )

    @OptionGroup var storeOptions: StoreOptions

    @Argument(help: "The queue.")
    var queue: String

    func run() async throws {
        let name = try localQueueName(self.queue)
        try await self.storeOptions.withStore { store in
            try await store.requireQueue(name)
            try await store.resume(name)
        }
    }
}
