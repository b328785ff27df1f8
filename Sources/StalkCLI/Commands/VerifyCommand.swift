// `stalk verify`: is every byte of the store what was written?

internal import ArgumentParser
internal import StalkCore

struct VerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Check every checksum of the store; changes nothing.",
        discussion: """
            Reads the whole log and all of LMDB, in a process of its own, since LMDB can crash on damaged files. Damage \
            is listed with its file and offset, and the exit code is 6; 'stalk repair' says what can be done. A \
            half-written end of the log, as a crash leaves it, is no damage. No other process may have the store open.

              stalk verify && echo all is well
              stalk verify --json | jq '.problems[].what'
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Flag(help: "Report as JSON.")
    var json = false

    func run() async throws {
        let path = try self.storeOptions.path()
        let progress = SharedProgress("checked")
        defer { progress.end() }
        let findings = try await VerifyReader(path: path).run { done, all in
            progress.update("\(done) of \(counted(all, "message"))", fraction: Double(done) / Double(max(all, 1)))
        }
        // The bar goes before the report comes, since both may be on one terminal.
        progress.end()
        try await OutputStream.standardOutput.write(
            self.json ? findings.json.line : Array(findings.text.utf8)
        )
        if !findings.problems.isEmpty { throw SilentExit(status: .damaged) }
    }
}
