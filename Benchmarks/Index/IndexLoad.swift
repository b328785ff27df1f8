// What LMDB is put through.

import Benchmark
import BenchmarkSupport
import StalkCore
import StalkIndex

/// Entries like those of messages: a key of 20 bytes in the order of delivery, a value of some hundred bytes.
struct IndexLoad: Sendable {
    private static let table = "message"

    private let keys: [[UInt8]]
    private let values: [[UInt8]]
    private let randomOrder: [Int]

    init(entries: Int) {
        var generator = SeededGenerator(seed: 3)
        self.keys = (0..<entries).map { number in
            var key = KeyBuilder()
            key.append(UInt32(1))
            key.append(Int64(1_000_000 + number))
            key.append(UInt64(number))
            return key.bytes
        }
        self.values = Records.text(1_024).map { Array($0.prefix(400)) }
        self.randomOrder = (0..<entries).shuffled(using: &generator)
    }

    /// Puts all entries, some in each transaction; each commit is synced.
    func put(_ perTransaction: Int, _ benchmark: Benchmark) throws {
        try self.withIndex { index in
            try self.change(index, benchmark) { () throws(StalkError) in try self.fill(index, perTransaction) }
            try self.check(index, holds: self.keys.count)
        }
    }

    /// Deletes all entries, some in each transaction.
    func delete(_ perTransaction: Int, _ benchmark: Benchmark) throws {
        try self.withIndex { index in
            try self.fill(index, 10_000)
            try self.change(index, benchmark) { () throws(StalkError) in
                try self.forEachTransaction(perTransaction) { range throws(StalkError) in
                    try index.write { transaction throws(StalkError) in
                        for number in range { try transaction.delete(index.table(Self.table), self.keys[number]) }
                    }
                }
            }
            try self.check(index, holds: 0)
        }
    }

    /// Copies the value under each key, in no order.
    func get(_ benchmark: Benchmark) throws {
        try self.withIndex { index in
            try self.fill(index, 10_000)
            let table = index.table(Self.table)
            var bytes = 0
            try benchmark.count(messages: self.keys.count) {
                try index.read { transaction throws(StalkError) in
                    for number in self.randomOrder {
                        bytes += try transaction.get(table, self.keys[number])?.count ?? 0
                    }
                }
            }
            try self.check(bytes)
        }
    }

    /// Copies all values in the order of their keys, as loading a queue's next messages does.
    func scan(_ benchmark: Benchmark) throws {
        try self.withIndex { index in
            try self.fill(index, 10_000)
            var bytes = 0
            try benchmark.count(messages: self.keys.count) {
                try index.read { transaction throws(StalkError) in
                    try transaction.scan(index.table(Self.table)) { _, value in
                        bytes += [UInt8](value).count
                        return .next
                    }
                }
            }
            try self.check(bytes)
        }
    }

    // MARK: Parts

    private func withIndex(_ body: (Environment) throws -> Void) throws {
        try withScratchDirectory { path in
            let index = try Environment(path: path, mapBytes: 64 << 20, tables: [Self.table], createIfMissing: true)
            defer { index.close() }
            try body(index)
        }
    }

    private func change(_ index: Environment, _ benchmark: Benchmark, _ work: () throws(StalkError) -> Void) throws {
        let commits = index.commitCount
        try benchmark.count(messages: self.keys.count) { try work() }
        benchmark.measurement(.commits, Int(index.commitCount - commits) * 1_000_000 / self.keys.count)
    }

    private func fill(_ index: Environment, _ perTransaction: Int) throws(StalkError) {
        let table = index.table(Self.table)
        try self.forEachTransaction(perTransaction) { range throws(StalkError) in
            try index.write { transaction throws(StalkError) in
                for number in range {
                    try transaction.append(table, self.keys[number], self.values[number % self.values.count])
                }
            }
        }
    }

    private func forEachTransaction(
        _ perTransaction: Int,
        _ body: (Range<Int>) throws(StalkError) -> Void
    ) throws(StalkError) {
        for first in stride(from: 0, to: self.keys.count, by: perTransaction) {
            try body(first..<min(first + perTransaction, self.keys.count))
        }
    }

    private func check(_ bytes: Int) throws {
        let expected = self.keys.indices.reduce(0) { $0 + self.values[$1 % self.values.count].count }
        guard bytes == expected else { throw Mismatch("\(expected) bytes were put, \(bytes) were read") }
    }

    private func check(_ index: Environment, holds count: Int) throws {
        let found = try index.read { transaction throws(StalkError) in try transaction.count(index.table(Self.table)) }
        guard found == count else { throw Mismatch("\(count) entries should be there, \(found) are") }
    }
}
