// One frame per group commit: what was written together, and is there together or not at all.

internal import CStalkSystem

/// What stands before the records of one group commit, 64 bytes.
///
/// `syncedThrough` makes a torn tail and damage two different things: a frame that any later frame claims to be synced
/// can't be missing because of a crash. The idea is Pebble's (its WAL sync chunks).
/// Layout: `docs/format.md`, "Frames".
package struct FrameHeader: Hashable, Sendable {
    package static var byteCount: Int { 64 }
    /// "STKF", read as a little-endian number.
    package static var magic: UInt32 { 0x464B_5453 }
    package static var version: UInt16 { 1 }

    /// The size of the records behind the header, in bytes.
    package var payloadBytes: Int
    /// The segment that the frame was written to; a frame left over from the segment's former life has another.
    package var segment: UInt64
    /// Counts the frames of a store, from 1, without gaps.
    package var sequence: UInt64
    /// The last frame that was known to be synced when this one was written.
    package var syncedThrough: UInt64
    /// The store's clock when it was written, in milliseconds.
    package var storeTime: Int64
    /// The store that it belongs to.
    package var store: UInt64

    package init(
        payloadBytes: Int,
        segment: UInt64,
        sequence: UInt64,
        syncedThrough: UInt64,
        storeTime: Int64,
        store: UInt64
    ) {
        self.payloadBytes = payloadBytes
        self.segment = segment
        self.sequence = sequence
        self.syncedThrough = syncedThrough
        self.storeTime = storeTime
        self.store = store
    }

    /// What the frame takes in its segment: frames begin at multiples of eight bytes.
    package var paddedBytes: Int { (Self.byteCount + self.payloadBytes + 7) & ~7 }

    /// Fills in the header of a frame whose first 64 bytes were left free, checksum included.
    package func seal(_ frame: inout [UInt8]) {
        precondition(frame.count == Self.byteCount + self.payloadBytes, "a frame is its header and its records")
        frame.withUnsafeMutableBytes { bytes in
            bytes.storeBytes(of: Self.magic.littleEndian, toByteOffset: 0, as: UInt32.self)
            bytes.storeBytes(of: UInt32(self.payloadBytes).littleEndian, toByteOffset: 4, as: UInt32.self)
            bytes.storeBytes(of: Self.version.littleEndian, toByteOffset: 12, as: UInt16.self)
            bytes.storeBytes(of: 0, toByteOffset: 14, as: UInt16.self)
            bytes.storeBytes(of: self.segment.littleEndian, toByteOffset: 16, as: UInt64.self)
            bytes.storeBytes(of: self.sequence.littleEndian, toByteOffset: 24, as: UInt64.self)
            bytes.storeBytes(of: self.syncedThrough.littleEndian, toByteOffset: 32, as: UInt64.self)
            bytes.storeBytes(of: self.storeTime.littleEndian, toByteOffset: 40, as: Int64.self)
            bytes.storeBytes(of: self.store.littleEndian, toByteOffset: 48, as: UInt64.self)
            bytes.storeBytes(of: 0, toByteOffset: 56, as: UInt64.self)
            let checksum = Self.checksum(UnsafeRawBufferPointer(bytes))
            bytes.storeBytes(of: checksum.littleEndian, toByteOffset: 8, as: UInt32.self)
        }
    }

    /// Reads what looks like the header of a frame of this segment; its checksum is still to be checked.
    ///
    /// - Parameters:
    ///   - bytes: At least 64 bytes.
    ///   - segment: The segment that they stand in.
    ///   - store: The store.
    /// - Returns: The header and its version, or `nil` when no frame of this segment begins here.
    package static func read(
        _ bytes: UnsafeRawBufferPointer,
        segment: UInt64,
        store: UInt64
    ) -> (header: FrameHeader, version: UInt16)? {
        guard bytes.count >= Self.byteCount, bytes.number(at: 0, UInt32.self) == Self.magic,
            bytes.number(at: 16, UInt64.self) == segment, bytes.number(at: 48, UInt64.self) == store
        else { return nil }
        let header = FrameHeader(
            payloadBytes: Int(bytes.number(at: 4, UInt32.self)),
            segment: segment,
            sequence: bytes.number(at: 24, UInt64.self),
            syncedThrough: bytes.number(at: 32, UInt64.self),
            storeTime: bytes.number(at: 40, Int64.self),
            store: store
        )
        return (header, bytes.number(at: 12, UInt16.self))
    }

    /// The segment that a header names, whichever that is.
    package static func formerSegment(_ bytes: UnsafeRawBufferPointer) -> UInt64? {
        guard bytes.count >= Self.byteCount, bytes.number(at: 0, UInt32.self) == Self.magic else { return nil }
        return bytes.number(at: 16, UInt64.self)
    }

    /// Whether a whole frame's checksum holds.
    package static func isIntact(_ frame: UnsafeRawBufferPointer) -> Bool {
        frame.number(at: 8, UInt32.self) == Self.checksum(frame)
    }

    /// The checksum over everything but itself: magic and length, then from the version to the end.
    private static func checksum(_ frame: UnsafeRawBufferPointer) -> UInt32 {
        guard let start = frame.baseAddress else { return 0 }
        return CStalkSystem_crc32c(CStalkSystem_crc32c(0, start, 8), start + 12, frame.count - 12)
    }
}

extension UnsafeRawBufferPointer {
    fileprivate func number<Number: FixedWidthInteger>(at offset: Int, _: Number.Type) -> Number {
        Number(littleEndian: self.loadUnaligned(fromByteOffset: offset, as: Number.self))
    }
}
