/// Bytes being taken apart; reading past the end is an error, never a crash.
///
/// It borrows the memory: a reader must not outlive the closure that was handed the buffer.
package struct ByteReader {
    /// The bytes do not hold what was expected in them.
    package struct Truncated: Error {
        package init() {}
    }

    private let buffer: UnsafeRawBufferPointer
    /// How many bytes were read.
    package private(set) var offset = 0

    package init(_ buffer: UnsafeRawBufferPointer) {
        self.buffer = buffer
    }

    package var remaining: Int { self.buffer.count - self.offset }

    // One for each type, as in `ByteWriter`.
    package mutating func read(_: UInt8.Type = UInt8.self) throws(Truncated) -> UInt8 { try self.next() }
    package mutating func read(_: UInt16.Type = UInt16.self) throws(Truncated) -> UInt16 { try self.next() }
    package mutating func read(_: UInt32.Type = UInt32.self) throws(Truncated) -> UInt32 { try self.next() }
    package mutating func read(_: UInt64.Type = UInt64.self) throws(Truncated) -> UInt64 { try self.next() }
    package mutating func read(_: Int32.Type = Int32.self) throws(Truncated) -> Int32 { try self.next() }
    package mutating func read(_: Int64.Type = Int64.self) throws(Truncated) -> Int64 { try self.next() }

    @inline(__always)
    private mutating func next<Number: FixedWidthInteger>() throws(Truncated) -> Number {
        let size = MemoryLayout<Number>.size
        guard self.remaining >= size else { throw Truncated() }
        defer { self.offset += size }
        return Number(littleEndian: self.buffer.loadUnaligned(fromByteOffset: self.offset, as: Number.self))
    }

    package mutating func readBuffer(_ count: Int) throws(Truncated) -> UnsafeRawBufferPointer {
        guard count >= 0, self.remaining >= count else { throw Truncated() }
        defer { self.offset += count }
        return UnsafeRawBufferPointer(rebasing: self.buffer[self.offset..<self.offset + count])
    }

    package mutating func readBytes(_ count: Int) throws(Truncated) -> [UInt8] {
        try [UInt8](self.readBuffer(count))
    }

    package mutating func readText(_ count: Int) throws(Truncated) -> String {
        try String(decoding: self.readBuffer(count), as: UTF8.self)
    }

    package mutating func readShortText() throws(Truncated) -> String {
        let count = try self.read(UInt16.self)
        return try self.readText(Int(count))
    }
}
