import Foundation
import StalkCore
import Testing

@testable import StalkCLI
@testable import StalkLocal

@Suite("Output")
struct OutputTests {
    @Test("Every text survives the way through JSON")
    func jsonText() throws {
        let scalars = (0...0x2FF).compactMap(Unicode.Scalar.init) + ["\u{2028}", "\u{FFFF}", "😀"]
        let text = String(String.UnicodeScalarView(scalars))
        let line = JSONValue.object([.init("k", .string(text))]).line
        #expect(line.dropLast().allSatisfy { $0 >= 0x20 })
        let parsed = try JSONDecoder().decode([String: String].self, from: Data(line))
        #expect(parsed["k"]?.unicodeScalars.elementsEqual(text.unicodeScalars) == true)
    }

    @Test("JSON keeps the order of keys and every digit")
    func jsonValues() {
        let value = JSONValue.object([
            .init("z", .integer(.max)), .init("a", .array([.null, .bool(true), .bool(false), .integer(.min)])),
            .init("m", .object([])),
        ])
        let expected = #"{"z":9223372036854775807,"a":[null,true,false,-9223372036854775808],"m":{}}"# + "\n"
        #expect(String(decoding: value.line, as: UTF8.self) == expected)
    }

    @Test(
        "Sizes are written short",
        arguments: [
            (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (102_400, "100 KiB"),
            (1 << 20, "1.0 MiB"), (1 << 30, "1.0 GiB"),
        ]
    )
    func sizeTexts(bytes: Int, text: String) {
        #expect(sizeText(bytes) == text)
    }

    @Test("Ages are written in their two largest units")
    func ages() {
        #expect(ageText(milliseconds: 999) == "999ms")
        #expect(ageText(milliseconds: 59_999) == "59s")
        #expect(ageText(milliseconds: 3_599_000) == "59m 59s")
        #expect(ageText(milliseconds: 86_399_000) == "23h 59m")
        #expect(ageText(milliseconds: 90_000_000) == "1d 1h")
        let now = Timestamp(millisecondsSince1970: 10_000)
        #expect(relativeText(Timestamp(millisecondsSince1970: 15_000), now: now) == "in 5s")
        #expect(relativeText(Timestamp(millisecondsSince1970: 7000), now: now) == "3s ago")
    }

    @Test("Columns line up and lines end without spaces")
    func table() {
        var table = TextTable([("NAME", .left), ("N", .right), ("REST", .left)])
        table.add(["a", "1000", "x"])
        table.add(["long-name", "7", ""])
        #expect(table.text == "NAME          N  REST\na          1000  x\nlong-name     7\n")
    }

    @Test("Nothing in a body can move the cursor of a terminal")
    func printableText() {
        #expect(
            shownText(Array("a\u{1B}[2Jb\r\n\t\u{9B}\u{202E}".utf8), width: 80) == #"a\u{1b}[2Jb\r\n\t\u{9b}\u{202e}"#
        )
        #expect(shownText(Array("123456".utf8), width: 5) == "1234…")
        #expect(shownText(Array("12345".utf8), width: 5) == "12345")
        #expect(shownText(Array(repeating: 0x61, count: 10_000), width: 5) == "aaaa…")
        #expect(printable("a\nb\u{7}", keepingNewlines: true) == "a\nb\\u{7}")
    }

    @Test("Progress has a bar where the end is known")
    func progress() {
        #expect(ProgressLine.text("published", "3 messages", fraction: nil) == "published 3 messages")
        #expect(ProgressLine.text("checked", "x", fraction: 0.5) == "[============            ] 50%  checked x")
        #expect(ProgressLine.text("checked", "x", fraction: 7).contains("100%"))
    }

    @Test("The figures of a store, for people and for scripts")
    func stats() throws {
        let queue = QueueStats(
            name: try QueueName("mail"),
            ready: 12,
            delayed: 3,
            leased: 0,
            dead: 1,
            bytes: 2048,
            oldestAge: .seconds(61)
        )
        let idle = QueueStats(
            name: try QueueName("z"),
            ready: 0,
            delayed: 0,
            leased: 0,
            dead: 0,
            bytes: 0,
            oldestAge: nil
        )
        let stats = StoreStats(
            queues: [queue, idle],
            logBytes: 1 << 24,
            lmdbBytes: 4096,
            checkpointLag: 512,
            owner: 77,
            setAside: 0,
            activity: StoreActivity(frames: 9, lmdbCommits: 2, syncs: 8, logBytesWritten: 1 << 24)
        )
        let json = String(decoding: StatsCommand.json(stats).line, as: UTF8.self)
        #expect(
            json == #"{"queues":[{"name":"mail","ready":12,"delayed":3,"leased":0,"dead":1,"bytes":2048,"#
                + #""oldestAgeMs":61000,"paused":false},{"name":"z","ready":0,"delayed":0,"leased":0,"dead":0,"#
                + #""bytes":0,"oldestAgeMs":null,"paused":false}],"forwarding":[],"logBytes":16777216,"lmdbBytes":4096,"#
                + #""checkpointLag":512,"setAside":0,"#
                + #""owner":77}"# + "\n"
        )
        let lines = StatsCommand.text(stats).split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines[0] == "QUEUE  READY  DELAYED  LEASED  DEAD   BODIES  OLDEST")
        #expect(lines[1] == "mail      12        3       0     1  2.0 KiB   1m 1s")
        #expect(lines[2] == "z          0        0       0     0      0 B       -")
    }
}
