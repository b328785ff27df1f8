import StalkCore
import StalkIndex
import Testing

@Suite struct KeyCodingTests {
    @Test func partsComeBack() throws {
        var builder = KeyBuilder()
        builder.append(9 as UInt8)
        builder.reset()
        builder.append(7 as UInt8)
        builder.append(0x0102_0304 as UInt32)
        builder.append(UInt64.max - 1)
        builder.append(-5 as Int64)
        builder.append([1, 2])
        #expect(builder.bytes.prefix(5) == [7, 1, 2, 3, 4])
        try builder.bytes.withUnsafeBytes { bytes throws in
            var reader = KeyReader(bytes)
            #expect(try reader.readUInt8() == 7)
            #expect(try reader.readUInt32() == 0x0102_0304)
            #expect(try reader.readUInt64() == UInt64.max - 1)
            #expect(try reader.readInt64() == -5)
            #expect(Array(reader.rest) == [1, 2])
            #expect(code { _ = try reader.readUInt32() } == .storeDamaged)
            #expect(try reader.readUInt8() == 1)
        }
    }

    @Test func orderOfKeysIsOrderOfNumbers() {
        let numbers: [Int64] = [.min, .min + 1, -256, -255, -1, 0, 1, 255, 256, 1 << 40, .max]
        let keys = numbers.map { number in
            var builder = KeyBuilder()
            builder.append(number)
            return builder.bytes
        }
        for (left, right) in zip(keys, keys.dropFirst()) { #expect(left.lexicographicallyPrecedes(right)) }
    }
}
