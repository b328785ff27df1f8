// A message in a worker's hands, and how it leaves them.

/// A message handed to a worker under a lease.
public struct Delivery: Sendable {
    /// The message's identity, the same over all its deliveries.
    public var id: MessageID
    /// The queue it was taken from.
    public var queue: QueueName
    /// The payload.
    public var body: [UInt8]
    /// Named text that travels with it.
    public var headers: Headers
    /// Which delivery of the message this is, from 1; deliveries that ended in a crash count.
    public var attempt: Int
    /// When the message was published, by the publisher's wall clock.
    public var publishedAt: Timestamp
    /// What proves that this delivery holds the lease.
    public var receipt: Receipt

    /// Makes a delivery; collectors do this.
    public init(
        id: MessageID,
        queue: QueueName,
        body: [UInt8],
        headers: Headers,
        attempt: Int,
        publishedAt: Timestamp,
        receipt: Receipt
    ) {
        self.id = id
        self.queue = queue
        self.body = body
        self.headers = headers
        self.attempt = attempt
        self.publishedAt = publishedAt
        self.receipt = receipt
    }

    /// The body as text; bytes that are not UTF-8 are replaced by U+FFFD.
    public var text: String { String(decoding: self.body, as: UTF8.self) }
}

/// How a delivery ends.
public enum Disposition: Hashable, Sendable {
    /// The message is done and leaves the queue.
    case acknowledge
    /// The message is done and these are published, all or nothing. Needs ``CollectorCapabilities/atomicPublish``.
    case acknowledgeAndPublish([OutgoingMessage])
    /// The message comes again after the delay, with the reason kept in its history.
    case retry(after: Duration, reason: String)
    /// The message goes to the error queue, with the reason kept in its history.
    case deadLetter(reason: String)
    /// The message was not worked on: it returns to its old place at once, and the attempt is not counted
    /// where ``CollectorCapabilities/uncountedRelease`` says so.
    case release
}

/// A message and the queue that it goes to, in the same store as the delivery that it follows from.
public struct OutgoingMessage: Hashable, Sendable {
    /// The queue to publish to.
    public var queue: QueueName
    /// The message.
    public var message: Message

    /// Pairs a message with its queue.
    public init(_ message: Message, to queue: QueueName) {
        self.message = message
        self.queue = queue
    }
}

/// One delivery's end: its receipt and what becomes of it.
public struct Completion: Hashable, Sendable {
    /// The receipt of the delivery.
    public var receipt: Receipt
    /// How it ends.
    public var disposition: Disposition

    /// Pairs a receipt with a disposition.
    public init(_ receipt: Receipt, _ disposition: Disposition) {
        self.receipt = receipt
        self.disposition = disposition
    }
}
