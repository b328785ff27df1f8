// `stalk torture-check`: is a store what its journal says?

internal import ArgumentParser
internal import Foundation
internal import StalkCore

struct TortureCheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "torture-check",
        abstract: "Compare a store with the journal of torture-load.",
        discussion: """
            The journal holds what one or more lives of 'stalk torture-load' printed, one behind the other. The store is \
            opened twice and left as a process that dies would leave it. Exit code 0: it holds what it must. Exit code 1: \
            it does not; what is wrong stands on standard output.
            """,
        shouldDisplay: false
    )

    @OptionGroup var storeOptions: StoreOptions

    @Option(help: "The file with what the loaders printed.")
    var journal: String

    @Option(help: "Write a shorter journal here, for the lives to come; only when the store is good.")
    var settled: String?

    @Flag(help: "Close the store at the end, which moves all of the log into LMDB.")
    var close = false

    @Flag(help: "Report as JSON.")
    var json = false

    func run() async throws {
        guard let data = FileManager.default.contents(atPath: self.journal) else {
            throw StalkError(.invalidArgument, "Can't read the journal \(quoted(self.journal)).")
        }
        var oracle = TortureOracle()
        let (events, unreadable) = TortureEvent.journal(String(decoding: data, as: UTF8.self))
        for event in events { oracle.note(event) }
        var (verdict, content) = await TortureContent.judge(
            at: try self.storeOptions.path(),
            by: oracle,
            closes: self.close
        )
        for line in unreadable { verdict.add(.journal, "can't read \(quoted(line))") }
        if verdict.isGood, let content, let settled = self.settled {
            let text = content.settled.map { "\($0)\n" }.joined()
            try Data(text.utf8).write(to: URL(fileURLWithPath: settled), options: .atomic)
        }
        try await OutputStream.standardOutput.write(self.json ? verdict.json.line : Array(verdict.text.utf8))
        if !verdict.isGood { throw SilentExit(status: .otherFailure) }
    }
}
