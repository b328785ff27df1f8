internal import CLMDB
internal import CStalkSystem
internal import StalkCore

/// One named table (an LMDB named database) of an ``Environment``.
///
/// Every value is stored as its bytes and then a CRC-32C, four bytes little-endian, over the table's name, a zero byte,
/// the key and the value: LMDB has no checksums of its own. The name is in it so that a stale page of another table
/// doesn't pass.
package struct Table: Sendable {
    /// The most bytes that a key can have.
    package static var keyBytesMax: Int { 511 }

    /// The bytes that the checksum adds to each stored value.
    static var checksumBytes: Int { 4 }

    let handle: UInt32
    package let name: String
    private let seed: UInt32

    /// A table of another ``Index`` than LMDB's.
    package init(name: String) {
        self.init(handle: 0, name: name)
    }

    init(handle: UInt32, name: String) {
        self.handle = handle
        self.name = name
        self.seed = (Array(name.utf8) + [0]).withUnsafeBytes { bytes in
            CStalkSystem_crc32c(0, bytes.baseAddress, bytes.count)
        }
    }

    func checksum(_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> UInt32 {
        let overKey = CStalkSystem_crc32c(self.seed, key.baseAddress, key.count)
        return CStalkSystem_crc32c(overKey, value.baseAddress, value.count)
    }

    /// The value inside what is stored under `key`, or nil when its checksum does not fit.
    func value(in stored: UnsafeRawBufferPointer, under key: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        let count = stored.count - Self.checksumBytes
        guard count >= 0 else { return nil }
        let value = UnsafeRawBufferPointer(rebasing: stored[..<count])
        let expected = UInt32(littleEndian: stored.loadUnaligned(fromByteOffset: count, as: UInt32.self))
        return self.checksum(key, value) == expected ? value : nil
    }

    func corruptValue(under key: UnsafeRawBufferPointer) -> StalkError {
        StalkError(
            .corruptValue,
            "The value in the table \(self.name) under the key \(hexadecimal(key)) fails its checksum; "
                + "run 'stalk verify'."
        )
    }
}

/// The bytes as lower case hexadecimal digits, "empty" if there are none.
func hexadecimal(_ bytes: UnsafeRawBufferPointer) -> String {
    guard !bytes.isEmpty else { return "empty" }
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    text.reserveCapacity(bytes.count * 2)
    for byte in bytes {
        text.append(digits[Int(byte >> 4)])
        text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
}

extension MDB_val {
    /// A view of `bytes` for LMDB to read; LMDB does not write through it.
    init(_ bytes: UnsafeRawBufferPointer) {
        self.init(mv_size: bytes.count, mv_data: UnsafeMutableRawPointer(mutating: bytes.baseAddress))
    }

    var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: self.mv_data, count: self.mv_size)
    }
}
