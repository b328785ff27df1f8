// What the log says: every change of a store, in the order in which it happened.

package import StalkCore

/// One change of a store.
///
/// Records are only ever applied to the state that they were made in, so they name what changed and not how it was
/// before. Layout: `docs/format.md`, "Records".
package enum LogRecord: Hashable, Sendable {
    /// The store was opened by a new owner.
    case session(SessionRecord)
    /// A queue got its number.
    case createQueue(number: UInt32, name: QueueName)
    /// A message came in.
    case publish(PublishRecord)
    /// Messages were handed to workers, each one attempt more.
    case take([UInt64])
    /// Messages are done.
    case acknowledge([UInt64])
    /// A message comes again.
    case retry(RetryRecord)
    /// Messages returned to their old place and the attempt is taken back.
    case release([UInt64])
    /// A message failed for good.
    case deadLetter(DeadLetterRecord)
    /// Dead messages go back to where they died.
    case redrive(at: Int64, messages: [UInt64])
    /// Messages become ready at the end of a queue; 0 is the one where each is, which keeps its attempts.
    case move(at: Int64, to: UInt32, messages: [UInt64])
    /// Messages of this frame belong to a call of another process.
    case call(CallRecord)
}

/// The store was opened by a new owner: leases before this are over, and the store's clock goes on from here.
package struct SessionRecord: Hashable, Sendable {
    /// Counts the owners; part of every lease number, so that none is ever used twice.
    package var epoch: UInt32
    /// The boot of the machine that `clockOffset` belongs to.
    package var bootID: String
    /// The store's clock less the time since boot, in nanoseconds.
    package var clockOffset: Int64

    package init(epoch: UInt32, bootID: String, clockOffset: Int64) {
        self.epoch = epoch
        self.bootID = bootID
        self.clockOffset = clockOffset
    }
}

/// A message came in.
package struct PublishRecord: Hashable, Sendable {
    /// The message's number, unique in the store and ascending.
    package var sequence: UInt64
    /// The queue's number.
    package var queue: UInt32
    /// When it was published, by the wall clock.
    package var publishedAt: Int64
    /// When it is ready, by the store's clock.
    package var dueAt: Int64
    /// Whether it was delayed.
    package var isScheduled: Bool
    /// Smaller leaves first.
    package var priority: UInt8
    package var headers: Headers
    /// Room for a group key, a deduplication key and an expiry: type (8 bits), length (16 bits), contents.
    package var extensions: [UInt8]
    package var body: [UInt8]

    package init(
        sequence: UInt64,
        queue: UInt32,
        publishedAt: Int64,
        dueAt: Int64,
        isScheduled: Bool,
        priority: UInt8 = 0,
        headers: Headers,
        extensions: [UInt8] = [],
        body: [UInt8]
    ) {
        self.sequence = sequence
        self.queue = queue
        self.publishedAt = publishedAt
        self.dueAt = dueAt
        self.isScheduled = isScheduled
        self.priority = priority
        self.headers = headers
        self.extensions = extensions
        self.body = body
    }
}

/// Which call of another process published which messages, so that a call which is repeated publishes nothing twice.
///
/// It stands in the frame of its messages. A call that did not fit into one frame has a record in each; so has each row of
/// messages between which others were refused.
package struct CallRecord: Hashable, Sendable {
    /// The number of the process that called, chosen at random.
    package var client: UInt64
    /// The number of the call; each client counts its own, upwards.
    package var call: UInt64
    /// The client has the answers of all its calls below this one.
    package var answeredBelow: UInt64
    /// The place of the first message in the call.
    package var position: UInt32
    /// The number of the first message; the others follow without gaps.
    package var first: UInt64
    package var count: UInt32

    package init(client: UInt64, call: UInt64, answeredBelow: UInt64, position: UInt32, first: UInt64, count: UInt32) {
        self.client = client
        self.call = call
        self.answeredBelow = answeredBelow
        self.position = position
        self.first = first
        self.count = count
    }
}

/// A message comes again.
package struct RetryRecord: Hashable, Sendable {
    package var sequence: UInt64
    /// When it failed, by the wall clock.
    package var failedAt: Int64
    /// When it is ready again, by the store's clock.
    package var dueAt: Int64
    package var reason: String

    package init(sequence: UInt64, failedAt: Int64, dueAt: Int64, reason: String) {
        self.sequence = sequence
        self.failedAt = failedAt
        self.dueAt = dueAt
        self.reason = reason
    }
}

/// A message failed for good.
package struct DeadLetterRecord: Hashable, Sendable {
    package var sequence: UInt64
    /// When it failed, by the wall clock.
    package var failedAt: Int64
    /// Where it stands in the error queue, by the store's clock.
    package var dueAt: Int64
    /// The named error queue that it moves to, ready; 0 keeps it in its own queue, dead.
    package var target: UInt32
    package var reason: String

    package init(sequence: UInt64, failedAt: Int64, dueAt: Int64, target: UInt32, reason: String) {
        self.sequence = sequence
        self.failedAt = failedAt
        self.dueAt = dueAt
        self.target = target
        self.reason = reason
    }
}
