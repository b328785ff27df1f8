// What a client sends: a line, and with some commands a body behind it.

package import NIOCore

/// One command to nsqd.
package enum NSQCommand: Hashable, Sendable {
    case identify([UInt8])
    case auth([UInt8])
    case subscribe(topic: String, channel: String)
    case ready(Int)
    case finish(MessageKey)
    case requeue(MessageKey, milliseconds: Int64)
    case touch(MessageKey)
    case startClose
    case nop
    case publish(topic: String, [UInt8])
    case multiPublish(topic: String, [[UInt8]])
    case deferredPublish(topic: String, milliseconds: Int64, [UInt8])

    /// What a client says first on a connection.
    package static let magic = "  V2"

    package func write(into buffer: inout ByteBuffer) {
        switch self {
        case .identify(let json):
            buffer.writeStaticString("IDENTIFY\n")
            Self.write(json, into: &buffer)
        case .auth(let secret):
            buffer.writeStaticString("AUTH\n")
            Self.write(secret, into: &buffer)
        case .subscribe(let topic, let channel):
            buffer.writeString("SUB \(topic) \(channel)\n")
        case .ready(let count):
            buffer.writeString("RDY \(count)\n")
        case .finish(let key):
            buffer.writeStaticString("FIN ")
            buffer.writeMultipleIntegers(key.high, key.low, UInt8(ascii: "\n"))
        case .requeue(let key, let milliseconds):
            buffer.writeStaticString("REQ ")
            buffer.writeMultipleIntegers(key.high, key.low, UInt8(ascii: " "))
            buffer.writeString("\(milliseconds)\n")
        case .touch(let key):
            buffer.writeStaticString("TOUCH ")
            buffer.writeMultipleIntegers(key.high, key.low, UInt8(ascii: "\n"))
        case .startClose:
            buffer.writeStaticString("CLS\n")
        case .nop:
            buffer.writeStaticString("NOP\n")
        case .publish(let topic, let body):
            buffer.writeString("PUB \(topic)\n")
            Self.write(body, into: &buffer)
        case .multiPublish(let topic, let bodies):
            buffer.writeString("MPUB \(topic)\n")
            let total = bodies.reduce(4) { $0 + 4 + $1.count }
            buffer.reserveCapacity(minimumWritableBytes: total + 4)
            buffer.writeMultipleIntegers(Int32(truncatingIfNeeded: total), Int32(truncatingIfNeeded: bodies.count))
            for body in bodies { Self.write(body, into: &buffer) }
        case .deferredPublish(let topic, let milliseconds, let body):
            buffer.writeString("DPUB \(topic) \(milliseconds)\n")
            Self.write(body, into: &buffer)
        }
    }

    private static func write(_ body: [UInt8], into buffer: inout ByteBuffer) {
        buffer.writeInteger(Int32(truncatingIfNeeded: body.count))
        buffer.writeBytes(body)
    }
}
