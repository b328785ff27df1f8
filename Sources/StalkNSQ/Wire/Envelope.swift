// Headers, a stable id and empty bodies over NSQ, which has none of them: a prefix before the body, off by default.

internal import StalkCore

/// How a message is put into the body of an NSQ message.
///
/// Eight magic bytes, the lengths of id (16 bits) and headers (32 bits), both, then the body; numbers little-endian as in
/// Stalk's files. A body without the magic, or with lengths that don't fit, is somebody else's and taken as it is.
struct Envelope: Equatable {
    static let magic: [UInt8] = [0x00] + Array("STALK1".utf8) + [0x0A]
    static let idBytes = 32

    /// The most that an envelope adds to a body.
    static var maxOverhead: Int {
        Self.magic.count + 2 + 4 + Self.idBytes + Headers.maxBytes + Headers.maxCount * 6
    }

    var id: String
    var headers: Headers
    var body: [UInt8]

    func encoded() -> [UInt8] {
        let capacity = Self.magic.count + 6 + self.id.utf8.count + self.headers.encodedBytes + self.body.count
        var writer = ByteWriter(reserving: capacity)
        writer.write(Self.magic)
        writer.write(UInt16(self.id.utf8.count))
        writer.write(UInt32(self.headers.encodedBytes))
        writer.write(self.id)
        self.headers.write(to: &writer)
        writer.write(self.body)
        return writer.take()
    }

    /// The envelope in a body, or `nil` where there is none.
    init?(decoding body: [UInt8]) {
        guard body.starts(with: Self.magic) else { return nil }
        let parts = try? body.withUnsafeBytes { bytes throws(ByteReader.Truncated) -> Envelope in
            var reader = ByteReader(UnsafeRawBufferPointer(rebasing: bytes[Self.magic.count...]))
            let idBytes = Int(try reader.read(UInt16.self))
            let headerBytes = Int(try reader.read(UInt32.self))
            let id = try reader.readText(idBytes)
            let headers = try Headers(reading: reader.readBuffer(headerBytes))
            return Envelope(id: id, headers: headers, body: try reader.readBytes(reader.remaining))
        }
        guard let parts, !parts.id.isEmpty, (try? parts.headers.validate()) != nil else { return nil }
        self = parts
    }

    init(id: String, headers: Headers, body: [UInt8]) {
        self.id = id
        self.headers = headers
        self.body = body
    }

    /// A new id: 32 hexadecimal digits of chance.
    static func makeID() -> String {
        var generator = SystemRandomNumberGenerator()
        let halves: [UInt64] = [generator.next(), generator.next()]
        return String(unsafeUninitializedCapacity: Self.idBytes) { buffer in
            for position in 0..<Self.idBytes {
                let nibble = UInt8(truncatingIfNeeded: halves[position / 16] >> UInt64(60 - position % 16 * 4)) & 0xF
                buffer[position] = nibble < 10 ? UInt8(ascii: "0") + nibble : UInt8(ascii: "a") + nibble - 10
            }
            return Self.idBytes
        }
    }
}
