import Foundation
import Stalk
import Testing

/// A reader of the log that was made from docs/format.md alone, so that the page can't differ from what is written.
@Suite(.timeLimit(.minutes(10))) struct FormatTests {
    @Test func exampleIsAsItsTableSays() throws {
        let bytes = try Repository.firstBlock("hex", of: "docs/format.md")
            .flatMap { $0.split(separator: " ") }
            .map { try #require(UInt8($0, radix: 16)) }
        let frame = try #require(DocumentedFrame(bytes, at: 0))
        #expect(frame.bytes.count == 135)
        #expect(frame.isIntact)
        #expect(frame.segment == 1 && frame.sequence == 2 && frame.syncedThrough == 1)
        #expect(frame.storeTime == 1_700_000_000_000 && frame.store == 0x5eed_5eed_5eed_5eed)
        let records = try frame.records()
        try #require(records.map(\.kind) == [2, 3])
        #expect(records[0].bytes.number(at: 1, UInt32.self) == 1)
        #expect(records[0].bytes.text(at: 5) == "mail")
        let publish = try DocumentedPublish(records[1])
        #expect(publish.flags == 0 && publish.priority == 0 && publish.queue == 1 && publish.message == 1)
        #expect(publish.publishedAt == 1_700_000_000_000 && publish.dueAt == 1_700_000_000_000)
        #expect(publish.headers == ["Lang=en"] && publish.extensions.isEmpty && publish.body == "hello")
    }

    @Test func logOfStoreIsAsPageSays() async throws {
        try await withTemporaryDirectory { directory in
            let receipt = try await Self.fillStore(at: directory)
            let store = try #require(receipt.split(separator: "-").dropFirst().first)
            let marker = try String(contentsOfFile: directory + "/STALK", encoding: .utf8)
            #expect(marker == "stalk store\nformat 1\nstore \(store)\n")

            let frames = try Self.frames(inSegmentAt: directory + "/log/0000000000000002.log")
            #expect(frames.map(\.sequence) == frames.indices.map { UInt64($0 + 1) })
            for frame in frames {
                #expect(frame.isIntact && frame.segment == 2 && frame.store == UInt64(store, radix: 16))
                #expect(frame.syncedThrough == frame.sequence - 1, "each call waited for the disk")
            }
            let records = try frames.flatMap { try $0.records() }
            try #require(records.map(\.kind) == [1, 2, 3, 3, 4, 7, 4, 6, 4, 8, 9, 4, 5, 10, 2, 10, 5])
            try Self.checkContents(of: records)
        }
    }

    /// What a process publishes that does not own the store is written with the call that it belongs to.
    @Test func logOfSharedStoreIsAsPageSays() async throws {
        try await withTemporaryDirectory { directory in
            let owner = try await LocalStore.open(at: directory)
            let client = try await LocalStore.open(at: directory)
            let lock = try String(contentsOfFile: directory + "/lock", encoding: .utf8)
            #expect(lock == "\(ProcessInfo.processInfo.processIdentifier)\nsharing\n")
            for (name, mode) in ["": 0o700, "/socket": 0o600, "/clients-1": 0o600] {
                let attributes = try FileManager.default.attributesOfItem(atPath: "\(directory)/sharing\(name)")
                #expect(attributes[.posixPermissions] as? Int == mode, "sharing\(name)")
            }

            let large = Message([UInt8](repeating: 0, count: 2 << 20))
            let published = [Message("one"), large, Message("two"), Message("three")]
            let results = try await client.queue("numbers").publish(published)
            #expect(results.map { (try? $0.get()) != nil } == [true, false, true, true])
            try await client.queue("numbers").publish(Message("four"))
            try await owner.queue("numbers").publish(Message("five"))
            try await client.close()
            try await owner.close()

            let frames = try Self.frames(inSegmentAt: directory + "/log/0000000000000002.log")
            #expect(frames.allSatisfy { $0.isIntact })
            let records = try frames.flatMap { try $0.records() }
            try #require(records.map(\.kind) == [1, 2, 3, 11, 3, 3, 11, 3, 11, 3])
            let calls = records.filter { $0.kind == 11 }.map(\.bytes)
            #expect(calls.allSatisfy { $0.count == 41 } && Set(calls.map { $0.number(at: 1, UInt64.self) }).count == 1)
            #expect(calls.map { $0.number(at: 25, UInt32.self) } == [0, 2, 0], "positions")
            #expect(calls.map { $0.number(at: 29, UInt64.self) } == [1, 2, 4], "first messages")
            #expect(calls.map { $0.number(at: 37, UInt32.self) } == [1, 2, 1], "counts")
            let numbers = calls.map { $0.number(at: 9, UInt64.self) }
            #expect(numbers[0] == numbers[1] && numbers[1] < numbers[2])
            #expect(calls[2].number(at: 17, UInt64.self) > numbers[0], "the answer of the first call was there")
        }
    }

    /// Makes a store with records of every kind; returns a receipt.
    private static func fillStore(at path: String) async throws -> String {
        let store = try await LocalStore.open(at: path)
        let queue = try store.queue("numbers")
        let headers: Headers = ["A": "1", "b.c": "zwei\nZeilen"]
        let published = [Message("one"), Message("two", headers: headers, delay: .seconds(3600))]
        let second = try #require(try await queue.publish(published).last).get()
        try await queue.wake()
        var receipt = ""
        for disposition in [.release, .retry(after: .zero, reason: "näher"), .deadLetter(reason: "broken")]
            as [Disposition]
        {
            let delivery = try #require(try await queue.take(TakeRequest()).first)
            try await queue.finish(delivery, disposition)
            receipt = delivery.receipt.description
        }
        #expect(try await store.redrive(queue.queue) == 1)
        try await queue.acknowledge(try #require(try await queue.take(TakeRequest()).first))
        #expect(try await store.kick(second))
        try await store.move(second, to: QueueName("others"))
        try await store.delete(second)
        try await store.close()
        return receipt
    }

    private static func frames(inSegmentAt path: String) throws -> [DocumentedFrame] {
        let log = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        #expect(log.count == 8 << 20)
        var frames: [DocumentedFrame] = []
        var offset = 0
        while let frame = DocumentedFrame(log, at: offset) {
            frames.append(frame)
            offset += (frame.bytes.count + 7) / 8 * 8
        }
        return frames
    }

    private static func checkContents(of records: [DocumentedRecord]) throws {
        #expect(records[0].bytes.number(at: 1, UInt32.self) == 1, "the first owner")
        #expect(records[0].bytes.text(at: 13).utf8.count == 36, "the boot's id")
        #expect(records[1].bytes.text(at: 5) == "numbers")

        let (one, two) = (try DocumentedPublish(records[2]), try DocumentedPublish(records[3]))
        #expect(one.message == 1 && one.flags == 0 && one.headers.isEmpty && one.body == "one")
        #expect(two.message == 2 && two.flags == 1 && two.headers == ["A=1", "b.c=zwei\nZeilen"] && two.body == "two")
        #expect((3_600_000...3_660_000).contains(two.dueAt - one.dueAt))

        for position in [4, 5, 6, 8, 11, 12] {
            #expect(records[position].bytes.count == 9 && records[position].bytes.number(at: 1, UInt64.self) == 1)
        }
        let retry = records[7].bytes
        #expect(retry.number(at: 1, UInt64.self) == 1 && retry.text(at: 25) == "näher")
        let dead = records[9].bytes
        #expect(dead.number(at: 1, UInt64.self) == 1 && dead.number(at: 25, UInt32.self) == 0)
        #expect(dead.text(at: 29) == "broken")
        let redrive = records[10].bytes
        #expect(redrive.count == 17 && redrive.number(at: 9, UInt64.self) == 1)
        #expect(redrive.number(at: 1, Int64.self) >= dead.number(at: 17, Int64.self))
        for (position, target) in [(13, 0), (15, 2)] as [(Int, UInt32)] {
            let move = records[position].bytes
            #expect(move.count == 21 && move.number(at: 9, UInt32.self) == target)
            #expect(move.number(at: 13, UInt64.self) == 2)
            #expect(move.number(at: 1, Int64.self) >= redrive.number(at: 1, Int64.self))
        }
        #expect(records[14].bytes.number(at: 1, UInt32.self) == 2 && records[14].bytes.text(at: 5) == "others")
        #expect(records[16].bytes.count == 9 && records[16].bytes.number(at: 1, UInt64.self) == 2)
    }
}

/// A frame by docs/format.md, "Frames".
private struct DocumentedFrame {
    let bytes: [UInt8]

    init?(_ log: [UInt8], at offset: Int) {
        guard log.count >= offset + 64, Array(log[offset..<offset + 4]) == [0x53, 0x54, 0x4B, 0x46] else { return nil }
        let end = offset + 64 + Int(log.number(at: offset + 4, UInt32.self))
        guard end <= log.count else { return nil }
        self.bytes = Array(log[offset..<end])
    }

    var isIntact: Bool {
        let covered = Array(self.bytes[..<8] + self.bytes[12...])
        return self.bytes.number(at: 8, UInt32.self) == crc32c(covered) && self.bytes.number(at: 12, UInt16.self) == 1
    }

    var segment: UInt64 { self.bytes.number(at: 16, UInt64.self) }
    var sequence: UInt64 { self.bytes.number(at: 24, UInt64.self) }
    var syncedThrough: UInt64 { self.bytes.number(at: 32, UInt64.self) }
    var storeTime: Int64 { self.bytes.number(at: 40, Int64.self) }
    var store: UInt64 { self.bytes.number(at: 48, UInt64.self) }

    func records() throws -> [DocumentedRecord] {
        var records: [DocumentedRecord] = []
        var offset = 64
        while offset < self.bytes.count {
            let end = offset + 4 + Int(self.bytes.number(at: offset, UInt32.self))
            try #require(end <= self.bytes.count && end > offset + 4)
            records.append(DocumentedRecord(bytes: Array(self.bytes[(offset + 4)..<end])))
            offset = end
        }
        return records
    }
}

/// A record by docs/format.md, "Records", from its kind byte on.
private struct DocumentedRecord {
    let bytes: [UInt8]

    var kind: UInt8 { self.bytes[0] }
}

/// A publish record by docs/format.md, "Publish".
private struct DocumentedPublish {
    let flags: UInt8
    let priority: UInt8
    let queue: UInt32
    let message: UInt64
    let publishedAt: Int64
    let dueAt: Int64
    /// Name and value of each, with an equals sign between them.
    let headers: [String]
    let extensions: [UInt8]
    let body: String

    init(_ record: DocumentedRecord) throws {
        let bytes = record.bytes
        try #require(record.kind == 3 && bytes.count >= 37)
        self.flags = bytes[1]
        self.priority = bytes[2]
        self.queue = bytes.number(at: 3, UInt32.self)
        self.message = bytes.number(at: 7, UInt64.self)
        self.publishedAt = bytes.number(at: 15, Int64.self)
        self.dueAt = bytes.number(at: 23, Int64.self)
        let headersEnd = 37 + Int(bytes.number(at: 31, UInt32.self))
        let extensionsEnd = headersEnd + Int(bytes.number(at: 35, UInt16.self))
        try #require(extensionsEnd <= bytes.count)
        var headers: [String] = []
        var offset = 37
        while offset < headersEnd {
            let nameEnd = offset + 6 + Int(bytes.number(at: offset, UInt16.self))
            let valueEnd = nameEnd + Int(bytes.number(at: offset + 2, UInt32.self))
            try #require(valueEnd <= headersEnd)
            headers.append(
                bytes.text(at: offset + 6, until: nameEnd) + "=" + bytes.text(at: nameEnd, until: valueEnd)
            )
            offset = valueEnd
        }
        self.headers = headers
        self.extensions = Array(bytes[headersEnd..<extensionsEnd])
        self.body = bytes.text(at: extensionsEnd)
    }
}

extension [UInt8] {
    fileprivate func number<Number: FixedWidthInteger>(at offset: Int, _: Number.Type) -> Number {
        self[offset..<offset + MemoryLayout<Number>.size].reversed().reduce(0) { $0 << 8 | Number($1) }
    }

    fileprivate func text(at start: Int, until end: Int? = nil) -> String {
        String(decoding: self[start..<(end ?? self.count)], as: UTF8.self)
    }
}

/// CRC-32C, a bit at a time.
private func crc32c(_ bytes: [UInt8]) -> UInt32 {
    var sum = UInt32.max
    for byte in bytes {
        sum ^= UInt32(byte)
        for _ in 0..<8 {
            let isOdd = sum & 1 == 1
            sum >>= 1
            if isOdd { sum ^= 0x82F6_3B78 }
        }
    }
    return ~sum
}
