// What the engine is put through.

import BenchmarkSupport
import Stalk

/// The workloads.
///
/// All publish the same bodies and check that nothing got lost.
enum Workload {
    /// A workload that did not do what it is measured for.
    struct Mismatch: Error, CustomStringConvertible {
        var expected: Int
        var found: Int

        var description: String { "\(self.expected) messages were to be acknowledged, but \(self.found) were" }
    }

    /// Bodies like those of small events, 150 to 200 bytes, alike but not the same.
    private static let messages: [Message] = {
        var generator = SeededGenerator(seed: 1)
        return (0..<1_024).map { number in
            let user = UInt32.random(in: 0 ... .max, using: &generator)
            let token = UInt64.random(in: 0 ... .max, using: &generator)
            let amount = Int.random(in: 1...100_000, using: &generator)
            return Message(
                """
                {"type":"order.created","order":\(number),"user":"user-\(user)","amount":\(amount),"currency":"EUR",\
                "idempotency":"\(String(token, radix: 16))","source":"checkout","attributes":{"retry":false}}
                """
            )
        }
    }()

    /// Publishes from many tasks at once; each call returns when its messages are synced.
    static func publish(to queue: LocalQueue, tasks: Int, calls: Int, batch: Int) async throws {
        try await withThrowingTaskGroup { group in
            for task in 0..<tasks {
                group.addTask {
                    for call in 0..<calls {
                        let first = (task * calls + call) * batch
                        let messages = (first..<first + batch).map { Self.messages[$0 % Self.messages.count] }
                        for result in try await queue.publish(messages, durability: .synced) { _ = try result.get() }
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    /// Leaves a backlog behind, quickly.
    static func fill(_ queue: LocalQueue, with count: Int) async throws {
        for first in stride(from: 0, to: count, by: 1_000) {
            let messages = (first..<min(first + 1_000, count)).map { Self.messages[$0 % Self.messages.count] }
            for result in try await queue.publish(messages, durability: .written) { _ = try result.get() }
        }
    }

    /// Publishes one message per call, and takes and acknowledges them meanwhile, all of it synced.
    static func wholeLife(of count: Int, in queue: LocalQueue, publishers: Int, workers: Int) async throws {
        let acknowledged = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<workers {
                group.addTask { try await Self.work(on: queue, max: 16, wait: .seconds(60)) }
            }
            try await Self.publish(to: queue, tasks: publishers, calls: count / publishers, batch: 1)
            try await queue.drained()
            group.cancelAll()
            return try await group.reduce(0, +)
        }
        guard acknowledged == count else { throw Mismatch(expected: count, found: acknowledged) }
    }

    /// Takes and acknowledges what lies in the queue, until nothing is left.
    static func drain(_ queue: LocalQueue, of count: Int, workers: Int) async throws {
        let acknowledged = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<workers {
                group.addTask { try await Self.work(on: queue, max: 100, wait: .zero) }
            }
            return try await group.reduce(0, +)
        }
        guard acknowledged == count else { throw Mismatch(expected: count, found: acknowledged) }
    }

    /// Works until nothing comes within the wait, or until the task is cancelled.
    ///
    /// - Returns: How many messages were acknowledged.
    private static func work(on queue: LocalQueue, max: Int, wait: Duration) async throws -> Int {
        var acknowledged = 0
        do {
            while true {
                let deliveries = try await queue.take(TakeRequest(max: max, wait: wait))
                if deliveries.isEmpty { return acknowledged }
                let completions = deliveries.map { Completion($0.receipt, .acknowledge) }
                for result in try await queue.finish(completions) { try result.get() }
                acknowledged += deliveries.count
            }
        } catch is CancellationError {
            return acknowledged
        }
    }
}
