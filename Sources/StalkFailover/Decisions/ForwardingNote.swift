// What outcomes say together, and what an observer is told of it.

internal import StalkCore

/// What the outcomes of one batch say together.
struct BatchVerdict {
    var accepted = 0
    var acceptedBytes = 0
    var message = 0
    var queue = 0
    var throttled = 0
    var ambiguous = 0
    var transport = 0
    /// The first failure.
    var error: StalkError?

    mutating func addAccepted(bytes: Int) {
        self.accepted += 1
        self.acceptedBytes += bytes
    }

    mutating func add(_ failure: StalkError) {
        self.error = self.error ?? failure
        switch FailureKind(failure) {
        case .message: self.message += 1
        case .queue: self.queue += 1
        case .throttled: self.throttled += 1
        case .ambiguous: self.ambiguous += 1
        case .transport: self.transport += 1
        }
    }
}

/// What an observer of a forwarder is told.
enum ForwardingNote: Sendable {
    /// The source is about to be looked into.
    case looking
    /// The last look found nothing, and nothing is held.
    case idle
    /// Messages left the source.
    case left([ForwardingStateMachine.Entry])
    /// The destination can't be used: messages wait from now on.
    case began(StalkError, isRefused: Bool)
    /// It could not be reached before, and now refuses.
    case refused(StalkError)
    /// Everything that waited has gone.
    case ended(forwarded: Int, after: Duration)
    /// A message was set aside.
    case setAside(String, reason: String)
}
