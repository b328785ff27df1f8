// `stalk repair`: says what is damaged and what can be done about it, and does it when told to.

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

struct RepairCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repair",
        abstract: "Say how a damaged store can be mended; mend it with --apply.",
        discussion: """
            Without --apply nothing at all is changed: the damage is listed, and what would be done about it; the exit \
            code is 6 when there is damage. With --apply what can't be read is moved to the directory 'damaged' in the \
            store, with a description, and everything else is put in order; the exit code is 0 when the store is intact \
            afterwards. Messages that are whole stay. A repair that was cut short can be run again. No other process may \
            have the store open. Copy the store first if there is room for that.

              stalk repair                   what is damaged, and what would be done
              stalk repair --apply
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Flag(help: "Mend the store.")
    var apply = false

    @Flag(help: "Report as JSON.")
    var json = false

    func run() async throws {
        let progress = SharedProgress("read")
        defer { progress.end() }
        let report = try await self.storeOptions.withPath { path in
            try await LocalStore.repair(at: path, apply: self.apply) { done, all in
                progress.update("\(done) of \(counted(all, "message"))", fraction: Double(done) / Double(max(all, 1)))
            }
        }
        progress.end()
        try await OutputStream.standardOutput.write(self.json ? Self.json(report).line : Array(Self.text(report).utf8))
        if !report.problems.isEmpty, !report.isApplied { throw SilentExit(status: .damaged) }
    }

    static func json(_ report: RepairReport) -> JSONValue {
        .object([
            .init("intact", .bool(report.problems.isEmpty || report.isApplied)),
            .init("applied", .bool(report.isApplied)),
            .init("problems", .array(report.problems.map { VerifyFindings.Problem($0).json })),
            .init("steps", .array(report.steps.map { .string($0) })),
            .init("messagesKept", .number(report.messagesKept)),
            .init("messagesMended", .number(report.messagesMended)),
            .init("messagesSetAside", .number(report.messagesSetAside)),
            .init("messagesLost", .number(report.messagesLost)),
            .init("framesSetAside", .number(report.framesSetAside)),
            .init("recordsPassedOver", .number(report.recordsPassedOver)),
            .init("files", .array(report.files.map { .string($0) })),
        ])
    }

    static func text(_ report: RepairReport) -> String {
        if report.problems.isEmpty { return "intact: there is nothing to repair\n" }
        var text = report.isApplied ? "REPAIRED: " : "DAMAGED: "
        text += "\(counted(report.problems.count, "problem"))\(report.isApplied ? "" : ", nothing was changed")\n"
        text += report.problems.map { VerifyFindings.Problem($0).line }.joined()
        text += report.isApplied ? "what was done:\n" : "what 'stalk repair --apply' would do:\n"
        text += report.steps.map { "  \($0)\n" }.joined()
        text += "messages in LMDB: \(report.messagesKept) kept, \(report.messagesSetAside) set aside"
        if report.isApplied { text += ", \(report.messagesMended) mended, \(report.messagesLost) lost" }
        text += "\nlog: \(counted(report.framesSetAside, "frame")) set aside"
        if report.isApplied { text += ", \(counted(report.recordsPassedOver, "record")) passed over" }
        text += "\n"
        if let description = report.files.last(where: { $0.hasSuffix(".txt") }) {
            text += "what was removed is described in \(description)\n"
        }
        return text
    }
}
