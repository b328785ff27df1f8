// Every exit code, and which error leads to which.

internal import ArgumentParser
internal import StalkCore

/// What the process ends with; scripts rely on the numbers.
enum ExitStatus: Int32 {
    case success = 0
    case otherFailure = 1
    case wrongUsage = 2
    case notFound = 3
    case storeBusy = 4
    case full = 5
    case damaged = 6

    /// The exit status of an error.
    init(_ code: StalkError.Code) {
        self =
            switch code {
            case .invalidArgument, .invalidQueueName, .bodyTooLarge, .delayOutOfRange, .unsupported, .foreignReceipt,
                .pathTooLong:
                .wrongUsage
            case .noSuchStore, .noSuchQueue, .noSuchMessage: .notFound
            case .storeBusy: .storeBusy
            case .storageFull: .full
            case .storeDamaged, .corruptValue: .damaged
            default: .otherFailure
            }
    }
}

/// Standard output was closed by whoever read it, as `head` does when it has seen enough.
struct OutputClosed: Error {}

/// The end of a command whose report is out already.
struct SilentExit: Error {
    var status: ExitStatus
}

/// What the tool says about an error, and the exit status that goes with it.
struct CommandFailure {
    var status: ExitStatus
    /// The text with its final newline, for standard output on success (help was asked for) and standard error otherwise.
    var text: String?

    init(_ error: any Error) {
        (self.status, self.text) =
            switch error {
            case let error as StalkError:
                (ExitStatus(error.code), "stalk: \(error.message)\n" + Self.causes(of: error))
            case let exit as SilentExit: (exit.status, nil)
            case is OutputClosed: (.success, nil)
            case is CancellationError: (.otherFailure, "stalk: Interrupted.\n")
            default: Self.explain(parserError: error)
            }
    }

    private static func explain(parserError error: any Error) -> (ExitStatus, String) {
        let text = StalkCommand.fullMessage(for: error) + "\n"
        return switch StalkCommand.exitCode(for: error) {
        case .success: (.success, text)
        case .validationFailure: (.wrongUsage, "stalk: \(text.trimmingPrefix("Error: "))")
        default: (.otherFailure, "stalk: \(error)\n")
        }
    }

    private static func causes(of error: StalkError) -> String {
        switch error.cause {
        case nil: ""
        case let cause as StalkError: "  because: \(cause.message)\n" + Self.causes(of: cause)
        case let cause as any CustomStringConvertible: "  because: \(cause.description)\n"
        default: ""
        }
    }
}
