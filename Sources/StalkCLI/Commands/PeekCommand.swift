// `stalk peek`: the first messages in line, without taking them.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

struct PeekCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "peek",
        abstract: "Look at the first messages of a queue without taking them.",
        discussion: """
              stalk peek mail
              stalk peek mail --state dead --max 100     what failed for good, and why
              stalk peek mail --json | jq -r .body

            'stalk show ID' prints one message whole.
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Argument(help: "The queue to look at.")
    var queue: String

    @Option(
        help: ArgumentHelp("Which messages: ready, delayed, leased or dead. Default: ready.", valueName: "state"),
        transform: Self.parseState
    )
    var state: MessageState = .ready

    @Option(
        help: ArgumentHelp("The most messages.", valueName: "count"),
        transform: { try parseCount($0, atLeast: 1) }
    )
    var max = 10

    @Flag(help: "Print each message whole, as one JSON object per line.")
    var json = false

    func run() async throws {
        let name = try localQueueName(self.queue)
        let messages = try await self.storeOptions.withStore { store in
            try await store.requireQueue(name)
            return try await store.peek(name, state: self.state, max: self.max)
        }
        if self.json {
            try await OutputStream.standardOutput.write(messages.flatMap { StoredMessageFormat.json($0).line })
        } else if messages.isEmpty {
            StandardError.note("The queue \(name) has no \(self.state.rawValue) messages.")
        } else {
            try await OutputStream.standardOutput.write(
                StoredMessageFormat.table(messages, now: .now, width: Terminal.width)
            )
        }
    }

    static func parseState(_ text: String) throws -> MessageState {
        guard let state = MessageState(rawValue: text) else {
            throw ValidationError("Give one of \(MessageState.allCases.map(\.rawValue).joined(separator: ", ")).")
        }
        return state
    }
}
