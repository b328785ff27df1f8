import Foundation
import StalkCore
import StalkTesting
import Testing

@testable import StalkLocal

/// What is done after answers, however many there were.
@Suite(.timeLimit(.minutes(2))) struct ReplyChainTests {
    /// A closure that is all of a generic value gets one more layer each time it is read there.
    ///
    /// A store that had answered a hundred thousand times overflowed its stack when it was closed.
    @Test func answersLeaveNothingBehind() async {
        await #expect(processExitsWith: .success) {
            let temporary = TemporaryStore()
            let store = try await temporary.open()
            let core = store.core
            for _ in 0..<100 { core.didReply() }
            let before = Self.anonymousKilobytes
            for _ in 0..<20_000 { core.didReply() }
            let grown = Self.anonymousKilobytes - before
            try await store.close()
            temporary.remove()
            try #require(grown < 400, "\(grown) KiB for 20,000 answers")
        }
    }

    private static var anonymousKilobytes: Int {
        let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
        let line = status.split(separator: "\n").first { $0.hasPrefix("RssAnon:") }
        return line.flatMap { Int($0.split(whereSeparator: { $0 == " " || $0 == "\t" })[1]) } ?? 0
    }
}
