// `stalk show`: one message, whole.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

struct ShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Show one message with its history.",
        discussion: """
            Prints where the message stands, its headers, why earlier attempts failed, and its body. Control characters \
            in the body are escaped; --json gives every byte.

              stalk show $(stalk put mail letter.txt)
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Argument(help: "The message's id, as 'put' and 'peek' print it.")
    var id: String

    @Flag(help: "Report as JSON.")
    var json = false

    func run() async throws {
        let message = try await self.storeOptions.withStore { try await $0.message(MessageID(self.id)) }
        try await OutputStream.standardOutput.write(
            self.json
                ? StoredMessageFormat.json(message).line
                : Array(StoredMessageFormat.text(message, now: .now).utf8)
        )
    }
}
