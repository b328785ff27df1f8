import Foundation
import Stalk
import Testing

/// What README.md shows is what was compiled and run here.
@Suite(.timeLimit(.minutes(10))) struct ReadmeTests {
    /// The program of README.md, line by line; only the path of the store differs.
    private static func program(at path: String) async throws {
        let store = try await LocalStore.open(at: path)
        let mail = try store.queue("mail")
        try await mail.publish(Message("Dear Ada"))
        let worker = Worker(collector: mail, until: { try await mail.drained() }) { delivery in
            print("attempt \(delivery.attempt) to send: \(delivery.text)")
            return .acknowledge
        }
        try await worker.run()
        try await store.close()
    }

    @Test func programRuns() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory + "/mail-store"
            try await Self.program(at: path)
            let store = try await LocalStore.open(at: path)
            let queue = try #require(try await store.stats().queues.first)
            #expect(queue.name.rawValue == "mail")
            #expect(queue.ready + queue.delayed + queue.leased + queue.dead == 0)
            // The message was there: the next one is the second.
            #expect(try await store.queue("mail").publish(Message("")).rawValue == "0000000000002")
            try await store.close()
        }
    }

    @Test func programIsWhatReadmeShows() throws {
        let shown = try Repository.firstBlock("swift", of: "README.md")
            .filter { !$0.isEmpty && $0 != "import Stalk" }
            .map { $0.replacingOccurrences(of: "\"mail-store\"", with: "path") }
        let source = try Repository.text("Tests/StalkTests/ReadmeTests.swift").components(separatedBy: "\n")
        let start = try #require(source.firstIndex { $0.contains("func program(at path") })
        let tested = source[(start + 1)...].prefix { $0 != "    }" }.map { String($0.dropFirst(8)) }
        #expect(shown == tested)
    }

    /// The binary `stalk`, as it was built beside the tests.
    private static let binary: String = {
        let tests = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return URL(fileURLWithPath: tests).deletingLastPathComponent().appendingPathComponent("stalk").path
    }()

    @Test(.enabled(if: FileManager.default.isExecutableFile(atPath: Self.binary), "there is no stalk beside the tests"))
    func pipelineRuns() async throws {
        let script = try Repository.firstBlock("sh", of: "README.md")
        #expect(script.count >= 10)
        try await withTemporaryDirectory { directory in
            let output = try Self.run(script, in: directory)
            let lines = output.split(separator: "\n")
            #expect(output.contains("99 acknowledged, 0 retried, 1 dead-lettered"))
            #expect(output.contains("13 brings bad luck"))
            #expect(lines.last == "10000")
            let squares = try String(contentsOfFile: directory + "/squares", encoding: .utf8)
            #expect(squares.split(separator: "\n").count == 99)
        }
    }

    /// Runs a script to its end; what it prints comes back, from both streams.
    private static func run(_ script: [String], in directory: String) throws -> String {
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-euc", script.joined(separator: "\n")]
        process.currentDirectoryURL = URL(fileURLWithPath: directory)
        var environment = ProcessInfo.processInfo.environment
        let binaries = URL(fileURLWithPath: self.binary).deletingLastPathComponent().path
        environment["PATH"] = "\(binaries):\(environment["PATH"] ?? "/usr/bin:/bin")"
        process.environment = environment
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let bytes = try output.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        let text = String(decoding: bytes, as: UTF8.self)
        #expect(process.terminationStatus == 0, "\(text)")
        return text
    }
}
