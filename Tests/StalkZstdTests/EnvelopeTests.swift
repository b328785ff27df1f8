import StalkCore
import StalkTesting
import StalkZstd
import Testing

@Suite struct EnvelopeTests {
    private static let sizes = [0, 1, 63, 64, 65, 127, 128, 129, 255, 256, 1000, 16_383, 16_384, 65_792, 1 << 20]

    @Test(arguments: Self.sizes)
    func textComesBack(size: Int) throws {
        let text = Samples.text(size)
        let envelope = try Compressor().envelope(for: text)
        #expect(try body(of: envelope) == text)
        // Below 200 bytes, zstd may or may not save a sixteenth of such words.
        if size < 64 { #expect(envelope[0] == 0) }
        if size > 200 { #expect(envelope[0] == 1 && envelope.count < size * 3 / 4) }
    }

    @Test(arguments: Self.sizes)
    func randomBytesAreStoredAsTheyAre(size: Int) throws {
        let bytes = Samples.random(size)
        let envelope = try Compressor().envelope(for: bytes)
        #expect(envelope[0] == 0)
        #expect(envelope.count <= size + 4)
        #expect(Array(envelope.suffix(size)) == bytes)
        #expect(try body(of: envelope) == bytes)
    }

    /// A body that zstd gives up on must leave nothing behind, the dictionary least of all.
    @Test func oneCompressorServesBodiesOfAllKinds() throws {
        let compressor = try Compressor()
        let dictionary = try CompressionDictionary(id: 7, bytes: Samples.record(1) + Samples.record(2))
        let ready = try DecompressionDictionary(id: 7, bytes: dictionary.bytes)
        let decompressor = try Decompressor()
        for seed in 0..<200 as Range<UInt64> {
            let record = seed % 7 == 0 ? Samples.random(5000, seed: seed) : Samples.record(seed)
            let envelope = try compressor.envelope(for: record, dictionary: seed % 3 == 0 ? nil : dictionary)
            let found = try decompressor.body(of: envelope, maxBytes: record.count) { _ in ready }
            #expect(found == record, "seed \(seed)")
        }
    }

    @Test func bytesAreThoseOfTheFormat() throws {
        #expect(try Compressor().envelope(for: []) == [0, 0])
        #expect(try Compressor().envelope(for: [9, 8]) == [0, 2, 9, 8])
        let zeros = [UInt8](repeating: 0, count: 300)
        let plain = try Compressor().envelope(for: zeros)
        // Kind, length 300 as LEB128, zstd's magic number, a frame header with a length and without checksum.
        #expect(Array(plain.prefix(8)) == [1, 0xac, 0x02, 0x28, 0xb5, 0x2f, 0xfd, 0x60])
        let dictionary = try CompressionDictionary(id: 0x0102_0304, bytes: Samples.record(1))
        let withDictionary = try Compressor().envelope(for: zeros, dictionary: dictionary)
        #expect(Array(withDictionary.prefix(12)) == [2, 0xac, 0x02, 4, 3, 2, 1, 0x28, 0xb5, 0x2f, 0xfd, 0x60])
        try withDictionary.withUnsafeBytes { bytes throws in
            let parsed = try Envelope(parsing: bytes)
            #expect(parsed.kind == .zstdWithDictionary)
            #expect(parsed.bodyBytes == 300)
            #expect(parsed.dictionaryID == 0x0102_0304)
            #expect(parsed.payload.count == withDictionary.count - 7)
        }
    }

    @Test func limitIsExact() throws {
        for text in [Samples.text(5000), Samples.random(5000)] {
            let envelope = try Compressor().envelope(for: text)
            #expect(try body(of: envelope, maxBytes: 5000) == text)
            #expect(code { _ = try body(of: envelope, maxBytes: 4999) } == .corruptValue)
        }
    }

    @Test(arguments: [0, 40, 300, 5000])
    func everyTruncationIsNoticed(size: Int) throws {
        let dictionary = try CompressionDictionary(id: 3, bytes: Samples.record(1))
        let ready = try DecompressionDictionary(id: 3, bytes: dictionary.bytes)
        let decompressor = try Decompressor()
        let compressor = try Compressor()
        for text in [Samples.text(size), Samples.random(size)] {
            for used in [nil, dictionary] {
                let envelope = try compressor.envelope(for: text, dictionary: used)
                for length in 0..<envelope.count {
                    let thrown = code {
                        _ = try decompressor.body(of: Array(envelope.prefix(length)), maxBytes: 1 << 20) { _ in ready }
                    }
                    #expect(thrown == .corruptValue, "\(length) of \(envelope.count) bytes")
                }
                let longer = code { _ = try decompressor.body(of: envelope + [0], maxBytes: 1 << 20) { _ in ready } }
                #expect(longer == .corruptValue)
                let twice = envelope + envelope.drop { $0 != 0x28 }
                let doubled = code { _ = try decompressor.body(of: twice, maxBytes: 1 << 20) { _ in ready } }
                #expect(twice.count == envelope.count || doubled == .corruptValue)
            }
        }
    }

    /// The frame has no checksum, so a flip can give wrong bytes, but never others than were declared, and no crash.
    @Test(arguments: 0..<4 as Range<UInt64>)
    func flippedBitsNeverCrash(seed: UInt64) throws {
        let dictionary = try CompressionDictionary(id: 3, bytes: Samples.record(1))
        let ready = try DecompressionDictionary(id: 3, bytes: dictionary.bytes)
        let decompressor = try Decompressor()
        let text = seed < 2 ? Samples.record(seed) : Samples.text(3000, seed: seed)
        let envelope = try Compressor().envelope(for: text, dictionary: seed % 2 == 0 ? nil : dictionary)
        var refused = 0
        for bit in 0..<envelope.count * 8 {
            var damaged = envelope
            damaged[bit / 8] ^= 1 << (bit % 8)
            do throws(StalkError) {
                let found = try decompressor.body(of: damaged, maxBytes: 8192) { id throws(StalkError) in
                    guard id == 3 else { throw StalkError(.corruptValue, "no dictionary \(id)") }
                    return ready
                }
                #expect(found.count == text.count || damaged[0] != envelope[0])
            } catch {
                #expect(error.code == .corruptValue)
                refused += 1
            }
        }
        #expect(refused > envelope.count)
        // The decompressor is as good as new.
        #expect(try decompressor.body(of: envelope, maxBytes: 8192) { _ in ready } == text)
    }

    @Test func arbitraryBytesNeverCrash() throws {
        let decompressor = try Decompressor()
        var generator = SeededGenerator(seed: 5)
        let ready = try DecompressionDictionary(id: 3, bytes: Samples.record(1))
        for round in 0..<3000 as Range<UInt64> {
            var bytes = Samples.random(Int.random(in: 0..<60, using: &generator), seed: round)
            if bytes.count > 8, round % 2 == 0 {
                bytes.replaceSubrange(
                    0..<6,
                    with: [1, UInt8.random(in: 0..<128, using: &generator), 0x28, 0xb5, 0x2f, 0xfd]
                )
            } else if !bytes.isEmpty {
                bytes[0] %= 4
            }
            let found = try? decompressor.body(of: bytes, maxBytes: 1000) { _ in ready }
            #expect((found?.count ?? 0) <= 1000)
        }
    }

    @Test func lengthsHaveOneForm() {
        for header: [UInt8] in [
            [0, 0x80], [0, 0x80, 0x00], [0, 0x81, 0x80, 0x00], [0, 0xff, 0xff, 0xff, 0xff, 0x10],
            [0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], [3, 0], [255], [],
        ] {
            #expect(code { _ = try body(of: header, maxBytes: .max) } == .corruptValue, "\(header)")
        }
        // The greatest one is read, and then found wanting.
        #expect(code { _ = try body(of: [0, 0xff, 0xff, 0xff, 0xff, 0x0f], maxBytes: .max) } == .corruptValue)
    }
}
