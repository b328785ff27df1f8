// Which store a segment belongs to, when nothing else says so.

package import StalkCore
package import StalkFiles

extension FrameHeader {
    /// The store that the frame at the start of a segment belongs to, or that of the first frame in its first MiB when
    /// the start is damaged; `nil` when there is no whole frame.
    package static func storeOfFirstFrame(in file: any StorageFile) throws(StalkError) -> UInt64? {
        let bytes = try file.read(at: 0, count: 1 << 20)
        let size = try file.size()
        // A prepared segment that was never used.
        if bytes.prefix(4096).allSatisfy({ $0 == 0 }) { return nil }
        var offset = 0
        while offset + Self.byteCount <= bytes.count {
            defer { offset += 8 }
            let (isFrame, payload, store) = bytes.withUnsafeBytes { buffer in
                (
                    UInt32(littleEndian: buffer.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) == Self.magic,
                    Int(UInt32(littleEndian: buffer.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self))),
                    UInt64(littleEndian: buffer.loadUnaligned(fromByteOffset: offset + 48, as: UInt64.self))
                )
            }
            guard isFrame, payload <= size - offset - Self.byteCount else { continue }
            let frame = try file.read(at: offset, count: Self.byteCount + payload)
            guard frame.count == Self.byteCount + payload, frame.withUnsafeBytes({ Self.isIntact($0) }) else {
                continue
            }
            return store
        }
        return nil
    }
}
