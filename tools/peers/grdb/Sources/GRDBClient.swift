// Drives a queue in SQLite through GRDB, as `client.c` does through SQLite's C interface: the same table and statements.
//
//   grdb-client sqlite FILE:SYNCHRONOUS BODIES WORK 1 BATCH SECONDS
//
// BODIES is a file of bodies, each behind its length in 32 bits. WORK is publish or life. BATCH messages are in a
// transaction. Prints one line of JSON.

import Foundation
import GRDB

struct Refusal: Error, CustomStringConvertible {
    var description: String
}

/// The bodies of a file, one after the other, again and again.
struct Bodies {
    private let all: [Data]
    private var next = 0

    init(path: String) throws {
        let bytes = try Data(contentsOf: URL(filePath: path))
        var all: [Data] = []
        var offset = 0
        while offset + 4 <= bytes.count {
            let length = bytes[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | Int($1) }
            all.append(Data(bytes[offset + 4..<offset + 4 + length]))
            offset += 4 + length
        }
        guard !all.isEmpty else { throw Refusal(description: "\(path) holds no body") }
        self.all = all
    }

    mutating func take() -> Data {
        defer { self.next += 1 }
        return self.all[self.next % self.all.count]
    }
}

/// A queue in one table.
struct SQLiteQueue {
    private let database: DatabaseQueue

    init(path: String, synchronous: String) throws {
        var configuration = Configuration()
        configuration.prepareDatabase { database in
            try database.execute(sql: "PRAGMA journal_mode=WAL; PRAGMA synchronous=\(synchronous)")
        }
        self.database = try DatabaseQueue(path: path, configuration: configuration)
        try self.database.write { database in
            try database.execute(
                sql: """
                    CREATE TABLE q(id INTEGER PRIMARY KEY, attempts INTEGER NOT NULL DEFAULT 0, body BLOB NOT NULL);
                    CREATE INDEX ready ON q(id) WHERE attempts = 0
                    """
            )
        }
    }

    func publish(_ bodies: [Data]) throws {
        try self.database.write { database in
            let insert = try database.cachedStatement(sql: "INSERT INTO q(body) VALUES (?)")
            for body in bodies { try insert.execute(arguments: [body]) }
        }
    }

    func take(_ count: Int) throws -> [Int64] {
        try self.database.write { database in
            let take = try database.cachedStatement(
                sql: """
                    UPDATE q SET attempts = attempts + 1
                    WHERE id IN (SELECT id FROM q WHERE attempts = 0 ORDER BY id LIMIT ?) RETURNING id, body
                    """
            )
            var taken: [Int64] = []
            let rows = try Row.fetchCursor(take, arguments: [count])
            while let row = try rows.next() {
                let body: Data = row[1]
                guard !body.isEmpty else { throw Refusal(description: "SQLite lost a body") }
                taken.append(row[0])
            }
            return taken
        }
    }

    func finish(_ taken: [Int64]) throws {
        try self.database.write { database in
            let finish = try database.cachedStatement(sql: "DELETE FROM q WHERE id = ?")
            for id in taken { try finish.execute(arguments: [id]) }
        }
    }
}

@main
enum GRDBClient {
    static func main() throws {
        let words = CommandLine.arguments
        guard words.count == 8, let batch = Int(words[6]), let seconds = Double(words[7]), batch > 0, seconds > 0,
            let colon = words[2].lastIndex(of: ":")
        else { throw Refusal(description: "usage: grdb-client sqlite FILE:SYNCHRONOUS BODIES WORK 1 BATCH SECONDS") }
        var bodies = try Bodies(path: words[3])
        let synchronous = String(words[2][words[2].index(after: colon)...])
        let queue = try SQLiteQueue(path: String(words[2][..<colon]), synchronous: synchronous)
        let clock = ContinuousClock()
        let start = clock.now
        let end = start.advanced(by: .seconds(seconds))
        var time = start
        var times: [Duration] = []
        while time < end {
            try queue.publish((0..<batch).map { _ in bodies.take() })
            if words[4] == "life" {
                let taken = try queue.take(batch)
                guard taken.count == batch else { throw Refusal(description: "SQLite gave too few") }
                try queue.finish(taken)
            }
            let finished = clock.now
            times.append(finished - time)
            time = finished
        }
        self.report(times, batch: batch, seconds: (time - start) / .seconds(1))
    }

    private static func report(_ times: [Duration], batch: Int, seconds: Double) {
        let sorted = times.sorted()
        func micros(_ share: Double) -> Double { sorted[Int(share * Double(sorted.count - 1))] / .microseconds(1) }
        let messages = times.count * batch
        print(
            """
            {"messages": \(messages), "seconds": \(seconds), "messagesPerSecond": \(Double(messages) / seconds), \
            "p50Micros": \(micros(0.5)), "p99Micros": \(micros(0.99)), "p999Micros": \(micros(0.999))}
            """
        )
    }
}
