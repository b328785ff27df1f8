// What nsqd sends: frames of a size, a type and data.

/// The 16 bytes by which nsqd names a message.
package struct MessageKey: Hashable, Sendable, CustomStringConvertible {
    package static let byteCount = 16

    /// The first eight bytes, big-endian.
    package var high: UInt64
    /// The last eight bytes, big-endian.
    package var low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// The 16 bytes as text; nsqd makes them of hexadecimal digits.
    package var description: String {
        withUnsafeBytes(of: (self.high.bigEndian, self.low.bigEndian)) { String(decoding: $0, as: UTF8.self) }
    }
}

/// A message as nsqd hands it out.
package struct NSQMessage: Hashable, Sendable {
    /// When nsqd took the message, in nanoseconds since 1970.
    package var timestamp: Int64
    /// Which delivery this is, from 1; after 65,535 comes 0.
    package var attempts: UInt16
    package var key: MessageKey
    package var body: [UInt8]

    package init(timestamp: Int64, attempts: UInt16, key: MessageKey, body: [UInt8]) {
        self.timestamp = timestamp
        self.attempts = attempts
        self.key = key
        self.body = body
    }
}

/// One frame from nsqd.
package enum NSQFrame: Hashable, Sendable {
    case response([UInt8])
    case error(String)
    case message(NSQMessage)

    package static let heartbeat = NSQFrame.response(Array("_heartbeat_".utf8))
    package static let ok = NSQFrame.response(Array("OK".utf8))
    package static let closeWait = NSQFrame.response(Array("CLOSE_WAIT".utf8))

    enum Kind: Int32 {
        case response = 0
        case error = 1
        case message = 2
    }
}

/// Bytes that break the protocol: the connection that they came over can't be used any more.
package struct ProtocolViolation: Error, Hashable, CustomStringConvertible {
    package var description: String

    package init(_ description: String) {
        self.description = description
    }
}
