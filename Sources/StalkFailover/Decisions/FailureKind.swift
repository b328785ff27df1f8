// What a failed publish says: of one message, of the queue, of the way to it, or nothing certain.

internal import StalkCore

/// What may help against a publish that failed.
enum FailureKind: Hashable, Sendable {
    /// This message is refused, whenever it is sent; others may pass.
    case message
    /// The queue takes nothing until somebody mends it: it is gone, or access is denied.
    case queue
    /// The remote works and asks for less.
    case throttled
    /// The message may have arrived: the answer was lost.
    case ambiguous
    /// The remote can't be reached; nothing arrived.
    case transport

    /// Reads an error; what is not of Stalk says nothing certain.
    init(_ error: any Error) {
        guard let error = error as? StalkError else {
            self = .ambiguous
            return
        }
        self =
            switch error.code {
            case .bodyTooLarge, .delayOutOfRange, .invalidArgument, .unsupported: .message
            case .noSuchQueue, .permissionDenied, .invalidQueueName: .queue
            case .throttled: .throttled
            case .interrupted: .ambiguous
            default: .transport
            }
    }
}

extension StalkError {
    /// Whether trying again later can help.
    var isWorthWaiting: Bool {
        switch self.code {
        case .unavailable, .throttled, .storageFull, .storeBusy, .corruptValue, .interrupted: true
        default: false
        }
    }
}
