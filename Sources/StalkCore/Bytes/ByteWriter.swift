// How numbers and bytes stand in Stalk's files: little-endian, unaligned, lengths before contents.

/// Bytes being put together.
package struct ByteWriter: Sendable {
    /// What was written so far.
    package private(set) var bytes: [UInt8]

    /// Starts with nothing.
    package init(reserving capacity: Int = 0) {
        self.bytes = []
        self.bytes.reserveCapacity(capacity)
    }

    /// Starts on memory that is used again; its contents are dropped.
    package init(reusing memory: consuming [UInt8]) {
        memory.removeAll(keepingCapacity: true)
        self.bytes = memory
    }

    package var count: Int { self.bytes.count }

    // One for each type: other modules call a generic one as it is, which looks each step up in the type's witness table.
    package mutating func write(_ number: UInt8) { self.bytes.append(number) }
    package mutating func write(_ number: UInt16) { self.put(number) }
    package mutating func write(_ number: UInt32) { self.put(number) }
    package mutating func write(_ number: UInt64) { self.put(number) }
    package mutating func write(_ number: Int32) { self.put(number) }
    package mutating func write(_ number: Int64) { self.put(number) }

    @inline(__always)
    private mutating func put(_ number: some FixedWidthInteger) {
        withUnsafeBytes(of: number.littleEndian) { self.bytes.append(contentsOf: $0) }
    }

    package mutating func write(_ contents: [UInt8]) {
        self.bytes.append(contentsOf: contents)
    }

    package mutating func write(_ contents: UnsafeRawBufferPointer) {
        self.bytes.append(contentsOf: contents)
    }

    package mutating func write(_ text: String) {
        self.bytes.append(contentsOf: text.utf8)
    }

    package mutating func writeZeros(_ count: Int) {
        self.bytes.append(contentsOf: repeatElement(0, count: count))
    }

    /// Writes a text behind its length in bytes, as 16 bits; what is longer is cut at a character.
    package mutating func writeShortText(_ text: String) {
        let kept = text.utf8.count <= Int(UInt16.max) ? text : text.cut(toBytes: Int(UInt16.max))
        self.write(UInt16(kept.utf8.count))
        self.write(kept)
    }

    /// Puts a number over bytes that were written before.
    package mutating func overwrite(at offset: Int, with number: UInt32) {
        self.bytes.withUnsafeMutableBytes {
            $0.storeBytes(of: number.littleEndian, toByteOffset: offset, as: UInt32.self)
        }
    }

    /// Drops what was written behind `count`.
    package mutating func truncate(to count: Int) {
        self.bytes.removeLast(self.bytes.count - count)
    }

    /// Gives the bytes out and starts again with nothing.
    package mutating func take() -> [UInt8] {
        defer { self.bytes = [] }
        return self.bytes
    }
}

extension String {
    /// The longest beginning that has at most this many bytes of UTF-8 and cuts no character.
    package func cut(toBytes limit: Int) -> String {
        guard self.utf8.count > limit else { return self }
        var end = self.startIndex
        var size = 0
        for index in self.indices {
            size += self[index].utf8.count
            if size > limit { break }
            end = self.index(after: index)
        }
        return String(self[..<end])
    }
}
