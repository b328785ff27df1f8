// Commands out of bytes: the server's side of the protocol, which the tests' own nsqd reads with.

package import NIOCore

/// A command that nsqd refuses, by the text of the error frame that it answers with.
package struct CommandRefusal: Error, Hashable {
    package var text: String

    package init(_ text: String) {
        self.text = text
    }
}

/// Takes the bytes that a client sends, after the magic, and gives commands.
package struct CommandDecoder {
    private static let maxLineBytes = 4096

    private let maxMessageBytes: Int
    private let maxBodyBytes: Int
    private var buffer = ByteBuffer()

    package init(maxMessageBytes: Int = 1 << 20, maxBodyBytes: Int = 5 << 20) {
        self.maxMessageBytes = maxMessageBytes
        self.maxBodyBytes = maxBodyBytes
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

    /// The next whole command, or `nil` until more bytes come.
    package mutating func next() throws(CommandRefusal) -> NSQCommand? {
        let start = self.buffer.readerIndex
        let window = self.buffer.readableBytesView.prefix(Self.maxLineBytes)
        guard let end = window.firstIndex(of: UInt8(ascii: "\n")) else {
            guard window.count < Self.maxLineBytes else { throw CommandRefusal("E_INVALID line too long") }
            return nil
        }
        let words = window[..<end].split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        let bodyStart = end + 1
        if let key = Self.key(in: words) {
            self.buffer.moveReaderIndex(forwardBy: bodyStart - start)
            return try Self.keyed(words, key)
        }
        let line = words.map { String(decoding: $0, as: UTF8.self) }
        switch (line[0], line.count) {
        case ("NOP", _):
            self.buffer.moveReaderIndex(forwardBy: bodyStart - start)
            return .nop
        case ("CLS", _):
            self.buffer.moveReaderIndex(forwardBy: bodyStart - start)
            return .startClose
        case ("RDY", 2...):
            guard let count = Int(line[1]) else {
                throw CommandRefusal("E_INVALID RDY could not parse count \(line[1])")
            }
            self.buffer.moveReaderIndex(forwardBy: bodyStart - start)
            return .ready(count)
        case ("SUB", 3...):
            self.buffer.moveReaderIndex(forwardBy: bodyStart - start)
            return .subscribe(topic: line[1], channel: line[2])
        case ("IDENTIFY", _):
            return try self.body(from: start, at: bodyStart, limit: self.maxBodyBytes, "E_BAD_BODY").map {
                .identify($0)
            }
        case ("AUTH", _):
            return try self.body(from: start, at: bodyStart, limit: self.maxBodyBytes, "E_BAD_BODY").map { .auth($0) }
        case ("PUB", 2...):
            return try self.body(from: start, at: bodyStart, limit: self.maxMessageBytes, "E_BAD_MESSAGE")
                .map { .publish(topic: line[1], $0) }
        case ("DPUB", 3...):
            guard let delay = Int64(line[2]) else { throw CommandRefusal("E_INVALID DPUB could not parse timeout") }
            return try self.body(from: start, at: bodyStart, limit: self.maxMessageBytes, "E_BAD_MESSAGE")
                .map { .deferredPublish(topic: line[1], milliseconds: delay, $0) }
        case ("MPUB", 2...):
            return try self.bodies(from: start, at: bodyStart).map { .multiPublish(topic: line[1], $0) }
        default:
            throw CommandRefusal("E_INVALID invalid command \(line[0])")
        }
    }

    /// The key in the second word of `FIN`, `REQ` and `TOUCH`.
    private static func key(in words: [ByteBufferView]) -> MessageKey? {
        guard words.count >= 2, [3, 5].contains(words[0].count), words[1].count == MessageKey.byteCount else {
            return nil
        }
        let isKeyed = ["FIN", "REQ", "TOUCH"].contains { words[0].elementsEqual($0.utf8) }
        guard isKeyed else { return nil }
        let halves = [words[1].prefix(8), words[1].suffix(8)].map { half in
            half.reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        }
        return MessageKey(high: halves[0], low: halves[1])
    }

    private static func keyed(_ words: [ByteBufferView], _ key: MessageKey) throws(CommandRefusal) -> NSQCommand {
        if words[0].elementsEqual("FIN".utf8) { return .finish(key) }
        if words[0].elementsEqual("TOUCH".utf8) { return .touch(key) }
        guard words.count >= 3, let delay = Int64(String(decoding: words[2], as: UTF8.self)) else {
            throw CommandRefusal("E_INVALID REQ could not parse timeout")
        }
        return .requeue(key, milliseconds: delay)
    }

    private mutating func body(
        from start: Int,
        at position: Int,
        limit: Int,
        _ code: String
    ) throws(CommandRefusal) -> [UInt8]? {
        guard let size = self.buffer.getInteger(at: position, as: Int32.self) else { return nil }
        guard size > 0 else { throw CommandRefusal("\(code) invalid body size \(size)") }
        guard Int(size) <= limit else { throw CommandRefusal("\(code) body too big \(size) > \(limit)") }
        guard let bytes = self.buffer.getBytes(at: position + 4, length: Int(size)) else { return nil }
        self.buffer.moveReaderIndex(forwardBy: position + 4 + Int(size) - start)
        return bytes
    }

    private mutating func bodies(from start: Int, at position: Int) throws(CommandRefusal) -> [[UInt8]]? {
        guard let size = self.buffer.getInteger(at: position, as: Int32.self) else { return nil }
        guard size > 0, Int(size) <= self.maxBodyBytes else {
            throw CommandRefusal("E_BAD_BODY MPUB invalid body size \(size)")
        }
        guard var slice = self.buffer.getSlice(at: position + 4, length: Int(size)) else { return nil }
        guard let count = slice.readInteger(as: Int32.self), count > 0, Int(count) <= (Int(size) - 4) / 5 else {
            throw CommandRefusal("E_BAD_BODY MPUB invalid message count")
        }
        var bodies: [[UInt8]] = []
        bodies.reserveCapacity(Int(count))
        for number in 0..<count {
            guard let length = slice.readInteger(as: Int32.self), length > 0, Int(length) <= self.maxMessageBytes else {
                throw CommandRefusal("E_BAD_MESSAGE MPUB invalid message(\(number)) body size")
            }
            guard let body = slice.readBytes(length: Int(length)) else {
                throw CommandRefusal("E_BAD_MESSAGE MPUB failed to read message(\(number)) body")
            }
            bodies.append(body)
        }
        self.buffer.moveReaderIndex(forwardBy: position + 4 + Int(size) - start)
        return bodies
    }
}
