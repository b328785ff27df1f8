import StalkCore
import StalkLog
import StalkTesting
import Testing

@Suite struct LogRecordTests {
    @Test("Every kind of record comes back as it was written", arguments: 0..<50 as Range<UInt64>)
    func roundTrip(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let records = LogRecord.randomOfEachKind(using: &generator)
        var writer = ByteWriter()
        for record in records { record.write(to: &writer) }
        let decoded = try writer.bytes.withUnsafeBytes { buffer in
            var reader = ByteReader(buffer)
            var decoded: [LogRecord] = []
            while reader.remaining > 0 { decoded.append(try LogRecord(reading: &reader)) }
            return decoded
        }
        #expect(decoded == records)
    }

    @Test("The bound of a publish record's size holds", arguments: 0..<50 as Range<UInt64>)
    func publishSize(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        var record = PublishRecord.random(using: &generator)
        record.extensions = []
        let bound = PublishRecord.encodedBytes(headers: record.headers, bodyBytes: record.body.count)
        #expect(LogRecord.publish(record).encoded.count <= bound)
    }

    @Test("A record that was cut off is malformed, at every length", arguments: 0..<10 as Range<UInt64>)
    func truncation(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for record in LogRecord.randomOfEachKind(using: &generator) {
            let bytes = record.encoded
            for count in 0..<bytes.count {
                #expect(LogRecord.decode(Array(bytes.prefix(count))) == .failure(.malformed))
            }
        }
    }

    @Test("A record with a shorter length is another record or none", arguments: 0..<10 as Range<UInt64>)
    func shorterLength(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for record in LogRecord.randomOfEachKind(using: &generator) {
            for count in 4..<record.encoded.count {
                var bytes = Array(record.encoded.prefix(count))
                withUnsafeBytes(of: UInt32(count - 4).littleEndian) { bytes.replaceSubrange(0..<4, with: $0) }
                #expect(LogRecord.decode(bytes) != .success(record))
            }
        }
    }

    @Test("A record with any bit flipped is another record or none", arguments: 0..<4 as Range<UInt64>)
    func bitFlips(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for record in LogRecord.randomOfEachKind(using: &generator) {
            var bytes = record.encoded
            for bit in 0..<bytes.count * 8 {
                bytes[bit / 8] ^= 1 << UInt8(bit % 8)
                // Checked by hand: an expectation for each of 100,000 flips takes its time.
                if LogRecord.decode(bytes) == .success(record) {
                    Issue.record("bit \(bit) of \(record) has no meaning")
                }
                bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            }
        }
    }

    @Test("Random bytes are a record that can be written again, or none", arguments: 0..<4 as Range<UInt64>)
    func randomBytes(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var records = 0
        for _ in 0..<2000 {
            var bytes = (0..<4 + generator.below(100)).map { _ in UInt8(generator.below(256)) }
            withUnsafeBytes(of: UInt32(bytes.count - 4).littleEndian) { bytes.replaceSubrange(0..<4, with: $0) }
            if bytes.count > 4 { bytes[4] = UInt8(generator.below(10)) }
            guard case .success(let record) = LogRecord.decode(bytes) else { continue }
            #expect(LogRecord.decode(record.encoded) == .success(record))
            records += 1
        }
        #expect(records > 100)
    }

    @Test("A kind that this version does not know is named")
    func unknownKinds() {
        for kind in UInt8.min...UInt8.max where !(1...11).contains(kind) {
            let bytes: [UInt8] = [9, 0, 0, 0, kind, 1, 2, 3, 4, 5, 6, 7, 8]
            #expect(LogRecord.decode(bytes) == .failure(.unknown(kind: kind, flags: 0)))
        }
    }

    @Test("Flags that this version does not know are named")
    func unknownFlags() {
        var generator = SeededGenerator(seed: 1)
        let record = PublishRecord.random(using: &generator)
        var bytes = LogRecord.publish(record).encoded
        for flags in UInt8.min...UInt8.max {
            bytes[5] = flags
            let decoded = LogRecord.decode(bytes)
            if flags > 1 {
                #expect(decoded == .failure(.unknown(kind: 3, flags: flags)))
            } else {
                #expect(throws: Never.self) { try decoded.get() }
            }
        }
    }

    @Test("A frame whose records can't be read is damage, and one of a newer version is refused as such")
    func framesOfUnreadableRecords() throws {
        let place = LogPlace(segment: 5, offset: 64)
        let header = FrameHeader(payloadBytes: 0, segment: 5, sequence: 1, syncedThrough: 0, storeTime: 0, store: 1)
        let take = LogRecord.take([1, 2]).encoded
        for (payload, code): ([UInt8], StalkError.Code) in [
            (take + [1], .storeDamaged), (take + [2, 0, 0, 0, 4, 4], .storeDamaged),
            (take + [1, 0, 0, 0, 77], .newerFormat),
        ] {
            var records: [LogRecord] = []
            let error = #expect(throws: StalkError.self) {
                try Frame(header: header, payload: payload, place: place).forEachRecord { records.append($0) }
            }
            #expect(error?.code == code)
            #expect(error?.message.contains("0000000000000005.log at byte 64") == true)
            #expect(records == [.take([1, 2])])
        }
    }
}
