import Foundation
import StalkCore
import Testing

@testable import StalkCLI

@Suite("Input")
struct InputTests {
    @Test("Records are the same however the bytes arrive")
    func splitting() throws {
        let text = Array("a\n\nbcd\n\r\ne\u{0}f\nlast".utf8)
        let expected = ["a", "", "bcd", "\r", "e\u{0}f", "last"].map { Array($0.utf8) }
        for size in 1...text.count {
            var splitter = RecordSplitter(separator: 10, maxBytes: 4)
            var records: [[UInt8]] = []
            for start in stride(from: 0, to: text.count, by: size) {
                records += try splitter.append(Array(text[start..<min(start + size, text.count)]))
            }
            records += splitter.finish().map { [$0] } ?? []
            #expect(records == expected, "pieces of \(size)")
        }
    }

    @Test("A final newline begins no record")
    func finalNewline() throws {
        var splitter = RecordSplitter(separator: 10, maxBytes: 10)
        #expect(try splitter.append(Array("a\n".utf8)) == [Array("a".utf8)])
        #expect(splitter.finish() == nil)
    }

    @Test("A record over the limit is refused before it is in memory, and those before it are kept")
    func tooLong() throws {
        var splitter = RecordSplitter(separator: 10, maxBytes: 3)
        #expect(try splitter.append(Array("abc\nab".utf8)).count == 1)
        #expect { try splitter.append(Array("c\nx\nabcd".utf8)) } throws: { error in
            (error as? RecordSplitter.TooLong)?.records.map { String(decoding: $0, as: UTF8.self) } == ["abc", "x"]
        }
    }

    @Test("JSON lines become messages; headers are merged and a delay is replaced")
    func jsonMessage() throws {
        let template = Message([], headers: ["A": "1", "B": "2"], delay: .seconds(1))
        let line = #"{"body":"h\u00e9\n","headers":{"b":"3","C":"4"},"delay":"2m"}"#
        let message = try JSONMessage.message(Array(line.utf8), template: template)
        #expect(message.text == "hé\n")
        #expect(message.headers["A"] == "1" && message.headers["B"] == "3" && message.headers["C"] == "4")
        #expect(message.delay == .seconds(120))
        let raw = try JSONMessage.message(Array(#"{"bodyBase64":"/wA="}"#.utf8), template: template)
        #expect(raw.body == [0xFF, 0])
        #expect(raw.delay == .seconds(1))
    }

    @Test(
        "What is wrong with a JSON line is said",
        arguments: [
            ("", "not JSON"), ("{", "not JSON"), ("[]", "not an object"), ("3", "not an object"),
            (#"{"headers":{}}"#, "neither"), (#"{"body":"a","bodyBase64":"YQ=="}"#, "both"),
            (#"{"body":"a","Body":"b"}"#, "\"Body\" is unknown"), (#"{"body":3}"#, "\"body\" has the wrong type"),
            (#"{"body":"a","headers":{"x":1}}"#, "\"headers.x\" has the wrong type"),
            (#"{"bodyBase64":"*"}"#, "not base64"), (#"{"body":"a","delay":"5"}"#, "needs a unit"),
            (#"{"body":"a"} x"#, "not JSON"),
        ]
    )
    func badJSONMessage(line: String, expected: String) {
        #expect { try JSONMessage.message(Array(line.utf8), template: Message([])) } throws: { error in
            (error as? StalkError)?.message.contains(expected) == true
        }
    }

    @Test("A reader keeps bytes as they are and counts empty lines")
    func readerLines() async throws {
        let messages = try await Self.readAll([0xFF, 10, 10, 0, 10], framing: .lines)
        #expect(messages.map(\.body) == [[0xFF], [], [0]])
    }

    @Test("A reader takes all of an input as one message, also an empty one")
    func readerWhole() async throws {
        #expect(try await Self.readAll(Array("a\nb\n".utf8), framing: .whole).map(\.text) == ["a\nb\n"])
        #expect(try await Self.readAll([], framing: .whole).map(\.body) == [[]])
        #expect(try await Self.readAll([], framing: .lines).isEmpty)
    }

    @Test("A reader hands out what stands before a bad line, then names the line")
    func readerBadLine() async throws {
        let text = "{\"body\":\"a\"}\n{\"body\":\"b\"}\n{\"bodi\":\"c\"}\n{\"body\":\"d\"}\n"
        let reader = try Self.reader(Array(text.utf8), framing: .jsonLines)
        #expect(try await reader.next().map(\.text) == ["a", "b"])
        await #expect { _ = try await reader.next() } throws: { ($0 as? MessageReader.BadRecord)?.number == 3 }
    }

    @Test("A reader refuses a line and an input over the limit")
    func readerTooLong() async throws {
        let reader = try Self.reader(Array("abcd\nabcde\n".utf8), framing: .lines, maxBodyBytes: 4)
        #expect(try await reader.next().map(\.text) == ["abcd"])
        await #expect { _ = try await reader.next() } throws: { error in
            let bad = error as? MessageReader.BadRecord
            return bad?.number == 2 && bad?.reason.code == .bodyTooLarge
        }
        let whole = try Self.reader(Array("abcde".utf8), framing: .whole, maxBodyBytes: 4)
        await #expect { _ = try await whole.next() } throws: {
            ($0 as? MessageReader.BadRecord)?.reason.code == .bodyTooLarge
        }
    }

    @Test("A read that waits ends when its task is cancelled")
    func cancelledRead() async throws {
        let pipe = Pipe()
        let input = try StalkCLI.InputStream(descriptor: pipe.fileHandleForReading.fileDescriptor, closing: false)
        await withTaskGroup(of: Bool.self) { group in
            group.addTask {
                do {
                    _ = try await input.read(upTo: 10)
                    return false
                } catch {
                    return error is CancellationError
                }
            }
            group.cancelAll()
            #expect(await group.next() == true)
        }
        withExtendedLifetime(pipe) {}
    }

    static func reader(
        _ bytes: [UInt8],
        framing: Framing,
        maxBodyBytes: Int = 1 << 20
    ) throws -> MessageReader {
        let pipe = Pipe()
        try pipe.fileHandleForWriting.write(contentsOf: Data(bytes))
        try pipe.fileHandleForWriting.close()
        let descriptor = dup(pipe.fileHandleForReading.fileDescriptor)
        return MessageReader(
            input: try StalkCLI.InputStream(descriptor: descriptor, closing: true),
            first: nil,
            framing: framing,
            template: Message([]),
            capabilities: try NotingCollector(maxBodyBytes: maxBodyBytes).capabilities
        )
    }

    private static func readAll(_ bytes: [UInt8], framing: Framing) async throws -> [Message] {
        let reader = try Self.reader(bytes, framing: framing)
        var all: [Message] = []
        while case let messages = try await reader.next(), !messages.isEmpty { all += messages }
        return all
    }
}
