// `stalk compact`: gives the space of finished messages back.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

struct CompactCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compact",
        abstract: "Make the store's index as small as what is in it.",
        discussion: """
            LMDB uses the space of finished messages again, but never gives it back. This copies what is in use into a \
            new file, which takes the place of the old one; there must be room for it. A process that has the store open \
            does it with LocalStore.compact, while it goes on publishing; this command opens the store itself, and ends \
            with 4 when it is open elsewhere, with 5 when there is no room.

              stalk compact
              stalk compact --json | jq '.bytesBefore - .bytesAfter'
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Flag(help: "Report as JSON.")
    var json = false

    func run() async throws {
        let report = try await self.storeOptions.withStore { store in try await store.compact() }
        let text: [UInt8] =
            if self.json {
                JSONValue.object([
                    .init("bytesBefore", .number(report.bytesBefore)),
                    .init("bytesAfter", .number(report.bytesAfter)),
                ]).line
            } else {
                Array("\(sizeText(report.bytesBefore)) before, \(sizeText(report.bytesAfter)) now\n".utf8)
            }
        try await OutputStream.standardOutput.write(text)
    }
}
