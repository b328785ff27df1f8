// What a handler can throw to say more than that it failed.

/// Thrown by a handler whose message can never succeed: it goes to the error queue at once.
public struct DeadLetter: Error, Hashable, CustomStringConvertible {
    /// Why; kept in the message's history.
    public var reason: String

    /// Says why the message failed for good.
    public init(_ reason: String) {
        self.reason = reason
    }

    /// The reason.
    public var description: String { self.reason }
}

/// Thrown by a handler that knows when to try again: its delay stands in place of the policy's.
///
/// The attempts are the policy's: when they are used up, the message goes to the error queue.
public struct RetryLater: Error, Hashable, CustomStringConvertible {
    /// How long the message stays away.
    public var delay: Duration
    /// Why; kept in the message's history.
    public var reason: String

    /// Says when to try again and why.
    ///
    /// - Parameters:
    ///   - delay: How long the message stays away.
    ///   - reason: Why; kept in the message's history.
    public init(after delay: Duration, reason: String) {
        self.delay = delay
        self.reason = reason
    }

    /// The reason.
    public var description: String { self.reason }
}
