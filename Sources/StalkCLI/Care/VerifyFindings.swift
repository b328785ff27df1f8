// What verify found, as one process tells it to the other and to people.

internal import StalkLocal

/// The findings of a verification.
struct VerifyFindings: Codable, Hashable, Sendable {
    struct Problem: Codable, Hashable, Sendable {
        var file: String
        var offset: Int?
        var what: String

        var json: JSONValue {
            .object([
                .init("file", .string(self.file)),
                .init("offset", self.offset.map { .number($0) } ?? .null),
                .init("what", .string(self.what)),
            ])
        }

        var line: String { "  \(self.file)\(self.offset.map { ", byte \($0)" } ?? ""): \(self.what)\n" }
    }

    var frames: Int
    var records: Int
    var messages: Int
    var tornBytes: Int
    var problems: [Problem]

    init(_ report: VerifyReport) {
        self.frames = report.frames
        self.records = report.records
        self.messages = report.messages
        self.tornBytes = report.tornBytes
        self.problems = report.problems.map(Problem.init)
    }

    var json: JSONValue {
        .object([
            .init("intact", .bool(self.problems.isEmpty)),
            .init("frames", .number(self.frames)),
            .init("records", .number(self.records)),
            .init("messages", .number(self.messages)),
            .init("tornBytes", .number(self.tornBytes)),
            .init("problems", .array(self.problems.map(\.json))),
        ])
    }

    var text: String {
        let checked =
            "\(counted(self.frames, "log frame")) with \(counted(self.records, "record")) and "
            + "\(counted(self.messages, "message")) in LMDB are whole"
        let torn =
            self.tornBytes == 0
            ? "" : "\(sizeText(self.tornBytes)) at the end of the log were left half written by a crash: harmless\n"
        if self.problems.isEmpty { return "intact: \(checked)\n" + torn }
        return "DAMAGED: \(counted(self.problems.count, "problem")), nothing was changed\n"
            + self.problems.map(\.line).joined() + "\(checked)\n" + torn
    }
}

extension VerifyFindings.Problem {
    init(_ problem: VerifyReport.Problem) {
        self.init(file: problem.file, offset: problem.offset, what: problem.what)
    }
}
