import Glibc
import StalkCore
import StalkZstd
import Testing

@Suite struct BombTests {
    /// In a process of its own, whose memory no other test takes.
    @Test func bombIsRefusedBeforeItTakesMemory() async {
        await #expect(processExitsWith: .success) {
            let before = peakBytes()
            #expect(before > 0)
            let honest = bomb(declaring: 256 << 20)
            #expect(honest.count < 9000)
            // Over the limit.
            #expect(
                code { _ = try body(of: envelope(declaring: 256 << 20, honest), maxBytes: 1 << 20) } == .corruptValue
            )
            // The envelope declares little, so that the frame disagrees.
            #expect(code { _ = try body(of: envelope(declaring: 1000, honest), maxBytes: 1 << 20) } == .corruptValue)
            // Both declare little: zstd finds the room too small.
            let forged = bomb(declaring: 1000)
            #expect(code { _ = try body(of: envelope(declaring: 1000, forged), maxBytes: 1 << 20) } == .corruptValue)
            #expect(peakBytes() - before < 128 << 20)
            // It is a sound frame: with the limit out of the way it is what it says.
            let zeros = try body(of: envelope(declaring: 256 << 20, honest), maxBytes: 256 << 20)
            #expect(zeros.count == 256 << 20)
            #expect(peakBytes() - before > 200 << 20)
        }
    }

    @Test func forgedLengthOfExabytesIsRefused() {
        // Single segment, eight bytes of length: 4.6 EB, then a block.
        let frame: [UInt8] = [0x28, 0xb5, 0x2f, 0xfd, 0xe0] + [0, 0, 0, 0, 0, 0, 0, 0x40] + [1, 0, 0]
        for declared: UInt32 in [0, 100, .max] {
            let envelope = envelope(declaring: declared, frame)
            #expect(code { _ = try body(of: envelope, maxBytes: .max) } == .corruptValue)
        }
    }

    @Test func frameWithoutLengthIsRefused() throws {
        // Window descriptor, no length, one raw block of three bytes.
        let frame: [UInt8] = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50, 0x19, 0, 0, 1, 2, 3]
        #expect(code { _ = try body(of: envelope(declaring: 3, frame)) } == .corruptValue)
        // With its length, single segment, it is what it should be.
        let sound: [UInt8] = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x03, 0x19, 0, 0, 1, 2, 3]
        #expect(try body(of: envelope(declaring: 3, sound)) == [1, 2, 3])
        #expect(code { _ = try body(of: envelope(declaring: 4, sound)) } == .corruptValue)
        #expect(code { _ = try body(of: envelope(declaring: 3, sound + sound)) } == .corruptValue)
    }

    @Test func skippableFrameIsRefused() {
        let frame: [UInt8] = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2]
        #expect(code { _ = try body(of: envelope(declaring: 0, frame)) } == .corruptValue)
    }
}

/// An envelope that declares `bodyBytes` for a frame.
private func envelope(declaring bodyBytes: UInt32, _ frame: [UInt8]) -> [UInt8] {
    var header: [UInt8] = [1]
    var rest = bodyBytes
    while rest >= 0x80 {
        header.append(UInt8(truncatingIfNeeded: rest) | 0x80)
        rest >>= 7
    }
    return header + [UInt8(rest)] + frame
}

/// A frame of 256 MiB of zeros in 8 KiB, which declares `bodyBytes`.
private func bomb(declaring bodyBytes: UInt32) -> [UInt8] {
    // Single segment, four bytes of length.
    var frame: [UInt8] = [0x28, 0xb5, 0x2f, 0xfd, 0xa0]
    frame += withUnsafeBytes(of: bodyBytes.littleEndian) { bytes in Array(bytes) }
    for index in 0..<2048 {
        // A block of 128 KiB that repeats one byte; the lowest bit marks the last.
        let header = UInt32(128 << 10) << 3 | 1 << 1 | (index == 2047 ? 1 : 0)
        frame += withUnsafeBytes(of: header.littleEndian) { bytes in bytes.prefix(3) } + [0]
    }
    return frame
}

/// The most memory that this process ever had; getrusage(2) would count what it was before it began this program.
private func peakBytes() -> Int {
    guard let file = fopen("/proc/self/status", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, CInt(line.count), file) != nil {
        let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard text.hasPrefix("VmHWM:") else { continue }
        return (Int(text.filter(\.isNumber)) ?? 0) << 10
    }
    return 0
}
