import StalkCore
import StalkIndex
import StalkTesting
import Testing

@Suite struct TransactionTests {
    let directory = TemporaryDirectory()
    let environment: Environment
    let table: Table

    init() throws {
        self.environment = try self.directory.environment()
        self.table = self.environment.table("messages")
    }

    /// All entries of a table in scan order.
    private func entries(from start: [UInt8] = []) throws -> [[UInt8]] {
        try self.environment.read { transaction throws(StalkError) in
            var entries: [[UInt8]] = []
            try transaction.scan(self.table, from: start) { key, value in
                entries.append(Array(key) + Array(value))
                return .next
            }
            return entries
        }
    }

    @Test(arguments: [0, 1, 4, 100, 2000, 4096, 1 << 20])
    func valueComesBack(count: Int) throws {
        let stored = value(count, count: count)
        try self.environment.write { transaction throws(StalkError) in
            try transaction.put(self.table, [1], stored)
            #expect(try transaction.get(self.table, [1]) == stored)
        }
        try self.environment.read { transaction throws(StalkError) in
            #expect(try transaction.get(self.table, [1]) == stored)
            #expect(try transaction.get(self.table, [2]) == nil)
            #expect(try transaction.contains(self.table, [1]))
            #expect(try !transaction.contains(self.table, [2]))
            #expect(try transaction.count(self.table) == 1)
            #expect(try transaction.count(self.environment.table("ready")) == 0)
        }
    }

    @Test func laterPutReplaces() throws {
        for count in [10, 5000, 3, 3, 9000] {
            try self.environment.write { transaction throws(StalkError) in
                try transaction.put(self.table, [1], value(count, count: count))
            }
            let now = try self.environment.read { transaction throws(StalkError) in
                try transaction.get(self.table, [1])
            }
            #expect(now == value(count, count: count))
        }
    }

    @Test func throwingBodyChangesNothing() throws {
        try self.environment.write { transaction throws(StalkError) in try transaction.put(self.table, [1], [1]) }
        let thrown = code {
            try self.environment.write { transaction throws(StalkError) in
                try transaction.put(self.table, [1], [2])
                try transaction.put(self.table, [2], [2])
                throw StalkError(.interrupted, "stop")
            }
        }
        #expect(thrown == .interrupted)
        #expect(try self.entries() == [[1, 1]])
    }

    @Test func snapshotStaysAsItWas() throws {
        try self.environment.write { transaction throws(StalkError) in try transaction.put(self.table, [1], [1]) }
        // Another thread writes, since one thread must not go in twice.
        try self.environment.read { transaction throws(StalkError) in
            let writer = Thread {
                try self.environment.write { transaction throws(StalkError) in
                    try transaction.put(self.table, [1], [2])
                }
            }
            writer.join()
            #expect(try transaction.get(self.table, [1]) == [1])
        }
        #expect(try self.entries() == [[1, 2]])
    }

    @Test func keysHaveBounds() throws {
        try self.environment.write { transaction throws(StalkError) in
            try transaction.put(self.table, [UInt8](repeating: 7, count: Table.keyBytesMax), [1])
        }
        for count in [0, Table.keyBytesMax + 1] {
            let thrown = code {
                try self.environment.write { transaction throws(StalkError) in
                    try transaction.put(self.table, [UInt8](repeating: 7, count: count), [1])
                }
            }
            #expect(thrown == .invalidArgument)
        }
        #expect(try self.entries().count == 1)
    }

    @Test func refusedKeyDoesNotSpoilTheRest() throws {
        try self.environment.write { transaction throws(StalkError) in
            try transaction.put(self.table, [1], [1])
            try? transaction.put(self.table, [], [2])
            try transaction.put(self.table, [3], [3])
        }
        #expect(try self.entries() == [[1, 1], [3, 3]])
    }

    @Test func appendTakesAnyOrder() throws {
        try self.environment.write { transaction throws(StalkError) in
            for key: UInt8 in [3, 5, 4, 5, 1, 9] { try transaction.append(self.table, [key], [key &+ 100]) }
        }
        #expect(try self.entries() == [[1, 101], [3, 103], [4, 104], [5, 105], [9, 109]])
    }

    @Test func deleteSaysWhetherItWasThere() throws {
        try self.environment.write { transaction throws(StalkError) in
            try transaction.put(self.table, [1], [1])
            #expect(try transaction.delete(self.table, [1]))
            #expect(try !transaction.delete(self.table, [1]))
        }
        #expect(try self.entries().isEmpty)
    }

    @Test func scanStopsAndSeeks() throws {
        try self.environment.write { transaction throws(StalkError) in
            for key: UInt8 in 1...20 { try transaction.put(self.table, [key], [key]) }
        }
        var seen: [UInt8] = []
        try self.environment.read { transaction throws(StalkError) in
            try transaction.scan(self.table, from: [3]) { key, _ in
                seen.append(key[0])
                switch key[0] {
                case 4: return .seek([10, 0])
                case 12: return .stop
                default: return .next
                }
            }
        }
        #expect(seen == [3, 4, 11, 12])
        seen = []
        try self.environment.read { transaction throws(StalkError) in
            try transaction.scan(self.table, from: [19, 0]) { key, _ in
                seen.append(key[0])
                return .seek([200])
            }
        }
        #expect(seen == [20])
    }

    @Test func lastEntry() throws {
        try self.environment.write { transaction throws(StalkError) in
            #expect(try transaction.last(self.table) == nil)
            #expect(try transaction.last(self.table, before: [9]) == nil)
            for key: UInt8 in [3, 5, 7] { try transaction.put(self.table, [key], [key]) }
        }
        try self.environment.read { transaction throws(StalkError) in
            #expect(try transaction.last(self.table)?.key == [7])
            #expect(try transaction.last(self.table, before: [7])?.key == [5])
            #expect(try transaction.last(self.table, before: [6])?.value == [5])
            #expect(try transaction.last(self.table, before: [8])?.key == [7])
            #expect(try transaction.last(self.table, before: [3]) == nil)
            #expect(try transaction.last(self.table, before: []) == nil)
        }
    }

    @Test(arguments: [
        (0, 1000), (0, 0), (10, 10), (500, 501), (1, 999), (300, 2000), (700, 650),
    ])
    func deleteRangeIsHalfOpen(bounds: (Int, Int)) throws {
        try self.environment.write { transaction throws(StalkError) in
            for index in 0..<1000 { try transaction.append(self.table, key(index), value(index, count: 90)) }
        }
        let deleted = try self.environment.write { transaction throws(StalkError) in
            try transaction.deleteRange(self.table, from: key(bounds.0), upTo: key(bounds.1))
        }
        let left = (0..<1000).filter { !($0 >= bounds.0 && $0 < bounds.1) }
        #expect(deleted == 1000 - left.count)
        #expect(try self.entries() == left.map { key($0) + value($0, count: 90) })
    }

    @Test func deleteRangeWithoutEndEmptiesTheTable() throws {
        try self.environment.write { transaction throws(StalkError) in
            for index in 0..<5000 { try transaction.append(self.table, key(index), value(index, count: 90)) }
            #expect(try transaction.deleteRange(self.table, upTo: nil) == 5000)
            #expect(try transaction.count(self.table) == 0)
            try transaction.put(self.table, [1], [1])
        }
        #expect(try self.entries() == [[1, 1]])
    }

    /// Random transactions against a dictionary, over reopenings: every entry, every order, every length of file.
    @Test(arguments: 1...6 as ClosedRange<UInt64>)
    func randomTransactionsMatchAModel(seed: UInt64) throws {
        let directory = TemporaryDirectory()
        var environment = try directory.environment(mapBytes: 0)
        var generator = SeededGenerator(seed: seed)
        var model: [[UInt8]: [UInt8]] = [:]
        for round in 0..<120 {
            let table = environment.table("messages")
            let script = (0..<Int.random(in: 1...60, using: &generator)).map { _ in
                Operation.random(using: &generator)
            }
            let fails = Int.random(in: 0..<8, using: &generator) == 0
            let outcome = code {
                try environment.write { transaction throws(StalkError) in
                    for operation in script { try operation.apply(to: &transaction, table) }
                    if fails { throw StalkError(.interrupted, "stop") }
                }
            }
            #expect(outcome == (fails ? .interrupted : nil))
            if !fails { for operation in script { operation.apply(to: &model) } }
            if round % 5 == 0 {
                environment.close()
                environment = try directory.environment(mapBytes: 0, createIfMissing: false)
            }
            try expect(environment, holds: model)
        }
    }

    private func expect(_ environment: Environment, holds model: [[UInt8]: [UInt8]]) throws {
        let table = environment.table("messages")
        let sorted = model.sorted { $0.key.lexicographicallyPrecedes($1.key) }
        var entries: [(key: [UInt8], value: [UInt8])] = []
        try environment.read { transaction throws(StalkError) in
            try transaction.scan(table) { key, value in
                entries.append((Array(key), Array(value)))
                return .next
            }
            #expect(try transaction.count(table) == model.count)
            #expect(try transaction.last(table)?.key == sorted.last?.key)
        }
        #expect(entries.map(\.key) == sorted.map(\.key))
        #expect(entries.map(\.value) == sorted.map(\.value))
    }
}

private enum Operation {
    case put(key: Int, seed: Int, count: Int)
    case append(key: Int, seed: Int, count: Int)
    case delete(key: Int)
    case deleteRange(from: Int, upTo: Int)

    static func random(using generator: inout SeededGenerator) -> Self {
        let index = Int.random(in: 0..<400, using: &generator)
        let seed = Int.random(in: 0..<1_000_000, using: &generator)
        // Values from nothing to some pages of their own.
        let count = Int.random(in: 0..<10, using: &generator) == 0 ? seed % 30_000 : seed % 900
        switch Int.random(in: 0..<20, using: &generator) {
        case 0..<10: return .put(key: index, seed: seed, count: count)
        case 10..<13: return .append(key: index, seed: seed, count: count)
        case 13..<19: return .delete(key: index)
        default: return .deleteRange(from: index, upTo: index + seed % 150)
        }
    }

    func apply(to transaction: inout WriteTransaction, _ table: Table) throws(StalkError) {
        switch self {
        case .put(let index, let seed, let count):
            try transaction.put(table, key(index), value(seed, count: count))
        case .append(let index, let seed, let count):
            try transaction.append(table, key(index), value(seed, count: count))
        case .delete(let index):
            try transaction.delete(table, key(index))
        case .deleteRange(let start, let end):
            try transaction.deleteRange(table, from: key(start), upTo: key(end))
        }
    }

    func apply(to model: inout [[UInt8]: [UInt8]]) {
        switch self {
        case .put(let index, let seed, let count), .append(let index, let seed, let count):
            model[key(index)] = value(seed, count: count)
        case .delete(let index):
            model[key(index)] = nil
        case .deleteRange(let start, let end):
            for index in start..<end { model[key(index)] = nil }
        }
    }
}
