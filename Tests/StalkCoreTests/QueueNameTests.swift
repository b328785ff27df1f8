import StalkCore
import Testing

@Suite struct QueueNameTests {
    private static let allowed = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-".utf8)
    private static let refusedFirst = Set(".-".utf8)

    @Test(arguments: 0..<128 as Range<UInt8>)
    func everyASCIIByteFollowsTheRule(byte: UInt8) throws {
        let character = String(UnicodeScalar(byte))
        let hex = "0x" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)

        if Self.allowed.contains(byte) {
            #expect(try QueueName("a" + character).rawValue == "a" + character)
        } else {
            let error = try stalkError { _ = try QueueName("a" + character) }
            #expect(error.code == .invalidQueueName)
            #expect(error.message.contains(hex))
            #expect(error.message.contains("at position 1"))
        }

        if Self.allowed.contains(byte) && !Self.refusedFirst.contains(byte) {
            #expect(try QueueName(character).description == character)
        } else {
            let error = try stalkError { _ = try QueueName(character + "a") }
            #expect(error.code == .invalidQueueName)
            #expect(error.message.contains(hex))
            #expect(error.message.contains("at position 0"))
        }
    }

    @Test func namesTheFirstByteOfALetterOutsideOfASCII() throws {
        let error = try stalkError { _ = try QueueName("queue-ä") }
        #expect(error.code == .invalidQueueName)
        #expect(error.message.contains("0xC3 at position 6"))
    }

    @Test func showsAPrintableByteAndHidesControlCharacters() throws {
        #expect(try stalkError { _ = try QueueName("a/b") }.message.contains("0x2F ('/')"))
        let message = try stalkError { _ = try QueueName("a\u{1B}[31m") }.message
        #expect(message.contains("0x1B at"))
        #expect(!message.contains("\u{1B}"))
    }

    @Test func lengthIsFrom1To200Bytes() throws {
        #expect(try stalkError { _ = try QueueName("") }.code == .invalidQueueName)
        #expect(try QueueName(String(repeating: "q", count: 200)).rawValue.count == 200)
        let error = try stalkError { _ = try QueueName(String(repeating: "q", count: 201)) }
        #expect(error.code == .invalidQueueName)
        #expect(error.message.contains("201"))
        #expect(error.message.contains("200"))
    }

    @Test func ordersByBytes() throws {
        let names = try ["b", "a", "B", "a.b", "a-b", "a_b", "ab", "1"].map { try QueueName($0) }
        #expect(names.sorted().map(\.rawValue) == ["1", "B", "a", "a-b", "a.b", "a_b", "ab", "b"])
    }
}
