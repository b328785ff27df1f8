import StalkLog
import StalkTesting
import Testing

@Suite struct FrameHeaderTests {
    private static let segment: UInt64 = 0x1122_3344_5566_7788
    private static let store: UInt64 = 0x99AA_BBCC_DDEE_FF00

    private func frame(payloadBytes: Int, seed: UInt64 = 1) -> (header: FrameHeader, bytes: [UInt8]) {
        var payloads = Payloads(seed: seed)
        let header = FrameHeader(
            payloadBytes: payloadBytes,
            segment: Self.segment,
            sequence: 0x0102_0304_0506_0708,
            syncedThrough: 0x1112_1314_1516_1718,
            storeTime: -5,
            store: Self.store
        )
        // What stood in the header's place before must not matter.
        var bytes = [UInt8](repeating: 0xEE, count: FrameHeader.byteCount) + payloads.next(bytes: payloadBytes)
        header.seal(&bytes)
        return (header, bytes)
    }

    private func read(_ bytes: [UInt8], segment: UInt64 = segment, store: UInt64 = store) -> FrameHeader? {
        bytes.withUnsafeBytes { FrameHeader.read($0, segment: segment, store: store)?.header }
    }

    @Test(
        "A sealed frame is whole and says what it was sealed with",
        arguments: [0, 1, 7, 8, 63, 64, 1000, 3007, 3008, 3009, 20_000]
    )
    func roundTrip(payloadBytes: Int) {
        let (header, bytes) = self.frame(payloadBytes: payloadBytes)
        #expect(self.read(bytes) == header)
        #expect(bytes.withUnsafeBytes { FrameHeader.isIntact($0) })
        #expect(header.paddedBytes.isMultiple(of: 8))
        #expect((0..<8).contains(header.paddedBytes - bytes.count))
    }

    @Test("The checksum is CRC-32C", arguments: [0, 1, 7, 8, 100, 3007, 3008, 3009, 9216, 20_000])
    func checksum(payloadBytes: Int) {
        let bytes = self.frame(payloadBytes: payloadBytes).bytes
        let expected = bytes.withUnsafeBytes { Checksum.ofFrame($0) }
        let found = bytes.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt32.self)) }
        #expect(found == expected)
    }

    @Test("The layout is the documented one")
    func layout() {
        let header = FrameHeader(payloadBytes: 2, segment: 3, sequence: 4, syncedThrough: 5, storeTime: 6, store: 7)
        var bytes = [UInt8](repeating: 0, count: FrameHeader.byteCount) + [8, 9]
        header.seal(&bytes)
        bytes.replaceSubrange(8..<12, with: [0, 0, 0, 0])
        let number = { (value: UInt8) in [value, 0, 0, 0, 0, 0, 0, 0] }
        let expected = Array("STKF".utf8) + [2, 0, 0, 0] + [0, 0, 0, 0] + [1, 0, 0, 0]
        #expect(bytes == expected + [3, 4, 5, 6, 7, 0].flatMap(number) + [8, 9])
    }

    @Test("Every flipped bit of a frame is noticed")
    func bitFlips() {
        var bytes = self.frame(payloadBytes: 4096 - FrameHeader.byteCount).bytes
        var missed: [Int] = []
        for bit in 0..<bytes.count * 8 {
            bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            if bytes.withUnsafeBytes({ FrameHeader.isIntact($0) }) { missed.append(bit) }
            bytes[bit / 8] ^= 1 << UInt8(bit % 8)
        }
        #expect(missed == [])
    }

    @Test("A header of another segment, another store or none is none")
    func foreignHeaders() {
        let bytes = self.frame(payloadBytes: 10).bytes
        #expect(self.read(bytes, segment: 1) == nil)
        #expect(self.read(bytes, store: 1) == nil)
        #expect(self.read([UInt8](repeating: 0, count: 64)) == nil)
        for count in 0..<FrameHeader.byteCount {
            #expect(self.read(Array(bytes.prefix(count))) == nil)
            #expect(bytes.prefix(count).withUnsafeBytes { FrameHeader.formerSegment($0) } == nil)
        }
        #expect(bytes.withUnsafeBytes { FrameHeader.formerSegment($0) } == Self.segment)
    }
}
