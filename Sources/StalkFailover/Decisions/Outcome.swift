// What became of a delivery, in a form that can wait for the remote.

internal import StalkCore

/// What became of a delivery.
enum Outcome: Hashable, Sendable {
    case acknowledge
    case deadLetter(reason: String)
    /// To be worked on again, and not before this moment.
    case retry(due: Timestamp, reason: String)

    private static let kind = "Stalk-Outcome"
    private static let reason = "Stalk-Reason"
    private static let due = "Stalk-Retry-At"

    /// What of a disposition can be told to the remote later, about a message that has come again; `nil` for the rest.
    init?(_ disposition: Disposition, at wall: Timestamp) {
        switch disposition {
        case .acknowledge:
            self = .acknowledge
        case .deadLetter(let reason):
            self = .deadLetter(reason: reason)
        case .retry(let delay, let reason):
            let due = wall.millisecondsSince1970 + max(delay, .zero).wholeMillisecondsRoundedUp
            self = .retry(due: Timestamp(millisecondsSince1970: due), reason: reason)
        case .release, .acknowledgeAndPublish:
            return nil
        }
    }

    /// Whether the message has no way back to a handler.
    var isFinal: Bool {
        if case .retry = self { false } else { true }
    }

    /// What to tell the remote now.
    func disposition(at wall: Timestamp) -> Disposition {
        switch self {
        case .acknowledge: .acknowledge
        case .deadLetter(let reason): .deadLetter(reason: reason)
        case .retry(let due, let reason): .retry(after: due.remaining(at: wall), reason: reason)
        }
    }

    /// Whether a message that comes again is to be kept from handlers.
    func holds(at wall: Timestamp) -> Bool {
        if case .retry(let due, _) = self { due > wall } else { true }
    }

    // MARK: As headers

    init(_ headers: Headers) {
        let reason = headers[Self.reason] ?? ""
        switch headers[Self.kind] {
        case "dead-letter":
            self = .deadLetter(reason: reason)
        case "retry":
            let due = headers[Self.due].flatMap { Int64($0) } ?? 0
            self = .retry(due: Timestamp(millisecondsSince1970: due), reason: reason)
        default:
            self = .acknowledge
        }
    }

    func headers(_ id: String) -> Headers {
        var headers: Headers = [FailoverHeader.id: id]
        switch self {
        case .acknowledge:
            headers[Self.kind] = "acknowledge"
        case .deadLetter(let reason):
            headers[Self.kind] = "dead-letter"
            // Bounded, since headers are.
            headers[Self.reason] = String(reason.prefix(8000))
        case .retry(let due, let reason):
            headers[Self.kind] = "retry"
            headers[Self.due] = String(due.millisecondsSince1970)
            headers[Self.reason] = String(reason.prefix(8000))
        }
        return headers
    }
}

extension Timestamp {
    static var epoch: Timestamp { Timestamp(millisecondsSince1970: 0) }

    /// How long it is until then; zero when it is over.
    func remaining(at wall: Timestamp) -> Duration {
        .milliseconds(max(self.millisecondsSince1970 - wall.millisecondsSince1970, 0))
    }
}
