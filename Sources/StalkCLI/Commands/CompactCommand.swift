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
            new file, which takes the place of the old one; there must be room for it, and the exit code is 5 when there \
            is none. Other processes may have the store open and go on: the one that owns it does the work.

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
