// `stalk doctor`: is a place fit for a store?

internal import ArgumentParser
internal import StalkCore
internal import StalkLocal

struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Say whether a place is fit for a store.",
        discussion: """
            Looks at the file system, whether syncs really happen and how long they take, space, limits, rights, the \
            clock, the kernel and the libraries. Each line says ok, warning or BAD, and what to do. The exit code is 1 \
            when something is bad. The directory need not be there yet, and a store in it may be open.

              stalk doctor
              stalk doctor --store /mnt/disk/queues --json | jq '.findings[] | select(.grade != "ok")'
            """
    )

    @OptionGroup var storeOptions: StoreOptions

    @Flag(help: "Report as JSON.")
    var json = false

    func run() async throws {
        let diagnosis = try await LocalStore.diagnose(self.storeOptions.path())
        try await OutputStream.standardOutput.write(
            self.json ? Self.json(diagnosis).line : Array(Self.text(diagnosis).utf8)
        )
        if !diagnosis.isFit { throw SilentExit(status: .otherFailure) }
    }

    static func json(_ diagnosis: Diagnosis) -> JSONValue {
        .object([
            .init("path", .string(diagnosis.path)),
            .init("fit", .bool(diagnosis.isFit)),
            .init(
                "findings",
                .array(
                    diagnosis.findings.map { finding in
                        .object([
                            .init("subject", .string(finding.subject)),
                            .init("grade", .string(finding.grade.rawValue)),
                            .init("what", .string(finding.what)),
                            .init("advice", .string(finding.advice)),
                        ])
                    }
                )
            ),
        ])
    }

    static func text(_ diagnosis: Diagnosis) -> String {
        var text = "\(diagnosis.path)\n"
        for finding in diagnosis.findings {
            let grade =
                switch finding.grade {
                case .ok: "ok     "
                case .warning: "warning"
                case .bad: "BAD    "
                }
            text += "  \(grade)  \(finding.subject): \(finding.what)\n"
            if !finding.advice.isEmpty { text += "           \(finding.advice)\n" }
        }
        return text
    }
}
