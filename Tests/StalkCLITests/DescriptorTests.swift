import Foundation
import StalkCore
import Subprocess
import Testing

@testable import StalkCLI

/// The command with few file descriptors, each number of them in turn: it works, or says why not.
@Suite("Descriptors", .timeLimit(.minutes(20))) struct DescriptorTests {
    /// What came of one run.
    private struct Run {
        var limit: Int
        var status: Int
        var hasMessage: Bool
        var output: String

        init(_ line: String) throws {
            let words = line.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false).map(String.init)
            try #require(words.count == 4, "\(line)")
            self.limit = try #require(Int(words[0]))
            self.status = try #require(Int(words[1]))
            self.hasMessage = words[2] != "0"
            self.output = words[3]
        }

        /// What is wrong with it: it hung, or died, or failed without a word.
        var complaint: String? {
            if self.status == 124 { return "with \(self.limit) it hung" }
            // 127 is the loader's, which does not find the libraries; it says so.
            if self.status > 127 { return "with \(self.limit) it died of signal \(self.status - 128)" }
            if ![0, 1, 127].contains(self.status) { return "with \(self.limit) it ended with \(self.status)" }
            return self.status == 0 || self.hasMessage ? nil : "with \(self.limit) it failed without a word"
        }
    }

    /// Runs a command under each limit; what it writes must be a single line.
    private static func sweep(_ limits: ClosedRange<Int>, _ command: String, in directory: String) async throws -> [Run]
    {
        let outcome = try await Tool.shell(
            """
            ulimit -c 0
            for limit in $(seq \(limits.lowerBound) \(limits.upperBound)); do
                exec 9>&2 2>"$STALK_STORE-errors"
                out=$(ulimit -n $limit; exec 9>&-; \(command))
                status=$?
                exec 2>&9 9>&-
                echo "$limit $status $(wc -c < "$STALK_STORE-errors") $out"
            done
            """,
            store: directory + "/store"
        )
        #expect(outcome.status == .exited(0), "\(outcome.errors)")
        return try outcome.lines.map { try Run($0) }
    }

    @Test("put says that it lacks descriptors, or publishes; what has an id is there")
    func put() async throws {
        try await withTemporaryDirectory { directory in
            let runs = try await Self.sweep(3...64, "exec timeout 60 \"$STALK\" put q <<< $limit", in: directory)
            #expect(runs.compactMap(\.complaint) == [])
            let published = runs.filter { $0.status == 0 }.map(\.limit)
            // Both must have come about, and each limit above one that is enough is enough too.
            #expect(published == Array((published.first ?? 0)...64) && (published.first ?? 0) > 3)
            let found = try await Tool.run("get", "q", "--max", "1000", "--ack", store: directory + "/store")
            #expect(found.lines == published.map(String.init))
        }
    }

    @Test("work says that it lacks descriptors, or does the work; no message is lost")
    func work() async throws {
        try await withTemporaryDirectory { directory in
            let store = directory + "/store"
            let numbers = (3...80).map(String.init)
            let input = Array(numbers.joined(separator: "\n").utf8)
            try #require(await Tool.run("put", "q", "--lines", store: store, input: input).status == .exited(0))
            let command = "\"$STALK\" work q -j 2 --drain -- sh -c 'echo \"$(cat)\" >> \"$STALK_STORE-ran\"'"
            let runs = try await Self.sweep(3...80, "exec timeout 60 \(command)", in: directory)
            #expect(runs.compactMap(\.complaint) == [])
            let worked = runs.filter { $0.status == 0 }.map(\.limit)
            #expect(worked == Array((worked.first ?? 0)...80) && (worked.first ?? 0) > 3)
            let ran = try String(contentsOfFile: store + "-ran", encoding: .utf8).split(separator: "\n").map(
                String.init
            )
            #expect(ran.sorted() == numbers.sorted())
        }
    }

    @Test("A run that dies, hangs or fails without a word is noticed")
    func control() async throws {
        try await withTemporaryDirectory { directory in
            for (command, complaint) in [
                ("kill -ILL $BASHPID", "with 9 it died of signal 4"), ("exit 124", "with 9 it hung"),
                ("exit 1", "with 9 it failed without a word"), ("echo no >&2; exit 3", "with 9 it ended with 3"),
            ] {
                let runs = try await Self.sweep(9...9, command, in: directory)
                #expect(runs.map(\.complaint) == [complaint])
            }
            let sound = try await Self.sweep(9...9, "echo no >&2; exit 1", in: directory)
            #expect(sound.map(\.complaint) == [nil])
        }
    }
}
