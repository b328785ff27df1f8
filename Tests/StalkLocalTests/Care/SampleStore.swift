import Foundation
import StalkCore
import StalkTesting

@testable import StalkLocal

/// A small store with messages in every state, some settled in LMDB and some in the log alone.
struct SampleStore {
    /// What a message must be like.
    struct Expected: Hashable {
        var queue: String
        var state: MessageState
        var body: [UInt8]
        var attempts: Int
        var reasons: [String]
    }

    let temporary: TemporaryStore
    private(set) var expected: [MessageID: Expected] = [:]
    var path: String { self.temporary.path }

    /// Makes the store and lets it end as a kill would.
    ///
    /// - Parameters:
    ///   - settled: How many messages of each kind are settled.
    ///   - logged: How many of each kind are in the log alone.
    init(settled: Int = 20, logged: Int = 5) async throws {
        self.temporary = TemporaryStore()
        let store = try await self.temporary.open()
        try await Self.fill(store, settled, "settled")
        try await store.checkpoint()
        try await Self.fill(store, logged, "logged")
        self.expected = try await Self.contents(of: store)
        await store.abandon()
    }

    private static func fill(_ store: LocalStore, _ count: Int, _ name: String) async throws {
        let queue = try store.queue("work", options: LocalQueueOptions(errorQueue: QueueName("errors")))
        let plain = try store.queue("work")
        try await queue.wake()
        let messages = (0..<count).map { number in
            Message(Array("\(name) \(number) \(String(repeating: "x", count: number % 7 == 0 ? 9000 : 20))".utf8))
        }
        // What comes first is taken first: these stay dead, moved, or retried.
        for (kind, disposition) in [
            ("dead", Disposition.deadLetter(reason: "bad \(name)")),
            ("moved", .deadLetter(reason: "moved \(name)")),
            ("retried", .retry(after: .seconds(3600), reason: "again \(name)")),
        ] {
            try await plain.publish((0..<count).map { Message("\(kind) \(name) \($0)") })
            let collector = kind == "moved" ? queue : plain
            try await collector.wake()
            var taken: [Delivery] = []
            while true {
                let some = try await collector.take(TakeRequest(max: 1000))
                if some.isEmpty { break }
                taken += some
            }
            let mine = taken.filter { $0.text.hasPrefix(kind) }
            for result in try await collector.finish(mine.map { Completion($0.receipt, disposition) }) {
                try result.get()
            }
            let others = taken.filter { !$0.text.hasPrefix(kind) }
            for result in try await collector.finish(others.map { Completion($0.receipt, .release) }) {
                try result.get()
            }
        }
        try await plain.publish(messages)
        try await plain.publish((0..<count).map { Message("later \(name) \($0)", delay: .seconds(60 + $0)) })
    }

    /// Every message of a store.
    static func contents(of store: LocalStore) async throws -> [MessageID: Expected] {
        var found: [MessageID: Expected] = [:]
        for queue in try await store.stats().queues {
            for state in MessageState.allCases {
                for message in try await store.peek(queue.name, state: state, max: .max) {
                    found[message.id] = Expected(
                        queue: message.queue.rawValue,
                        state: message.state,
                        body: message.body,
                        attempts: message.attempts,
                        reasons: message.failures.map(\.reason)
                    )
                }
            }
        }
        return found
    }

    /// Opens the store as anybody would, reads all of it, and closes it.
    func read() async throws -> [MessageID: Expected] {
        let store = try await self.temporary.open()
        let found = try await Self.contents(of: store)
        let total = try await store.stats().queues.reduce(0) { $0 + $1.ready + $1.delayed + $1.leased + $1.dead }
        try await store.close()
        guard total == found.count else {
            throw StalkError(.storeDamaged, "\(total) are counted, \(found.count) are there")
        }
        return found
    }

    func remove() { self.temporary.remove() }
}

/// All that can be told of the files in a directory, times of change included.
func everything(in path: String) throws -> [String: [String]] {
    var files: [String: [String]] = [:]
    for name in try FileManager.default.subpathsOfDirectory(atPath: path) + ["."] {
        let file = "\(path)/\(name)"
        var info = stat()
        guard lstat(file, &info) == 0 else { continue }
        let data = info.st_mode & S_IFMT == S_IFREG ? FileManager.default.contents(atPath: file) ?? Data() : Data()
        files[name] = [
            "\(info.st_mode)", "\(info.st_size)", "\(info.st_ino)", "\(info.st_mtim.tv_sec).\(info.st_mtim.tv_nsec)",
            "\(info.st_ctim.tv_sec).\(info.st_ctim.tv_nsec)", "\(data.hashValue)",
        ]
    }
    return files
}

/// Changes some bytes of a file in place.
func damage(_ path: String, _ change: (inout Data) -> Void) throws {
    var data = try Data(contentsOf: URL(fileURLWithPath: path))
    change(&data)
    let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
    try handle.truncate(atOffset: 0)
    try handle.write(contentsOf: data)
    try handle.close()
}
