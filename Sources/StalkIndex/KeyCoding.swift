package import StalkCore

/// Builds keys whose byte order is the order of their parts; made to be reused, so that a key costs no allocation.
///
/// Integers are big-endian; signed ones have the sign bit flipped, so that negative ones come first.
package struct KeyBuilder: Sendable {
    /// The key built so far.
    package private(set) var bytes: [UInt8] = []

    package init() {
        self.bytes.reserveCapacity(64)
    }

    /// Begins another key.
    package mutating func reset() {
        self.bytes.removeAll(keepingCapacity: true)
    }

    package mutating func append(_ value: UInt8) {
        self.bytes.append(value)
    }

    package mutating func append(_ value: UInt32) {
        withUnsafeBytes(of: value.bigEndian) { bytes in self.bytes.append(contentsOf: bytes) }
    }

    package mutating func append(_ value: UInt64) {
        withUnsafeBytes(of: value.bigEndian) { bytes in self.bytes.append(contentsOf: bytes) }
    }

    package mutating func append(_ value: Int64) {
        self.append(UInt64(bitPattern: value) ^ (1 << 63))
    }

    /// Appends bytes as they are; a part after them sorts rightly only if they always have the same length.
    package mutating func append(_ bytes: some Sequence<UInt8>) {
        self.bytes.append(contentsOf: bytes)
    }
}

/// Takes the parts of a key apart, in the order in which a ``KeyBuilder`` put them in.
package struct KeyReader {
    /// What has not been read yet.
    package private(set) var rest: UnsafeRawBufferPointer

    package init(_ key: UnsafeRawBufferPointer) {
        self.rest = key
    }

    /// - Throws: ``StalkError/Code/storeDamaged`` when the key is too short.
    package mutating func readUInt8() throws(StalkError) -> UInt8 { try self.read() }

    /// - Throws: ``StalkError/Code/storeDamaged`` when the key is too short.
    package mutating func readUInt32() throws(StalkError) -> UInt32 { try self.read() }

    /// - Throws: ``StalkError/Code/storeDamaged`` when the key is too short.
    package mutating func readUInt64() throws(StalkError) -> UInt64 { try self.read() }

    /// - Throws: ``StalkError/Code/storeDamaged`` when the key is too short.
    package mutating func readInt64() throws(StalkError) -> Int64 {
        Int64(bitPattern: try self.readUInt64() ^ (1 << 63))
    }

    private mutating func read<I: FixedWidthInteger>() throws(StalkError) -> I {
        guard self.rest.count >= MemoryLayout<I>.size else {
            throw StalkError(.storeDamaged, "A key in the index is shorter than it must be; run 'stalk verify'.")
        }
        let value = I(bigEndian: self.rest.loadUnaligned(as: I.self))
        self.rest = UnsafeRawBufferPointer(rebasing: self.rest[MemoryLayout<I>.size...])
        return value
    }
}
