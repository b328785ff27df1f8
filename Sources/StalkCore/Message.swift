// What a publisher hands to a collector.

/// A message to publish: bytes, headers, and when it may first be delivered.
public struct Message: Hashable, Sendable {
    /// The longest delay that any collector accepts: ten years of 365 days.
    public static var maxDelay: Duration { .seconds(10 * 365 * 86_400) }

    /// The payload: any bytes, also none.
    public var body: [UInt8]
    /// Named text that travels with the body.
    public var headers: Headers
    /// How long the message stays invisible after it is published; zero makes it ready at once.
    public var delay: Duration

    /// Makes a message from bytes.
    ///
    /// - Parameters:
    ///   - body: The payload.
    ///   - headers: Named text that travels with it.
    ///   - delay: How long it stays invisible, from zero to ten years.
    public init(_ body: [UInt8], headers: Headers = [:], delay: Duration = .zero) {
        self.body = body
        self.headers = headers
        self.delay = delay
    }

    /// Makes a message from text, as UTF-8.
    ///
    /// - Parameters:
    ///   - text: The payload.
    ///   - headers: Named text that travels with it.
    ///   - delay: How long it stays invisible, from zero to ten years.
    public init(_ text: String, headers: Headers = [:], delay: Duration = .zero) {
        self.init(Array(text.utf8), headers: headers, delay: delay)
    }

    /// Checks the message against what a collector can keep, before anything is written.
    ///
    /// - Parameter capabilities: The limits of the collector.
    /// - Throws: ``StalkError`` naming the limit and the value that breaks it.
    public func validate(for capabilities: CollectorCapabilities) throws(StalkError) {
        guard self.body.count <= capabilities.maxBodyBytes else {
            throw StalkError(
                .bodyTooLarge,
                "The body is \(self.body.count) bytes, the limit is \(capabilities.maxBodyBytes): "
                    + "nothing was written. Store large data elsewhere and publish a reference."
            )
        }
        if !self.headers.isEmpty { try self.headers.validate() }
        try Self.validate(delay: self.delay, largest: capabilities.maxDelay)
    }

    /// Checks a delay of a message or a retry.
    ///
    /// - Parameters:
    ///   - delay: The delay.
    ///   - largest: The longest one that the collector keeps.
    /// - Throws: ``StalkError`` with ``StalkError/Code/delayOutOfRange``.
    public static func validate(delay: Duration, largest: Duration) throws(StalkError) {
        if delay == .zero { return }
        guard delay > .zero else {
            throw StalkError(.delayOutOfRange, "A delay can't be negative: it is \(delay).")
        }
        guard delay <= largest else {
            throw StalkError(
                .delayOutOfRange,
                "The delay is \(delay.stalkText), the longest here is \(largest.stalkText): nothing was written."
            )
        }
    }
}
