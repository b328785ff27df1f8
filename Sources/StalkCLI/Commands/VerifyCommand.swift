// `stalk verify`: is every byte of the store what was written?

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

struct VerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Check every checksum of the store; changes nothing.",
        discussion: """
            Reads the whole log and all of LMDB. Damage is listed with its file and offset, and the exit code is 6. \
            A half-written end of the log, as a crash leaves it, is no damage. No other process may have the store open.

              stalk verify && echo all is well
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Flag(help: "Report as JSON.")
    var json = false

    func run() async throws {
        let progress = SharedProgress("checked")
        defer { progress.end() }
        let report = try await self.storeOptions.withPath { path in
            try await LocalStore.verify(at: path) { done, all in
                progress.update("\(done) of \(counted(all, "message"))", fraction: Double(done) / Double(max(all, 1)))
            }
        }
        // The bar goes before the report comes, since both may be on one terminal.
        progress.end()
        try await OutputStream.standardOutput.write(
            self.json ? Self.json(report).line : Array(Self.text(report).utf8)
        )
        if !report.problems.isEmpty { throw SilentExit(status: .damaged) }
    }

    static func json(_ report: VerifyReport) -> JSONValue {
        .object([
            .init("intact", .bool(report.problems.isEmpty)),
            .init("frames", .number(report.frames)),
            .init("records", .number(report.records)),
            .init("messages", .number(report.messages)),
            .init("tornBytes", .number(report.tornBytes)),
            .init("problems", .array(report.problems.map(Self.json))),
        ])
    }

    private static func json(_ problem: VerifyReport.Problem) -> JSONValue {
        .object([
            .init("file", .string(problem.file)),
            .init("offset", problem.offset.map { .number($0) } ?? .null),
            .init("what", .string(problem.what)),
        ])
    }

    static func text(_ report: VerifyReport) -> String {
        let checked =
            "\(counted(report.frames, "log frame")) with \(counted(report.records, "record")) and "
            + "\(counted(report.messages, "message")) in LMDB are whole"
        let torn =
            report.tornBytes == 0
            ? "" : "\(sizeText(report.tornBytes)) at the end of the log were left half written by a crash: harmless\n"
        if report.problems.isEmpty { return "intact: \(checked)\n" + torn }
        let problems = report.problems.map { problem in
            "  \(problem.file)\(problem.offset.map { ", byte \($0)" } ?? ""): \(problem.what)\n"
        }
        return "DAMAGED: \(counted(report.problems.count, "problem")), nothing was changed\n"
            + problems.joined() + "\(checked)\n" + torn
    }
}
