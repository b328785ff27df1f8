import StalkCore
import StalkTesting
import Testing

@testable import StalkLocal

/// Bodies are compressed where they settle, with a dictionary trained on their queue.
@Suite(.timeLimit(.minutes(10))) struct CompressionTests {
    private static func record(_ number: Int, _ random: inout SeededGenerator) -> Message {
        let words = (0..<8).map { _ in ["lib", "dev", "common", "doc", "python3", "perl", "tools"][random.below(7)] }
        return Message(
            """
            Package: \(words[0])-\(words[1])\(number)
            Version: \(random.below(9)).\(random.below(40))-\(random.below(5))
            Maintainer: Debian \(words[2]) Maintainers <\(words[3])@lists.example.org>
            Depends: \(words[4])-\(words[5]) (>= \(random.below(9)).\(random.below(30))), libc6 (>= 2.34)
            Description: \(words[6]) for \(words[7])
            """
        )
    }

    @Test func dictionaryIsTrainedStoredAndUsed() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        var random = SeededGenerator(seed: 7)
        var store = try await temporary.open()
        var queue = try store.queue("packages")
        let messages = (0..<6000).map { Self.record($0, &random) }
        for start in stride(from: 0, to: 3000, by: 500) {
            try await queue.publish(Array(messages[start..<start + 500]))
        }
        try await store.checkpoint()
        store.core.tables.bodies.finishTraining()
        for start in stride(from: 3000, to: 6000, by: 500) {
            try await queue.publish(Array(messages[start..<start + 500]))
        }
        // The first checkpoint behind the training stores the dictionary, those behind that one use it.
        try await store.checkpoint()
        #expect(store.core.tables.bodies.dictionaryCount == 1)
        try await queue.publish(messages)
        try await store.checkpoint()
        let sample = messages[17].body
        let change = SettleChange(
            sequence: 1,
            before: nil,
            after: MessageStanding(queue: 1, key: .first, isScheduled: false),
            content: MessageContent(publishedAt: 0, headers: [:], extensions: [], body: sample)
        )
        let envelope = try #require(
            try store.core.tables.bodies.packed([change])[0]
        )
        #expect(envelope[0] == 2, "not compressed with a dictionary")
        #expect(envelope.count < sample.count / 2)
        try await store.close()

        store = try await temporary.open()
        #expect(store.core.tables.bodies.dictionaryCount == 1)
        queue = try store.queue("packages")
        try await queue.wake()
        var taken: [[UInt8]] = []
        while true {
            let batch = try await queue.take(TakeRequest(max: 500))
            if batch.isEmpty { break }
            taken += batch.map(\.body)
            for result in try await queue.finish(batch.map { Completion($0.receipt, .acknowledge) }) {
                try result.get()
            }
        }
        #expect(taken == (messages + messages).map(\.body))
        try await store.close()
        #expect(try await LocalStore.verify(at: temporary.path).problems.isEmpty)
    }
}
