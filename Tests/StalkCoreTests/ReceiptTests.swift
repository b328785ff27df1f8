import StalkCore
import Testing

@Suite struct ReceiptTests {
    @Test(
        arguments: [
            (0, 0, 0, "stalk-0-0-0"), (1, 2, 3, "stalk-1-2-3"),
            (.max, 255, 1 << 63, "stalk-ffffffffffffffff-ff-8000000000000000"),
        ] as [(UInt64, UInt64, UInt64, String)]
    )
    func aLocalReceiptIsTheSameAfterItWasText(store: UInt64, sequence: UInt64, lease: UInt64, text: String) {
        let receipt = Receipt(token: .local(store: store, sequence: sequence, lease: lease))
        #expect(receipt.description == text)
        #expect(Receipt(text) == receipt)
        #expect(Receipt(text).token == receipt.token)
    }

    /// A broker's receipt must go back to it byte by byte, even if it looks nearly like a local one.
    @Test(arguments: [
        "", "AQEBwJnK+jE/=", "stalk", "stalk-", "stalk-1-2", "stalk-1-2-3-4", "stalk-1--3", "stalk-x-y-z",
        "Stalk-1-2-3",
        "stalk-01-2-3", "stalk-+1-2-3", "stalk-A-2-3", "stalk-1-2--3", "stalk-10000000000000000-2-3", "stalk-1-2-3 ",
    ])
    func anyOtherTextIsKeptAsItIs(text: String) {
        let receipt = Receipt(text)
        #expect(receipt.token == .opaque(text))
        #expect(receipt.description == text)
        #expect(Receipt(receipt.description) == receipt)
    }

    @Test func anIDIsItsText() {
        #expect(MessageID("7-f").description == "7-f")
        #expect(MessageID("7-f") == MessageID(MessageID("7-f").rawValue))
        #expect(MessageID("7-f") != MessageID("7-F"))
    }
}
