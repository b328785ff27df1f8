import Foundation
import StalkCore
import Testing

@testable import StalkCLI

@Suite("Publication")
struct PublicationTests {
    @Test("Messages are published in order, in calls that the collector takes, and counted")
    func batches() async throws {
        let collector = try NotingCollector(maxBatch: 7)
        let lines = (1...50).map { "line \($0)" }
        let (count, ids) = try await Self.publish(lines.joined(separator: "\n"), to: collector)
        #expect(count == 50)
        #expect(collector.published.map(\.text) == lines)
        #expect(collector.calls.max() == 7)
        #expect(ids == (1...50).map { "m\($0)\n" }.joined())
    }

    @Test("A refused message is named, and the ids before it are printed")
    func refused() async throws {
        let collector = try NotingCollector(refused: 3)
        let pipe = makePipe()
        var publication = try Self.publication(to: collector, output: pipe.output)
        let error = await #expect(throws: StalkError.self) {
            try await publication.publishAll(from: InputTests.reader(Array("a\nb\nc\nd\n".utf8), framing: .lines))
        }
        #expect(error?.code == .storageFull)
        #expect(error?.message == "line 3: The disk is full. 3 messages are durable.")
        try pipe.handle.fileHandleForWriting.close()
        #expect(try pipe.handle.fileHandleForReading.readToEnd() == Data("m1\nm2\n".utf8))
    }

    @Test("Everything before a bad line is published, and counted in the error")
    func badLine() async throws {
        let collector = try NotingCollector()
        let pipe = makePipe()
        var publication = try Self.publication(to: collector, output: pipe.output)
        let text = "{\"body\":\"a\"}\n{\"body\":\"b\"}\nhello\n{\"body\":\"c\"}\n"
        let error = await #expect(throws: StalkError.self) {
            try await publication.publishAll(from: InputTests.reader(Array(text.utf8), framing: .jsonLines))
        }
        #expect(error?.message == "line 3: It is not JSON. 2 messages are durable.")
        #expect(collector.published.map(\.text) == ["a", "b"])
    }

    @Test("A publisher whose ids nobody reads stops and says how far it came")
    func closedOutput() async throws {
        signal(SIGPIPE, SIG_IGN)
        let collector = try NotingCollector()
        let pipe = makePipe()
        try pipe.handle.fileHandleForReading.close()
        var publication = try Self.publication(to: collector, output: pipe.output)
        let error = await #expect(throws: StalkError.self) {
            try await publication.publishAll(from: InputTests.reader(Array("a\n".utf8), framing: .lines))
        }
        #expect(error?.code == .interrupted)
        #expect(error?.message.contains("1 message is durable.") == true)
    }

    private static func publication(
        to collector: NotingCollector,
        output: StalkCLI.OutputStream
    ) throws -> Publication {
        Publication(
            queue: collector,
            durability: .synced,
            framing: .lines,
            ids: .plain,
            inputSize: nil,
            output: output
        )
    }

    private static func publish(_ text: String, to collector: NotingCollector) async throws -> (Int, String) {
        let pipe = makePipe()
        var publication = try Self.publication(to: collector, output: pipe.output)
        let count = try await publication.publishAll(from: InputTests.reader(Array(text.utf8), framing: .lines))
        try pipe.handle.fileHandleForWriting.close()
        let ids = try pipe.handle.fileHandleForReading.readToEnd() ?? Data()
        return (count, String(decoding: ids, as: UTF8.self))
    }
}
