// Compresses a message where it settles: what moves into the index goes through an envelope, the log stays as it is.
package import StalkCore

/// A stored body, taken apart but not yet decompressed.
///
/// The bytes, in this order:
///
/// | bytes | what |
/// | --- | --- |
/// | 1 | kind: 0 the body as it is, 1 a zstd frame, 2 a zstd frame made with a dictionary |
/// | 1 to 5 | length of the body: LEB128, the shortest form, at most 2^32 - 1 |
/// | 4, kind 2 only | number of the dictionary, little-endian |
/// | rest | the body, or exactly one zstd frame |
///
/// The frame carries the length of its content, which must be that of the body. It carries neither a checksum, since
/// the checksum of the index's value covers the whole envelope, nor zstd's own dictionary number. So whoever stores
/// envelopes elsewhere must checksum them: a damaged frame can decompress to wrong bytes.
package struct Envelope {
    /// How the body is stored; the raw value is what stands in the first byte.
    package enum Kind: UInt8, Sendable {
        case raw = 0
        case zstd = 1
        case zstdWithDictionary = 2
    }

    /// The most bytes before the payload.
    static var headerBytesMax: Int { 1 + 5 + 4 }

    package var kind: Kind
    /// The length that the envelope declares for the body; not yet checked against anything.
    package var bodyBytes: Int
    /// The number of the dictionary that it takes to decompress; nil if none.
    package var dictionaryID: UInt32?
    /// The body or the frame: a part of the bytes that were parsed.
    package var payload: UnsafeRawBufferPointer

    /// Takes an envelope apart.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/corruptValue`` when it is cut short or of an unknown kind.
    package init(parsing bytes: UnsafeRawBufferPointer) throws(StalkError) {
        guard let first = bytes.first else { throw .corruptEnvelope("it is empty") }
        guard let kind = Kind(rawValue: first) else {
            throw .corruptEnvelope("its kind \(first) is unknown, so it is damaged or from a newer version")
        }
        var position = 1
        self.kind = kind
        self.bodyBytes = Int(try Self.length(in: bytes, at: &position))
        if kind == .zstdWithDictionary {
            guard bytes.count - position >= 4 else { throw .corruptEnvelope("it is cut short") }
            self.dictionaryID = UInt32(
                littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt32.self)
            )
            position += 4
        }
        self.payload = UnsafeRawBufferPointer(rebasing: bytes[position...])
    }

    /// Writes the envelope of a body that is stored as it is.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/bodyTooLarge`` for 4 GiB and more.
    package static func write(raw body: [UInt8], to writer: inout ByteWriter) throws(StalkError) {
        guard let bodyBytes = UInt32(exactly: body.count) else {
            throw StalkError(.bodyTooLarge, "A body of \(body.count) bytes can't be stored: the most is 4 GiB.")
        }
        withUnsafeTemporaryAllocation(byteCount: Self.headerBytesMax, alignment: 1) { header in
            let count = Self.writeHeader(.raw, bodyBytes: bodyBytes, dictionaryID: nil, to: header)
            writer.write(UnsafeRawBufferPointer(rebasing: header[..<count]))
        }
        writer.write(body)
    }

    /// Writes what comes before the payload; returns its length.
    static func writeHeader(
        _ kind: Kind,
        bodyBytes: UInt32,
        dictionaryID: UInt32?,
        to target: UnsafeMutableRawBufferPointer
    ) -> Int {
        target[0] = kind.rawValue
        var position = 1
        var rest = bodyBytes
        while rest >= 0x80 {
            target[position] = UInt8(truncatingIfNeeded: rest) | 0x80
            rest >>= 7
            position += 1
        }
        target[position] = UInt8(rest)
        position += 1
        if let dictionaryID {
            target.storeBytes(of: dictionaryID.littleEndian, toByteOffset: position, as: UInt32.self)
            position += 4
        }
        return position
    }

    private static func length(in bytes: UnsafeRawBufferPointer, at position: inout Int) throws(StalkError) -> UInt32 {
        var value: UInt64 = 0
        for shift in stride(from: 0, to: 35, by: 7) {
            guard position < bytes.count else { throw .corruptEnvelope("it is cut short") }
            let byte = bytes[position]
            position += 1
            value |= UInt64(byte & 0x7f) << UInt64(shift)
            guard byte & 0x80 == 0 else { continue }
            // One value has one form, so that equal envelopes are equal bytes.
            guard shift == 0 || byte != 0, let length = UInt32(exactly: value) else { break }
            return length
        }
        throw .corruptEnvelope("its length is not a number that it can have")
    }
}

extension StalkError {
    static func corruptEnvelope(
        _ what: String,
        cause: (any Error)? = nil,
        file: String = #fileID,
        line: Int = #line
    ) -> StalkError {
        StalkError(
            .corruptValue,
            "A stored body can't be read: \(what). Run 'stalk repair' to set it aside.",
            cause: cause,
            file: file,
            line: line
        )
    }
}
