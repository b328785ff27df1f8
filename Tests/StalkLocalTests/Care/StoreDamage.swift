import Foundation
import StalkCore
import StalkIndex
import StalkTesting
import Testing

@testable import StalkLocal

/// One way to damage a store.
struct StoreDamage: CustomTestStringConvertible, Sendable {
    var name: String
    /// The file that verify must name.
    var file: String
    /// How many of the messages may be gone afterwards.
    var losesAtMost: Int = 0
    /// Whether messages may stand otherwise than before.
    var changesStates = false
    var make: @Sendable (SampleStore) throws -> Void

    var testDescription: String { self.name }

    static let data = "index/data.mdb"

    private static func flip(_ text: String, _ file: String? = nil) -> @Sendable (SampleStore) throws -> Void {
        { try $0.temporary.flipByte(of: text, in: file) }
    }

    /// Flips a bit wherever data.mdb has the text, pages that are free by now included.
    private static func flipAll(_ text: String) -> @Sendable (SampleStore) throws -> Void {
        { sample in
            try damage("\(sample.path)/\(Self.data)") { data in
                var start = data.startIndex
                while let found = data[start...].range(of: Data(text.utf8)) {
                    data[found.lowerBound] ^= 1
                    start = found.upperBound
                }
            }
        }
    }

    private static func remove(_ name: String) -> @Sendable (SampleStore) throws -> Void {
        { try FileManager.default.removeItem(atPath: "\($0.path)/\(name)") }
    }

    private static func cut(
        _ name: String,
        _ count: @escaping @Sendable (Int) -> Int
    )
        -> @Sendable (SampleStore) throws
        -> Void
    {
        { sample in
            let path = "\(sample.path)/\(name)"
            try damage(path) { data in data = data.prefix(count(data.count)) }
        }
    }

    private static func write(_ text: String, _ name: String) -> @Sendable (SampleStore) throws -> Void {
        { try text.write(toFile: "\($0.path)/\(name)", atomically: false, encoding: .utf8) }
    }

    /// Changes the tables behind the engine's back.
    private static func change(
        _ body: @escaping @Sendable (SettledTables) throws -> Void
    ) -> @Sendable (SampleStore) throws -> Void {
        { sample in
            let tables = try SettledTables(
                SettledTables.openLMDB(path: sample.path + "/index", createIfMissing: false),
                maxBodyBytes: 1 << 20
            )
            defer { tables.index.close() }
            try body(tables)
        }
    }

    private static func firstPlace(_ tables: SettledTables) throws -> [UInt8] {
        var found: [UInt8]?
        try tables.forEachPlace(of: 1, isDead: false) { key, _ in
            found = KeyBuilder.place(1, key)
            return false
        }
        return try #require(found)
    }

    static let all: [StoreDamage] = [
        StoreDamage(name: "a message", file: Self.data, losesAtMost: 1, make: Self.flipAll("dead settled 3")),
        StoreDamage(
            name: "the history of a message",
            file: Self.data,
            changesStates: true,
            make: Self.flipAll("again settled")
        ),
        StoreDamage(name: "the name of a queue", file: Self.data, changesStates: true, make: Self.flipAll("errors")),
        StoreDamage(
            name: "a frame",
            file: "log/",
            losesAtMost: 5,
            changesStates: true,
            make: Self.flip("retried logged 2")
        ),
        StoreDamage(name: "the marker is missing", file: "STALK", make: Self.remove("STALK")),
        StoreDamage(name: "the marker is garbage", file: "STALK", make: Self.write("garbage\n", "STALK")),
        StoreDamage(name: "the marker is empty", file: "STALK", make: Self.write("", "STALK")),
        StoreDamage(
            name: "the marker has no number",
            file: "STALK",
            make: Self.write("stalk store\nformat 1\n", "STALK")
        ),
        StoreDamage(
            name: "the marker has no format",
            file: "STALK",
            make: Self.write("stalk store\nformat x\nstore 1f\n", "STALK")
        ),
        StoreDamage(
            name: "the marker is another store's",
            file: "STALK",
            make: Self.write("stalk store\nformat 1\nstore 1f\n", "STALK")
        ),
        StoreDamage(
            name: "no index",
            file: Self.data,
            losesAtMost: .max,
            changesStates: true,
            make: Self.remove("index")
        ),
        StoreDamage(
            name: "no data.mdb",
            file: Self.data,
            losesAtMost: .max,
            changesStates: true,
            make: Self.remove(Self.data)
        ),
        StoreDamage(
            name: "an empty data.mdb",
            file: Self.data,
            losesAtMost: .max,
            changesStates: true,
            make: Self.cut(Self.data) { _ in 0 }
        ),
        StoreDamage(
            name: "half of data.mdb",
            file: Self.data,
            losesAtMost: .max,
            changesStates: true,
            make: Self.cut(Self.data) { $0 / 2 }
        ),
        StoreDamage(name: "no log", file: "log", losesAtMost: .max, changesStates: true, make: Self.remove("log")),
        StoreDamage(name: "a log that was cut off", file: "log/", losesAtMost: .max, changesStates: true) { sample in
            let name = try #require(
                FileManager.default.contentsOfDirectory(atPath: sample.path + "/log").sorted().first {
                    FileManager.default.contents(atPath: "\(sample.path)/log/\($0)")?.range(of: Data("logged".utf8))
                        != nil
                }
            )
            try damage("\(sample.path)/log/\(name)") { $0 = $0.prefix(9001) }
        },
        StoreDamage(name: "the first meta page", file: Self.data, losesAtMost: .max, changesStates: true) { sample in
            try damage("\(sample.path)/\(Self.data)") { $0.replaceSubrange(16..<20, with: [0, 0, 0, 0]) }
        },
        StoreDamage(name: "the second meta page", file: Self.data, losesAtMost: .max, changesStates: true) { sample in
            try damage("\(sample.path)/\(Self.data)") { $0.replaceSubrange(4112..<4116, with: [0, 0, 0, 0]) }
        },
        StoreDamage(name: "data.mdb is noise", file: Self.data, losesAtMost: .max, changesStates: true) { sample in
            var random = SeededGenerator(seed: 5)
            try damage("\(sample.path)/\(Self.data)") { data in
                for index in data.indices { data[index] = UInt8.random(in: 0...255, using: &random) }
            }
        },
        StoreDamage(name: "marker, index and log", file: "STALK", losesAtMost: .max, changesStates: true) { sample in
            try Self.remove("STALK")(sample)
            try Self.flipAll("dead settled 3")(sample)
            try Self.flip("retried logged 2")(sample)
        },
        StoreDamage(
            name: "the figures of a queue",
            file: Self.data,
            make: Self.change { tables in
                var queue = try #require(try tables.readQueues().first { $0.delayed > 0 })
                (queue.ready, queue.delayed) = (queue.ready + 1, queue.delayed - 1)
                try tables.apply(SettleBatch(meta: #require(try tables.readMeta()), changes: [], queues: [queue]))
            }
        ),
        StoreDamage(
            name: "a message that is in no line",
            file: Self.data,
            make: Self.change { tables in
                let key = try Self.firstPlace(tables)
                try tables.index.write { transaction throws(StalkError) in _ = try transaction.delete(tables.ready, key)
                }
            }
        ),
        StoreDamage(
            name: "a place in line without a message",
            file: Self.data,
            make: Self.change { tables in
                let key = try Self.firstPlace(tables).dropLast() + [255]
                try tables.index.write { transaction throws(StalkError) in
                    try transaction.put(tables.ready, Array(key), [0])
                }
            }
        ),
    ]
}
