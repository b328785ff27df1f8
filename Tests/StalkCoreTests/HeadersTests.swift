import StalkCore
import Testing

@Suite struct HeadersTests {
    @Test func keepsTheOrderAndTheSpellingOfTheFirstSetting() {
        var headers: Headers = ["Trace-Id": "1", "priority": "low"]
        headers["TRACE-ID"] = "2"
        headers["extra"] = ""
        #expect(headers.map(\.name) == ["Trace-Id", "priority", "extra"])
        #expect(headers.map(\.value) == ["2", "low", ""])
        #expect(headers["trace-id"] == "2")
        #expect(headers["missing"] == nil)
    }

    @Test func settingNilRemoves() {
        var headers: Headers = ["a": "1", "b": "2"]
        headers["A"] = nil
        headers["missing"] = nil
        #expect(headers == ["b": "2"])
        headers["b"] = nil
        #expect(headers.isEmpty)
    }

    @Test func ofANameTwiceTheLastValueHolds() {
        let headers: Headers = ["a": "1", "A": "2"]
        #expect(headers == ["a": "2"])
        #expect(headers.fields.count == 1)
    }

    @Test func countsBytesOfUTF8() {
        let headers: Headers = ["name": "ä€"]
        #expect(headers.byteCount == 4 + 2 + 3)
        #expect(Headers().byteCount == 0)
    }

    @Test func valuesAreAnyText() throws {
        let headers: Headers = ["a": "two\nlines\u{0}and 🥀", "b": ""]
        try headers.validate()
    }

    @Test(arguments: ["", "a b", ".hidden", "-a", "ä", "a:b", "a\n", String(repeating: "n", count: 201)])
    func refusesABadName(name: String) throws {
        let headers: Headers = ["good": "1", name: "2"]
        let error = try stalkError { try headers.validate() }
        #expect(error.code == .invalidArgument)
        #expect(error.message.contains("header name"))
    }

    @Test func sizeIsLimited() throws {
        var headers: Headers = ["n": String(repeating: "v", count: Headers.maxBytes - 1)]
        try headers.validate()
        headers["n"] = String(repeating: "v", count: Headers.maxBytes)
        let error = try stalkError { try headers.validate() }
        #expect(error.code == .bodyTooLarge)
        #expect(error.message.contains("65537"))
        #expect(error.message.contains("65536"))
    }
}
