// The kept inputs of all fuzzers, as plain tests: what was found once is not lost again.

import Foundation
import Testing

@testable import StalkLocal

@Suite struct CorpusTests {
    private static let directory = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("Corpus")

    private static func inputs(_ fuzzer: String) throws -> [(name: String, bytes: [UInt8])] {
        let folder = Self.directory.appendingPathComponent(fuzzer)
        return try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted().map { name in
            (name, Array(try Data(contentsOf: folder.appendingPathComponent(name))))
        }
    }

    @Test("Every kept input passes", arguments: allFuzzers.map(\.name))
    func keptInputs(name: String) async throws {
        let fuzzer = try #require(allFuzzers.first { $0.name == name })
        let inputs = try Self.inputs(name)
        #expect(inputs.count >= 3)
        // A fuzzer may block the thread that calls it.
        let complaints = try await onOwnThread("corpus") {
            inputs.compactMap { input in
                fuzzer.complaint(about: input.bytes, isPlanted: false).map { "\(input.name): \($0)" }
            }
        }
        #expect(complaints == [])
    }

    @Test("Each fuzzer has a corpus, each corpus a fuzzer, and all of them are small")
    func corporaAreSmall() throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: Self.directory.path)
        #expect(Set(names) == Set(allFuzzers.map(\.name)))
        let bytes = try names.flatMap(Self.inputs).reduce(0) { $0 + $1.bytes.count }
        #expect(bytes < 300 << 10)
    }

    /// The planted bugs of the other fuzzers end the process: `tools/fuzz` looks for those.
    @Test(
        "A check notices a decoder that is wrong",
        arguments: ["log", "log-resealed", "envelope", "json-lines", "nsq", "wire"]
    )
    func plantedBugIsNoticed(name: String) async throws {
        let fuzzer = try #require(allFuzzers.first { $0.name == name })
        let inputs = try Self.inputs(name)
        let isNoticed = try await onOwnThread("corpus") {
            inputs.contains { fuzzer.complaint(about: $0.bytes, isPlanted: true) != nil }
        }
        #expect(isNoticed, "no kept input shows the planted bug")
    }
}
