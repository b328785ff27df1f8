import Foundation
import StalkCore
import StalkLocal
import Subprocess
import Testing

@testable import StalkCLI

@Suite("The torture", .timeLimit(.minutes(10)))
struct TortureTests {
    @Test("Every event comes back from its line")
    func events() {
        let events: [TortureEvent] = [
            .life(seed: 7, isSingle: true), .opened(replayedFrames: 3, tornBytes: 40),
            .publishing(1, queue: "q"), .published(1, id: "A"), .unpublished(1, code: "storageFull"),
            .taken(id: "A", attempt: 2, number: 1, queue: "q"), .finishing(id: "A", .retry, []),
            .finishing(id: "A", .publish, [.init(number: 2, queue: "q"), .init(number: 3, queue: "r")]),
            .finished(id: "A", .dead), .unfinished(id: "A", .release, code: "staleReceipt"),
            .redriving(queue: "q"), .redriven(queue: "q", count: 5), .checkpointed,
            .failed(code: "storageFailed", message: "the disk is gone"), .wrong(id: "A", number: 1),
            .early(id: "A", number: 1, what: "by a second"), .closed,
            .settled(.init(number: 1, id: "A", queue: "q", home: "r", isDead: true, attempts: 4)),
        ]
        let text = events.map { "\($0)\n" }.joined()
        #expect(TortureEvent.journal(text) == (events, []))
    }

    @Test("A line that its process could not end is passed over, and no other")
    func cutLines() {
        func events(_ text: String) -> [TortureEvent] { TortureEvent.journal(text).events }
        let published = TortureEvent.published(12, id: "ABC")
        #expect(events("published 12 ABC\n\nlife 2 many\n").first == published)
        #expect(events("published 12 A\nlife 2 many\n") == [.life(seed: 2, isSingle: false)])
        #expect(events("published 12 ABC\n") == [published])
        #expect(events("published 12 A").isEmpty)
        #expect(TortureEvent.journal("published twelve ABC\n").unreadable == ["published twelve ABC"])
    }

    @Test("Bodies of all kinds follow from their numbers, and a flipped bit is recognised")
    func bodies() {
        var sizes: Set<Int> = []
        for number in UInt64(1)...400 {
            let message = TortureMessage.make(number)
            sizes.insert(message.body.count)
            #expect(TortureMessage.number(in: message.headers) == number)
            #expect(TortureMessage.isRight(number, body: message.body, headers: message.headers))
            #expect(!TortureMessage.isRight(number + 1, body: message.body, headers: message.headers))
            guard var body = Optional(message.body), !body.isEmpty else { continue }
            body[Int(number) % body.count] ^= 1 << (number % 8)
            #expect(!TortureMessage.isRight(number, body: body, headers: message.headers))
        }
        #expect(sizes.contains(0) && sizes.contains { $0 > 4096 })
    }

    @Test("A store that is killed again and again keeps everything")
    func killed() async throws {
        try await withTemporaryDirectory { directory in
            let outcome = try await Tool.run("torture", "--cycles", "6", "--json", store: directory)
            let report = try JSONDecoder().decode(Report.self, from: Data(outcome.output))
            #expect(outcome.status == .exited(0) && report.good, "\(report.problems) \(outcome.errors)")
            #expect(report.cycles == 6 && report.published > 0)
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory).isEmpty)
        }
    }

    private struct Report: Decodable {
        var good: Bool
        var cycles: Int
        var published: Int
        var problems: [String]
    }

    @Test("The user's own store is not tortured")
    func ownStore() async throws {
        try await withTemporaryDirectory { directory in
            _ = try await Tool.run("put", "q", store: directory, input: [1])
            let outcome = try await Tool.run("torture", "--cycles", "1", store: directory)
            #expect(outcome.status == .exited(2))
            #expect(outcome.errors.contains("is a store"))
        }
    }

    @Test("A loader ends when its parent has gone, or nobody reads its journal any more")
    func orphans() async throws {
        try await withTemporaryDirectory { directory in
            let outcome = try await Tool.shell(
                """
                journal=\(directory)/journal
                pid=$(bash -c '"$STALK" torture-load --seed 1 > "$0" & until grep -q "^published" "$0"; do sleep 0.02; done
                    echo $!' "$journal")
                # It held the lock of the store.
                for _ in $(seq 200); do
                    "$STALK" stats > /dev/null 2>&1 && { echo "ended alone"; break; }
                    sleep 0.05
                done
                kill -9 "$pid" 2> /dev/null
                timeout -s KILL 20 "$STALK" torture-load --seed 2 | head -n 20 > /dev/null
                [ "${PIPESTATUS[0]}" -ne 137 ] && echo "ended unread"
                """,
                store: directory + "/store"
            )
            #expect(outcome.lines == ["ended alone", "ended unread"], "\(outcome.errors)")
        }
    }

    /// What is done to a store behind the journal's back.
    enum Fault: String, CaseIterable, Sendable {
        case none
        case storeGone
        case messageTaken
        case messageAdded
        case bitFlipped
    }

    @Test("The checker finds what is done to a store, and nothing where nothing is done", arguments: Fault.allCases)
    func faults(fault: Fault) async throws {
        try await withTemporaryDirectory { directory in
            let store = directory + "/store"
            let script = try await Tool.run("torture-load", "--single", "--seed", "3", store: store)
            #expect(script.status == .exited(0))
            let journal = directory + "/journal"
            try Data(script.output).write(to: URL(fileURLWithPath: journal))
            try await Self.plant(fault, in: store)
            let outcome = try await Tool.run("torture-check", "--journal", journal, store: store)
            #expect(outcome.status == .exited(fault == .none ? 0 : 1), "\(outcome.text)")
            #expect(outcome.text.hasPrefix(fault == .none ? "good" : "BAD"))
            let kind: String? =
                switch fault {
                case .none: nil
                case .storeGone, .messageTaken: "lost"
                case .messageAdded: "invented"
                case .bitFlipped: "damaged"
                }
            if let kind { #expect(outcome.lines.first?.contains(" \(kind)") == true, "\(outcome.text)") }
        }
    }

    private static func plant(_ fault: Fault, in path: String) async throws {
        switch fault {
        case .none: break
        case .storeGone: try FileManager.default.removeItem(atPath: path)
        case .messageTaken:
            let store = try await LocalStore.open(at: path)
            let queue = try store.queue("torture-0")
            try await queue.wake()
            for delivery in try await queue.take(TakeRequest()) { try await queue.acknowledge(delivery) }
            try await store.close()
        case .messageAdded:
            let store = try await LocalStore.open(at: path)
            try await store.queue("torture-0").publish(TortureMessage.make(99))
            try await store.close()
        case .bitFlipped:
            let url = URL(fileURLWithPath: path + "/index/data.mdb")
            var data = try Data(contentsOf: url)
            // The name of a header stands in the file as it is; some of its places are in pages that are free again.
            let name = Data(TortureMessage.header.utf8)
            var place = data.startIndex
            while let found = data.range(of: name, in: place..<data.endIndex) {
                data[found.lowerBound] ^= 1
                place = found.upperBound
            }
            try #require(place > data.startIndex, "no message in LMDB")
            try data.write(to: url)
        }
    }
}
