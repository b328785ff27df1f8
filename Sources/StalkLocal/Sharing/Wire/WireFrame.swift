// How processes that share a store talk: frames on a Unix socket. See docs/sharing.md for every byte.

internal import StalkCore

/// The bounds of the protocol.
enum Wire {
    /// "STKS", the first bytes of every greeting.
    static let magic: UInt32 = 0x534B_5453
    /// The versions that this process speaks.
    static let versions: ClosedRange<UInt16> = 1...1
    /// The largest frame, in bytes behind its length, unless bodies may be larger than half of it.
    static let maxFrameBytes = 64 << 20
    /// How many bytes of messages go into one answer; what is more comes in another.
    static let answerBytes = 8 << 20

    /// The largest frame of a store whose bodies have a limit of their own.
    static func maxFrameBytes(bodies: Int) -> Int { max(Self.maxFrameBytes, 2 * bodies) }
    /// Length, call, kind.
    static let headerBytes = 4 + 8 + 1

    /// What a peer sends that this process can't read.
    struct Malformed: Error {}
}

/// One request or answer as bytes, its kind and call still to be read.
struct WireFrame: Hashable, Sendable {
    /// The number of the call that it belongs to; each client counts its own.
    var call: UInt64
    var kind: UInt8
    var contents: [UInt8]

    /// Writes a frame: its header, then what `contents` writes.
    static func write(
        _ call: UInt64,
        _ kind: UInt8,
        to writer: inout ByteWriter,
        _ contents: (inout ByteWriter) -> Void
    ) {
        let start = writer.count
        writer.write(UInt32(0))
        writer.write(call)
        writer.write(kind)
        contents(&writer)
        writer.overwrite(at: start, with: UInt32(clamping: writer.count - start - 4))
    }
}

/// Puts frames together from bytes that come in pieces of any size.
struct WireAssembler: Sendable {
    /// The largest frame that is taken, in bytes behind its length.
    let maxFrameBytes: Int
    private var bytes: [UInt8] = []
    private var start = 0
    /// Whether a length was met that no frame has: from there on nothing can be read.
    private var isLost = false

    init(maxFrameBytes: Int = Wire.maxFrameBytes) {
        self.maxFrameBytes = maxFrameBytes
    }

    /// How many bytes wait for the rest of their frame.
    var waiting: Int { self.bytes.count - self.start }

    mutating func append(_ piece: UnsafeRawBufferPointer) {
        guard !self.isLost else { return }
        if self.start > 0, self.start == self.bytes.count {
            // A large frame does not keep its memory for ever.
            self.bytes.removeAll(keepingCapacity: self.bytes.capacity <= 1 << 20)
            self.start = 0
        } else if self.start > 1 << 16, self.start > self.bytes.count / 2 {
            // Moved only when less is moved than was taken.
            self.bytes.removeFirst(self.start)
            self.start = 0
        }
        self.bytes.append(contentsOf: piece)
    }

    /// The next whole frame; `nil` when more must come first.
    ///
    /// - Throws: ``Wire/Malformed`` for a length that no frame has, once; what comes behind that is dropped.
    mutating func next() throws(Wire.Malformed) -> WireFrame? {
        guard self.waiting >= 4 else { return nil }
        let length = self.bytes.withUnsafeBytes {
            Int(UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: self.start, as: UInt32.self)))
        }
        guard (Wire.headerBytes - 4...self.maxFrameBytes).contains(length) else {
            (self.bytes, self.start, self.isLost) = ([], 0, true)
            throw Wire.Malformed()
        }
        guard self.waiting >= 4 + length else { return nil }
        let frame = self.bytes.withUnsafeBytes { bytes in
            let start = self.start + 4
            return WireFrame(
                call: UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: start, as: UInt64.self)),
                kind: bytes[start + 8],
                contents: Array(bytes[(start + 9)..<(start + length)])
            )
        }
        self.start += 4 + length
        return frame
    }
}
