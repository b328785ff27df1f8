import Glibc
import StalkCore
import StalkTesting
import Testing

@testable import StalkIndex

/// Whatever is damaged in a large data.mdb and whatever is done, the process lives, and what it reads is right.
///
/// Most files here are small, but opened as large ones are.
@Suite struct PageGuardTests {
    /// What a process does with a damaged file, and how often it was refused.
    private static func attack(_ index: GuardedIndex, _ damage: [Int], checkedAtOnce: Int) throws {
        var outcomes: [StalkError.Code?: Int] = [:]
        for number in damage {
            let sound = try readFile(index.path + "/data.mdb")
            try writeFile(index.path + "/data.mdb", index.damaged(sound, by: number))
            for outcome in try index.use(seed: UInt64(number), checkedAtOnce: checkedAtOnce) {
                outcomes[outcome, default: 0] += 1
            }
            try writeFile(index.path + "/data.mdb", sound)
        }
        let expected: [StalkError.Code?] = [nil, .storeDamaged, .corruptValue, .newerFormat]
        #expect(outcomes.keys.allSatisfy { expected.contains($0) }, "\(outcomes)")
        #expect(outcomes[.storeDamaged] ?? 0 > 0 && outcomes[nil] ?? 0 > 0, "\(outcomes)")
    }

    @Test(arguments: GuardedIndex.Kind.allCases)
    func damageNeverEndsTheProcess(kind: GuardedIndex.Kind) async throws {
        let directory = TemporaryDirectory()
        defer { directory.remove() }
        let index = GuardedIndex(path: directory.path, kind: kind)
        try index.fill()
        await #expect(processExitsWith: .success) { [index = index as GuardedIndex] in
            try Self.attack(index, Array(0..<index.kind.count), checkedAtOnce: 0)
        }
    }

    /// The control: the same damage and the same use, when nobody looks.
    @Test(arguments: [GuardedIndex.Kind.garbage, .flips])
    func withoutGuardDamageEndsTheProcess(kind: GuardedIndex.Kind) async throws {
        let directory = TemporaryDirectory()
        defer { directory.remove() }
        let index = GuardedIndex(path: directory.path, kind: kind)
        try index.fill()
        await #expect(processExitsWith: .failure) { [index = index as GuardedIndex] in
            for number in 0..<index.kind.count {
                let sound = try readFile(index.path + "/data.mdb")
                try writeFile(index.path + "/data.mdb", index.damaged(sound, by: number))
                _ = try? index.use(seed: UInt64(number), checkedAtOnce: nil)
                try writeFile(index.path + "/data.mdb", sound)
            }
            _exit(0)
        }
    }

    @Test func soundFileIsUsedWithoutComplaint() throws {
        for kind in GuardedIndex.Kind.allCases {
            let directory = TemporaryDirectory()
            let index = GuardedIndex(path: directory.path, kind: kind)
            try index.fill()
            let sound = try readFile(directory.dataFile)
            for seed in 0..<8 as Range<UInt64> {
                let outcomes = try index.use(seed: seed, checkedAtOnce: 0, isSound: true)
                #expect(outcomes.count > 5 && outcomes.allSatisfy { $0 == nil }, "seed \(seed): \(outcomes)")
                #expect(try PageFile(directory: directory.path).isSound)
                try writeFile(directory.dataFile, sound)
            }
        }
    }
}

/// A file of which trees have many levels, since its keys are long.
struct GuardedIndex: Codable {
    /// What is damaged: leaves as a whole, or single bits of anything.
    enum Kind: String, Codable, CaseIterable {
        case garbage
        case flips

        /// How many times: STALK_INDEX_FLIPS asks for more bits.
        var count: Int {
            self == .garbage ? 20 : getenv("STALK_INDEX_FLIPS").flatMap { Int(String(cString: $0)) } ?? 200
        }
    }

    static let rows = 3000

    let path: String
    let kind: Kind

    static func key(_ index: Int) -> [UInt8] {
        StalkIndexTests.key(index) + [UInt8](repeating: 0x61, count: 350 + index % 40)
    }

    static func value(_ index: Int) -> [UInt8] {
        StalkIndexTests.value(index, count: index % 50 == 7 ? 5000 : index % 300)
    }

    private func open(checkedAtOnce: Int?) throws(StalkError) -> Environment {
        try Environment(
            path: self.path,
            mapBytes: 1 << 20,
            tables: ["messages", "ready"],
            createIfMissing: false,
            checkedAtOnce: checkedAtOnce
        )
    }

    func fill() throws {
        let environment = try Environment(
            path: self.path,
            mapBytes: 16 << 20,
            tables: ["messages", "ready"],
            createIfMissing: true
        )
        for table in [environment.table("messages"), environment.table("ready")] {
            try environment.write { transaction throws(StalkError) in
                for index in 0..<Self.rows { try transaction.put(table, Self.key(index), Self.value(index)) }
            }
            // Some pages are to be free.
            try environment.write { transaction throws(StalkError) in
                _ = try transaction.deleteRange(table, from: Self.key(1000), upTo: Self.key(1200))
            }
        }
        environment.close()
    }

    /// The file with damage of its kind.
    func damaged(_ sound: [UInt8], by number: Int) throws -> [UInt8] {
        var bytes = sound
        var generator = SeededGenerator(seed: UInt64(number))
        switch self.kind {
        case .flips:
            // The beginnings of pages are what LMDB goes by.
            let page = Int.random(in: 0..<bytes.count / 4096, using: &generator) * 4096
            let offset = Int.random(in: 0..<[16, 64, 4096][number % 3], using: &generator)
            bytes[page + offset] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
        case .garbage:
            let leaves = stride(from: 8192, to: bytes.count, by: 4096).filter { page in
                bytes[page + 10] == 0x02 && littleEndian(UInt64.self, in: bytes, at: page) == page / 4096
            }
            for _ in 0..<3 {
                let page = try #require(leaves.randomElement(using: &generator))
                // The number and the kind stay, and then everything leads out of the page.
                for offset in 12..<4096 { bytes[page + offset] = UInt8.random(in: 0...255, using: &generator) }
                bytes.put(UInt16.random(in: 18...4000, using: &generator), at: page + 12)
                bytes.put(UInt16.random(in: 18...65535, using: &generator), at: page + 14)
            }
        }
        return bytes
    }

    /// Opens the file, reads and changes it here and there; returns what came of each call.
    func use(seed: UInt64, checkedAtOnce: Int?, isSound: Bool = false) throws -> [StalkError.Code?] {
        var generator = SeededGenerator(seed: seed)
        var outcomes: [StalkError.Code?] = []
        let environment: Environment
        do throws(StalkError) {
            environment = try self.open(checkedAtOnce: checkedAtOnce)
        } catch {
            return [error.code]
        }
        defer { environment.close() }
        var known = Array(repeating: true, count: Self.rows)
        for index in 1000..<1200 { known[index] = false }
        var tables = ["messages": known, "ready": known]
        for _ in 0..<12 {
            let name = Bool.random(using: &generator) ? "messages" : "ready"
            let start = Int.random(in: 0..<Self.rows, using: &generator)
            let end = min(Self.rows, start + [1, 10, 100, 1000][Int.random(in: 0..<4, using: &generator)])
            let step = Int.random(in: 0..<6, using: &generator)
            let table = environment.table(name)
            outcomes.append(
                code {
                    switch step {
                    case 0: try Self.readRows(start..<end, environment, table, isSound ? tables[name] : nil)
                    case 1: try Self.scanRows(start..<end, environment, table)
                    case 2: try Self.readLast(start, environment, table)
                    default:
                        let isDeletion = step > 3
                        try Self.change(start..<end, environment, table, isDeletion, isRange: step == 4)
                        for index in start..<end { tables[name]?[index] = !isDeletion }
                    }
                }
            )
        }
        outcomes.append(code { try environment.compact() })
        return outcomes
    }

    private static func readRows(
        _ rows: Range<Int>,
        _ environment: Environment,
        _ table: Table,
        _ known: [Bool]?
    ) throws {
        try environment.read { transaction throws(StalkError) in
            for index in rows {
                let found = try transaction.get(table, Self.key(index))
                // A flipped bit may hide a row; only a sound file must have them all.
                #expect(found == nil || found == Self.value(index))
                if let known { #expect((found != nil) == known[index]) }
            }
        }
    }

    private static func scanRows(_ rows: Range<Int>, _ environment: Environment, _ table: Table) throws {
        try environment.read { transaction throws(StalkError) in
            var left = rows.count
            try transaction.scan(table, from: Self.key(rows.lowerBound)) { key, value in
                let index = key.prefix(8).reduce(0) { $0 << 8 | Int($1) }
                #expect(Array(value) == Self.value(index))
                left -= 1
                return left > 0 ? .next : .stop
            } onCorrupt: { _, _ in
                .next
            }
        }
    }

    private static func readLast(_ index: Int, _ environment: Environment, _ table: Table) throws {
        try environment.read { transaction throws(StalkError) in
            _ = try transaction.last(table)
            _ = try transaction.last(table, before: Self.key(index))
        }
    }

    private static func change(
        _ rows: Range<Int>,
        _ environment: Environment,
        _ table: Table,
        _ isDeletion: Bool,
        isRange: Bool
    ) throws {
        try environment.write { transaction throws(StalkError) in
            guard isDeletion else {
                for index in rows { try transaction.put(table, Self.key(index), Self.value(index)) }
                return
            }
            if isRange {
                try transaction.deleteRange(table, from: Self.key(rows.lowerBound), upTo: Self.key(rows.upperBound))
            } else {
                for index in rows { try transaction.delete(table, Self.key(index)) }
            }
        }
    }
}
