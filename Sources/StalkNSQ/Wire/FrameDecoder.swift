// Frames out of bytes, and bytes out of frames, however the network cuts them.

package import NIOCore

/// Takes the bytes of one connection as they come and gives frames.
///
/// A size is checked before anything is kept for it, so a peer that speaks another protocol costs no memory.
package struct FrameDecoder {
    /// Type, timestamp, attempts and key: what a message frame has before its body.
    static let messageHeaderBytes = 4 + 8 + 2 + MessageKey.byteCount

    private let maxFrameBytes: Int
    private var buffer = ByteBuffer()

    /// - Parameter maxMessageBytes: The largest body of a message.
    package init(maxMessageBytes: Int) {
        self.maxFrameBytes = Swift.max(maxMessageBytes, 1 << 16) + Self.messageHeaderBytes
    }

    /// Bytes that were not decoded yet.
    package var pendingBytes: Int { self.buffer.readableBytes }

    package mutating func append(_ bytes: ByteBuffer) {
        if self.buffer.readableBytes == 0 {
            self.buffer = bytes
        } else {
            self.buffer.discardReadBytes()
            self.buffer.writeImmutableBuffer(bytes)
        }
    }

    /// Takes out what was not decoded, for another layer that the rest belongs to.
    package mutating func takePending() -> ByteBuffer {
        defer { self.buffer = ByteBuffer() }
        return self.buffer
    }

    /// The next whole frame, or `nil` until more bytes come.
    package mutating func next() throws(ProtocolViolation) -> NSQFrame? {
        let start = self.buffer.readerIndex
        guard let size = self.buffer.getInteger(at: start, as: Int32.self) else { return nil }
        guard size >= 4, Int(size) <= self.maxFrameBytes else {
            throw ProtocolViolation(
                "the frame's size is \(size) bytes, allowed are 4 to \(self.maxFrameBytes): "
                    + "no nsqd, or one with a larger max-msg-size than maxMessageBytes here"
            )
        }
        guard self.buffer.readableBytes >= 4 + Int(size),
            var frame = self.buffer.getSlice(at: start + 4, length: Int(size))
        else { return nil }
        self.buffer.moveReaderIndex(forwardBy: 4 + Int(size))
        return try Self.decode(&frame)
    }

    private static func decode(_ frame: inout ByteBuffer) throws(ProtocolViolation) -> NSQFrame {
        let number = frame.readInteger(as: Int32.self) ?? -1
        switch NSQFrame.Kind(rawValue: number) {
        case .response:
            return .response(Array(frame.readableBytesView))
        case .error:
            return .error(String(decoding: frame.readableBytesView, as: UTF8.self))
        case .message:
            guard let timestamp = frame.readInteger(as: Int64.self),
                let attempts = frame.readInteger(as: UInt16.self),
                let high = frame.readInteger(as: UInt64.self),
                let low = frame.readInteger(as: UInt64.self)
            else {
                throw ProtocolViolation("a message frame of \(frame.readableBytes + 4) bytes is too short")
            }
            let body = frame.readBytes(length: frame.readableBytes) ?? []
            let key = MessageKey(high: high, low: low)
            return .message(NSQMessage(timestamp: timestamp, attempts: attempts, key: key, body: body))
        case nil:
            throw ProtocolViolation("a frame has the unknown type \(number)")
        }
    }
}

extension NSQFrame {
    /// Writes the frame as nsqd does.
    package func write(into buffer: inout ByteBuffer) {
        switch self {
        case .response(let data):
            Self.writeHeader(.response, dataBytes: data.count, into: &buffer)
            buffer.writeBytes(data)
        case .error(let text):
            Self.writeHeader(.error, dataBytes: text.utf8.count, into: &buffer)
            buffer.writeString(text)
        case .message(let message):
            let dataBytes = FrameDecoder.messageHeaderBytes - 4 + message.body.count
            Self.writeHeader(.message, dataBytes: dataBytes, into: &buffer)
            buffer.writeMultipleIntegers(
                message.timestamp,
                message.attempts,
                message.key.high,
                message.key.low
            )
            buffer.writeBytes(message.body)
        }
    }

    private static func writeHeader(_ kind: Kind, dataBytes: Int, into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(Int32(truncatingIfNeeded: dataBytes + 4), kind.rawValue)
    }
}
