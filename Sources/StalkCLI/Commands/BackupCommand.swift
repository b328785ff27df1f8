// `stalk backup`: a copy of the store that opens anywhere.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

struct BackupCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup",
        abstract: "Copy the store, verified, to a new directory.",
        discussion: """
            The copy holds everything that was published and finished before, and can be opened like any store, also on \
            another machine. It gets its name only once it was verified and is on the disk. It is a store of its own: \
            receipts of the original don't work on it. Other processes may have the store open and go on publishing: the \
            one that owns it makes the copy.

              stalk backup /backups/$(date +%F)
              stalk stats --store /backups/2026-11-23
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Argument(help: "The directory for the copy: a new one, or an empty one.")
    var directory: String

    @Flag(help: "Report as JSON.")
    var json = false

    func run() async throws {
        let report = try await self.storeOptions.withStore { store in try await store.backup(to: self.directory) }
        let text: [UInt8] =
            if self.json {
                JSONValue.object([
                    .init("path", .string(report.path)),
                    .init("messages", .number(report.messages)),
                    .init("bytes", .number(report.bytes)),
                ]).line
            } else {
                Array("\(report.path): \(counted(report.messages, "message")), \(sizeText(report.bytes))\n".utf8)
            }
        try await OutputStream.standardOutput.write(text)
    }
}
