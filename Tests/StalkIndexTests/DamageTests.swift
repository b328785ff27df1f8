import Glibc
import StalkCore
import StalkIndex
import StalkTesting
import Testing

@Suite struct DamageTests {
    let directory = TemporaryDirectory()

    /// What reading all of a store gave: every value is right, or its damage was noticed.
    private func readAll(count: Int, valueBytes: Int) -> (right: Int, corrupt: Int, refused: StalkError.Code?) {
        var right = 0
        var corrupt = 0
        let refused = code {
            let environment = try self.directory.environment(createIfMissing: false)
            let table = environment.table("messages")
            try environment.read { transaction throws(StalkError) in
                try transaction.scan(table) { found, value in
                    let index = found.reduce(0) { $0 << 8 | Int($1) }
                    #expect(
                        Array(found) == key(index) && Array(value) == StalkIndexTests.value(index, count: valueBytes)
                    )
                    right += 1
                    return .next
                } onCorrupt: { _, _ in
                    corrupt += 1
                    return .next
                }
                for index in 0..<count {
                    do throws(StalkError) {
                        let found = try transaction.get(table, key(index))
                        #expect(found == StalkIndexTests.value(index, count: valueBytes))
                    } catch {
                        #expect(error.code == .corruptValue)
                        #expect(error.message.contains("messages"))
                    }
                }
            }
        }
        return (right, corrupt, refused)
    }

    /// Only bytes of values and checksums are hit: a damaged page of LMDB itself can crash the process.
    @Test(arguments: [40, 300, 9000])
    func everyFlippedBitOfAValueIsNoticed(valueBytes: Int) throws {
        let count = 60
        try self.directory.fill(count: count, valueBytes: valueBytes)
        let bytes = try readFile(self.directory.dataFile)
        var generator = SeededGenerator(seed: UInt64(valueBytes))
        for index in 0..<count {
            let position = Int.random(in: 0..<valueBytes + 4, using: &generator)
            let bit = UInt8.random(in: 0..<8, using: &generator)
            var damaged = bytes
            for start in offsets(of: value(index, count: valueBytes), in: bytes) {
                damaged[start + position] ^= 1 << bit
            }
            try writeFile(self.directory.dataFile, damaged)
            let outcome = self.readAll(count: count, valueBytes: valueBytes)
            #expect(outcome.refused == nil)
            #expect(outcome.right == count - 1 && outcome.corrupt == 1)
        }
    }

    @Test func corruptValueNamesTableAndKey() throws {
        try self.directory.fill(count: 3)
        var bytes = try readFile(self.directory.dataFile)
        for start in offsets(of: value(1, count: 300), in: bytes) { bytes[start + 7] ^= 1 }
        try writeFile(self.directory.dataFile, bytes)
        let environment = try self.directory.environment()
        let table = environment.table("messages")
        let error = #expect(throws: StalkError.self) {
            try environment.read { transaction throws(StalkError) in _ = try transaction.get(table, key(1)) }
        }
        #expect(error?.code == .corruptValue)
        #expect(error?.message.contains("messages") == true)
        #expect(error?.message.contains("0000000000000001") == true)
        // A scan that says nothing of corrupt values ends there.
        var seen = 0
        let thrown = code {
            try environment.read { transaction throws(StalkError) in
                try transaction.scan(table) { _, _ in
                    seen += 1
                    return .next
                }
            }
        }
        #expect(thrown == .corruptValue && seen == 1)
        // It can be set aside, and replaced.
        try environment.write { transaction throws(StalkError) in
            #expect(try transaction.delete(table, key(1)))
            #expect(try transaction.get(table, key(1)) == nil)
        }
    }

    @Test func valueUnderAnotherKeyOrTableIsNoticed() throws {
        let environment = try self.directory.environment()
        try environment.write { transaction throws(StalkError) in
            try transaction.put(environment.table("messages"), Array("key-A".utf8), value(1, count: 100))
        }
        environment.close()
        var bytes = try readFile(self.directory.dataFile)
        let start = try #require(offsets(of: Array("key-A".utf8), in: bytes).first)
        bytes[start + 4] = UInt8(ascii: "B")
        try writeFile(self.directory.dataFile, bytes)
        let reopened = try self.directory.environment()
        let thrown = code {
            try reopened.read { transaction throws(StalkError) in
                _ = try transaction.get(reopened.table("messages"), Array("key-B".utf8))
            }
        }
        #expect(thrown == .corruptValue)
        reopened.close()
        // The table's name, where LMDB's main table has it: what "messages" wrote is now in "massages".
        bytes[start + 4] = UInt8(ascii: "A")
        for name in offsets(of: Array("messages".utf8), in: bytes) { bytes[name + 1] = UInt8(ascii: "a") }
        try writeFile(self.directory.dataFile, bytes)
        let renamed = try self.directory.environment(["massages"], createIfMissing: false)
        let found = code {
            try renamed.read { transaction throws(StalkError) in
                _ = try transaction.get(renamed.table("massages"), Array("key-A".utf8))
            }
        }
        #expect(found == .corruptValue)
    }

    /// Without the check before the map, reading behind the end kills the process by SIGBUS.
    @Test func truncatedFileIsRefusedAtEveryLength() throws {
        try self.directory.fill(count: 100, valueBytes: 300)
        let bytes = try readFile(self.directory.dataFile)
        let pages = stride(from: 4096, to: bytes.count, by: 4096)
        let edges = pages.flatMap { [$0 - 1, $0, $0 + 1] } + Array(stride(from: 1, to: 8192, by: 61))
        for length in edges where length < bytes.count {
            try writeFile(self.directory.dataFile, bytes[..<length])
            let outcome = self.readAll(count: 100, valueBytes: 300)
            #expect(outcome.refused == .storeDamaged, "at \(length) of \(bytes.count) bytes")
            #expect(outcome.right == 0)
            // Nothing was changed, with leave to create neither.
            #expect(code { _ = try self.directory.environment() } == .storeDamaged, "at \(length) bytes")
            #expect(try readFile(self.directory.dataFile) == Array(bytes[..<length]))
        }
        try writeFile(self.directory.dataFile, [UInt8]())
        #expect(self.readAll(count: 100, valueBytes: 300).refused == .storeDamaged)
        try writeFile(self.directory.dataFile, bytes)
        #expect(self.readAll(count: 100, valueBytes: 300).right == 100)
    }

    @Test func refusalNamesFileAndSizes() throws {
        try self.directory.fill()
        let bytes = try readFile(self.directory.dataFile)
        try writeFile(self.directory.dataFile, bytes.dropLast(4096))
        let error = #expect(throws: StalkError.self) { _ = try self.directory.environment() }
        #expect(error?.message.contains(self.directory.dataFile) == true)
        #expect(error?.message.contains("\(bytes.count - 4096)") == true)
        #expect(error?.message.contains("\(bytes.count)") == true)
    }

    /// LMDB does not write the pages at the end that a transaction took and gave back.
    @Test func fileThatLacksOnlyFreePagesIsSound() throws {
        try self.directory.fill(count: 20)
        let environment = try self.directory.environment()
        let table = environment.table("messages")
        // It keeps them for itself only once the list of free pages has something on it.
        for _ in 0..<3 {
            try environment.write { transaction throws(StalkError) in
                for index in 20..<30 { try transaction.put(table, key(index), value(index, count: 40_000)) }
                for index in 20..<30 { try transaction.delete(table, key(index)) }
                for index in 20..<60 { try transaction.put(table, key(index), value(index, count: 20_000)) }
                for index in 20..<60 { try transaction.delete(table, key(index)) }
            }
        }
        let statistics = try environment.statistics()
        #expect(statistics.fileBytes < statistics.usedBytes)
        environment.close()
        let bytes = try readFile(self.directory.dataFile)
        let whole = self.readAll(count: 20, valueBytes: 300)
        #expect(whole.refused == nil && whole.right == 20)
        // The list of free pages must not excuse one that is in use.
        for missing in [1, 4095, 4096, 8192] {
            try writeFile(self.directory.dataFile, bytes.dropLast(missing))
            #expect(self.readAll(count: 20, valueBytes: 300).refused == .storeDamaged)
        }
    }

    @Test func lengthThatIsNoWholeNumberOfPagesIsSound() throws {
        try self.directory.fill()
        let bytes = try readFile(self.directory.dataFile)
        try writeFile(self.directory.dataFile, bytes + [UInt8](repeating: 9, count: 1000))
        #expect(self.readAll(count: 200, valueBytes: 300).right == 200)
    }

    @Test func flippedBitsOfTheMetaPagesNeverCrash() throws {
        try self.directory.fill(count: 20)
        let bytes = try readFile(self.directory.dataFile)
        // Flags, magic number, version, page size, roots and last page as far as they lead out of the file.
        for offset in [10, 16, 17, 20, 40, 41, 42, 82, 87, 130, 135, 137, 139, 143] {
            for page in [0, 4096] {
                for bit in 0..<8 {
                    var damaged = bytes
                    damaged[page + offset] ^= 1 << bit
                    try writeFile(self.directory.dataFile, damaged)
                    let isOld = try newestMetaPage(bytes) != page
                    let outcome = self.readAll(count: 20, valueBytes: 300)
                    let expected: [StalkError.Code?] = [.storeDamaged, .newerFormat] + (isOld ? [nil] : [])
                    #expect(expected.contains(outcome.refused), "bit \(bit) of byte \(page + offset)")
                }
            }
        }
    }

    /// LMDB gives a meta page that it could not write its old number back, but not its old roots.
    @Test func rootsOfAFailedCommitInTheOlderMetaPageAreHarmless() throws {
        try self.directory.fill(count: 20)
        let bytes = try readFile(self.directory.dataFile)
        let newest = try newestMetaPage(bytes)
        for root in [80, 128] {
            for page in [0, 4096] {
                var changed = bytes
                changed[page + root + 2] ^= 1
                try writeFile(self.directory.dataFile, changed)
                let outcome = self.readAll(count: 20, valueBytes: 300)
                #expect(outcome.refused == (page == newest ? .storeDamaged : nil), "byte \(page + root + 2)")
                #expect(outcome.right == (page == newest ? 0 : 20))
            }
        }
    }

    @Test(arguments: [0, 512, 4096, 8192])
    func zerosOfAnUnfinishedCreationAreTakenOver(length: Int) throws {
        try writeFile(self.directory.dataFile, [UInt8](repeating: 0, count: length))
        #expect(code { _ = try self.directory.environment(createIfMissing: false) } == .storeDamaged)
        #expect(code { _ = try self.directory.environment() } == nil)
        #expect(code { _ = try self.directory.environment(createIfMissing: false) } == nil)
    }

    @Test func zeroedMetaPagesOfAStoreAreRefused() throws {
        try self.directory.fill()
        var bytes = try readFile(self.directory.dataFile)
        bytes.replaceSubrange(0..<8192, with: [UInt8](repeating: 0, count: 8192))
        try writeFile(self.directory.dataFile, bytes)
        #expect(code { _ = try self.directory.environment() } == .storeDamaged)
    }

    @Test func foreignFileIsRefused() throws {
        try writeFile(self.directory.dataFile, Array("#!/bin/sh\necho hello\n".utf8))
        #expect(code { _ = try self.directory.environment() } == .storeDamaged)
        try writeFile(self.directory.dataFile, (0..<20_000).map { UInt8($0 & 255) })
        #expect(code { _ = try self.directory.environment() } == .storeDamaged)
    }

    private func newestMetaPage(_ bytes: [UInt8]) throws -> Int {
        let transactions = [0, 4096].map { page in
            (0..<8).reversed().reduce(0) { $0 << 8 | Int(bytes[page + 144 + $1]) }
        }
        return transactions[0] > transactions[1] ? 0 : 4096
    }
}

/// Where `pattern`, of at least one byte, begins in `bytes`: LMDB leaves old copies in the free room of pages.
func offsets(of pattern: [UInt8], in bytes: [UInt8]) -> [Int] {
    bytes.withUnsafeBytes { bytes in
        var offsets: [Int] = []
        var position = 0
        while let start = bytes.baseAddress, position + pattern.count <= bytes.count {
            let rest = bytes.count - position - pattern.count + 1
            guard let found = memchr(start + position, CInt(pattern[0]), rest) else { break }
            position = UnsafeRawPointer(found) - start
            if memcmp(found, pattern, pattern.count) == 0 { offsets.append(position) }
            position += 1
        }
        return offsets
    }
}
