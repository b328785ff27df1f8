// A message as it goes onto the wire; what NSQ can't carry is refused here, on the caller's thread.

internal import StalkCore

/// The bytes of one message.
struct OutgoingBody: Sendable {
    var id: MessageID
    var bytes: [UInt8]
    var delayMillis: Int64

    /// Encodes a message.
    ///
    /// - Throws: ``StalkError`` saying what NSQ can't carry, and what can be done.
    init(_ message: Message, envelope: Bool, _ capabilities: CollectorCapabilities) throws(StalkError) {
        try message.validate(for: capabilities)
        let id = Envelope.makeID()
        self.id = MessageID(id)
        self.delayMillis = message.delay.wholeMillisecondsRoundedUp
        if envelope {
            self.bytes = Envelope(id: id, headers: message.headers, body: message.body).encoded()
            return
        }
        guard message.headers.isEmpty else {
            throw StalkError(
                .unsupported,
                "NSQ has no headers: publish without them, or turn the envelope on for all who use the topic."
            )
        }
        guard !message.body.isEmpty else {
            throw StalkError(
                .invalidArgument,
                "NSQ can't carry an empty message: give it a body, or turn the envelope on for all who use the topic."
            )
        }
        self.bytes = message.body
    }
}
