import Foundation
import StalkCore
import Testing

@testable import StalkCLI

@Suite("Taking")
struct TakingTests {
    private static let bodies = (1...40).map { Array("body \($0)".utf8) }

    @Test("Bodies come out in order with a newline each, and are acknowledged", arguments: [nil, 3, 40])
    func acknowledged(limit: Int?) async throws {
        let collector = try NotingCollector(ready: Self.bodies)
        let pipe = makePipe()
        var taking = Taking(
            queue: collector,
            limit: limit,
            wait: .zero,
            acknowledges: true,
            format: .raw,
            output: pipe.output
        )
        try await taking.run()
        try pipe.handle.fileHandleForWriting.close()
        let text = String(decoding: try pipe.handle.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
        #expect(text == (1...(limit ?? 40)).map { "body \($0)\n" }.joined())
        #expect(collector.finished == (1...(limit ?? 40)).map { Completion(Receipt("r\($0)"), .acknowledge) })
    }

    @Test("Without acknowledging, everything is released at the end")
    func released() async throws {
        let collector = try NotingCollector(ready: Self.bodies)
        let pipe = makePipe()
        var taking = Taking(
            queue: collector,
            limit: nil,
            wait: .zero,
            acknowledges: false,
            format: .raw,
            output: pipe.output
        )
        try await taking.run()
        #expect(collector.finished == (1...40).map { Completion(Receipt("r\($0)"), .release) })
    }

    @Test("What nobody read is released, not acknowledged")
    func closedOutput() async throws {
        signal(SIGPIPE, SIG_IGN)
        let collector = try NotingCollector(ready: Self.bodies)
        // Not a pipe: a child that another test starts at this moment would hold its other end open.
        var ends: [Int32] = [0, 0]
        try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        defer { for end in ends { close(end) } }
        try #require(shutdown(ends[0], Int32(SHUT_RDWR)) == 0)
        var taking = Taking(
            queue: collector,
            limit: 5,
            wait: .zero,
            acknowledges: true,
            format: .raw,
            output: OutputStream(descriptor: ends[1], label: "test")
        )
        await #expect(throws: OutputClosed.self) { try await taking.run() }
        #expect(collector.finished == (1...5).map { Completion(Receipt("r\($0)"), .release) })
    }

    @Test("A delivery as JSON has its keys in a fixed order")
    func json() throws {
        let delivery = Delivery(
            id: MessageID("1-2"),
            queue: try QueueName("q"),
            body: [0xFF],
            headers: ["B": "x\"", "A": "y"],
            attempt: 3,
            publishedAt: Timestamp(millisecondsSince1970: 1_700_000_000_123),
            receipt: Receipt("r")
        )
        let expected =
            #"{"id":"1-2","attempt":3,"headers":{"B":"x\"","A":"y"},"bodyBase64":"/w==","receipt":"r","#
            + #""publishedAt":"2023-11-14T22:13:20.123Z"}"# + "\n"
        #expect(String(decoding: Taking.json(delivery).line, as: UTF8.self) == expected)
    }
}
