import Foundation
import StalkCore
import StalkTesting
import Testing

@testable import StalkIndex
@testable import StalkLocal

/// LMDB has no checksums of its own; Stalk's must keep a flipped bit of data.mdb from coming out as a message.
@Suite(.timeLimit(.minutes(60))) struct IndexFlipTests {
    private static let count =
        ProcessInfo.processInfo.environment["STALK_INDEX_FLIPS"].flatMap { Int($0) } ?? 5000

    @Test func flippedBitsGiveNothingWrongAndVerifyFindsThem() async throws {
        let sample = try await SampleStore()
        defer { sample.remove() }
        let flips = IndexFlips(path: sample.path)
        let output = "\(sample.path)-flips"
        defer { unlink(output) }
        var next = 0
        while next < Self.count {
            await #expect(processExitsWith: .success) {
                [path = sample.path as String, output = output as String, next = next as Int, count = Self.count as Int]
                in
                try IndexFlips(path: path).tryAll(next..<count, writingTo: output)
            }
            let outcomes = try IndexFlips.outcomes(in: output)
            let last = try #require(outcomes.keys.max())
            if outcomes[last]?.outcome == .crashed {
                // The process ended before it could mend the bit. The line is not ended either.
                flips.flip(last)
                try FileHandle(forUpdating: URL(fileURLWithPath: output)).appendLineEnd()
            }
            try #require(last >= next, "the process ended at once")
            next = last + 1
        }
        let outcomes = try IndexFlips.outcomes(in: output)
        #expect(outcomes.count == Self.count)
        for (number, (outcome, what)) in outcomes.sorted(by: { $0.key < $1.key }) where outcome != .right {
            if outcome == .wrong { Issue.record("flip \(number) gave what was never put in: \(what)") }
            flips.flip(number)
            var isFound = await Self.isFound(sample.path)
            if !isFound, outcome == .older { isFound = try await Self.isWholeWithLog(sample) }
            flips.flip(number)
            #expect(isFound, "verify does not find flip \(number), which LMDB took as \(outcome)")
        }
        let figures = FlipOutcome.allCases.map { outcome in
            "\(outcomes.values.count { $0.outcome == outcome }) \(outcome.rawValue)"
        }
        print("\(Self.count) flipped bits of data.mdb: \(figures.joined(separator: ", "))")
        #expect(outcomes.values.allSatisfy { $0.outcome != .crashed }, "the process that serves must never crash")
        #expect(outcomes.values.contains { $0.outcome == .noticed })
        #expect(outcomes.values.contains { $0.outcome == .right })
        #expect(try await LocalStore.verify(at: sample.path).problems.isEmpty, "the bits were not mended")
    }

    private static func isFound(_ path: String) async -> Bool {
        do {
            return try await !LocalStore.verify(at: path).problems.isEmpty
        } catch {
            return true
        }
    }

    /// Whether a copy of a store opens with all of its messages.
    private static func isWholeWithLog(_ sample: SampleStore) async throws -> Bool {
        var copy = TemporaryStore()
        copy.options.clock = sample.temporary.clock
        defer { copy.remove() }
        try FileManager.default.copyItem(atPath: sample.path, toPath: copy.path)
        let store = try await copy.open()
        let contents = try await SampleStore.contents(of: store)
        try await store.close()
        return contents == sample.expected
    }

    /// LMDB chooses the newer of two meta pages by a number of theirs, and one bit of that can make the older one win.
    @Test func commitThatIsTakenBackIsReplayedOrNamed() async throws {
        for checkpoints in 1...12 {
            var temporary = TemporaryStore()
            // A directory is copied while it is open, and a socket can't be.
            temporary.options.sharing = .exclusive
            defer { temporary.remove() }
            let store = try await temporary.open()
            var published: Set<String> = []
            for checkpoint in 0..<checkpoints {
                // Enough that the log is used again from its beginning.
                let messages = (0..<50).map { Message("\(checkpoint) \($0) \(String(repeating: "x", count: 8000))") }
                try await store.queue("q").publish(messages)
                published.formUnion(messages.map { String(decoding: $0.body, as: UTF8.self) })
                try await store.checkpoint()
            }
            if checkpoints.isMultiple(of: 2) { try await store.close() } else { await store.abandon() }
            let path = "\(temporary.path)/index/data.mdb"
            let whole = try Data(contentsOf: URL(fileURLWithPath: path))
            for bit in 0..<64 {
                for page in [0, 4096] {
                    var data = whole
                    data[page + 144 + bit / 8] ^= 1 << UInt8(bit % 8)
                    try data.write(to: URL(fileURLWithPath: path))
                    let tables = try? SettledTables(readOnly: temporary.path)
                    tables?.index.close()
                    let isConsecutive = tables != nil
                    #expect(!isConsecutive || bit == 1, "bit \(bit) of page \(page)")
                    guard isConsecutive else { continue }
                    do {
                        let copy = TemporaryStore(clock: temporary.clock)
                        defer { copy.remove() }
                        try FileManager.default.copyItem(atPath: temporary.path, toPath: copy.path)
                        let reopened = try await copy.open()
                        let found = try await reopened.peek(QueueName("q"), state: .ready, max: .max).map(\.body)
                        #expect(Set(found.map { String(decoding: $0, as: UTF8.self) }) == published)
                        try await reopened.close()
                    } catch let error as StalkError {
                        #expect(error.code == .storeDamaged, "\(error)")
                    }
                }
            }
        }
    }

    /// The same reading, with checksums that fit the damage: as if nobody looked at them.
    @Test func withoutChecksumsDamageWouldComeOut() async throws {
        let sample = try await SampleStore()
        defer { sample.remove() }
        let sound = try IndexContents.read(sample.path)
        let path = "\(sample.path)/index/data.mdb"
        let whole = Array(try Data(contentsOf: URL(fileURLWithPath: path)))
        for (index, text) in ["dead settled 3", "moved settled 7", "retried settled 11"].enumerated() {
            var bytes = whole
            try Self.flip(text, bit: 8 * index + 3, resums: false, in: &bytes)
            try Data(bytes).write(to: URL(fileURLWithPath: path))
            #expect(try IndexContents.read(sample.path, known: sound).outcome(comparedTo: sound) == .noticed)
            bytes = whole
            try Self.flip(text, bit: 8 * index + 3, resums: true, in: &bytes)
            try Data(bytes).write(to: URL(fileURLWithPath: path))
            #expect(try IndexContents.read(sample.path, known: sound).outcome(comparedTo: sound) == .wrong)
        }
    }

    /// Flips a bit of a body wherever LMDB has its record, which begins 30 bytes before: see docs/format.md, "Tables".
    private static func flip(_ text: String, bit: Int, resums: Bool, in bytes: inout [UInt8]) throws {
        let pattern = Array(text.utf8)
        var offset = 0
        var found = 0
        while let start = bytes[offset...].firstRange(of: pattern)?.lowerBound {
            offset = start + pattern.count
            // The length of the body stands before it, so that no longer text is meant.
            guard bytes[start - 1] == UInt8(pattern.count), bytes[start - 2] == 0 else { continue }
            found += 1
            bytes[start + bit / 8] ^= 1 << UInt8(bit % 8)
            guard resums else { continue }
            let sum = bytes.withUnsafeBytes { buffer in
                Table(name: "messages").checksum(
                    UnsafeRawBufferPointer(rebasing: buffer[start - 38..<start - 30]),
                    UnsafeRawBufferPointer(rebasing: buffer[start - 30..<offset])
                )
            }
            withUnsafeBytes(of: sum.littleEndian) { bytes.replaceSubrange(offset..<offset + 4, with: $0) }
        }
        try #require(found > 0)
    }

    @Test func cutFileIsRefusedAtEverySector() async throws {
        let sample = try await SampleStore()
        defer { sample.remove() }
        let path = "\(sample.path)/index/data.mdb"
        let whole = try Data(contentsOf: URL(fileURLWithPath: path))
        // What is cut off last may be pages that nothing uses: then all must still be there.
        let sound = try IndexContents.read(sample.path)
        var refused = 0
        for size in stride(from: 0, to: whole.count, by: 512) {
            try whole.prefix(size).write(to: URL(fileURLWithPath: path))
            do throws(StalkError) {
                let contents = try IndexContents.read(sample.path, known: sound)
                #expect(contents.outcome(comparedTo: sound) == .right, "at \(size) of \(whole.count) bytes")
            } catch {
                #expect([.storeDamaged, .notAStore, .noSuchStore].contains(error.code), "at \(size): \(error)")
                refused += 1
            }
        }
        #expect(refused > whole.count / 512 / 2)
    }
}

extension FileHandle {
    fileprivate func appendLineEnd() throws {
        try self.seekToEnd()
        try self.write(contentsOf: Data(" crashed\n".utf8))
        try self.close()
    }
}
