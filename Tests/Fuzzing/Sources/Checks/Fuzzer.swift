// What a fuzzer is: a decoder, and what must hold for any bytes that it is given.

/// One decoder under attack.
///
/// libFuzzer looks for an input that breaks a check, beginning with the inputs that were kept. With a planted bug it must
/// find one.
protocol Fuzzer: Sendable {
    /// What the corpus and the command line call it.
    var name: String { get }

    /// Hands bytes to the decoder.
    ///
    /// - Parameters:
    ///   - input: Any bytes.
    ///   - isPlanted: Whether a bug stands in the decoder's place, which the check has to notice.
    /// - Returns: What is wrong with what came out, or `nil`.
    func complaint(about input: [UInt8], isPlanted: Bool) -> String?
}

/// All of them.
let allFuzzers: [any Fuzzer] = [
    LogFuzzer(reseals: false), LogFuzzer(reseals: true), RecordFuzzer(), SettledFuzzer(), EnvelopeFuzzer(),
    ArgumentsFuzzer(), JSONLinesFuzzer(), NSQFuzzer(), WireFuzzer(),
]

/// Bytes of an input that decide something; behind the end come zeros.
struct Choices {
    private var rest: ArraySlice<UInt8>

    init(_ input: [UInt8]) {
        self.rest = input[...]
    }

    mutating func next() -> Int { Int(self.rest.popFirst() ?? 0) }

    /// What was not taken.
    var remaining: [UInt8] { Array(self.rest) }
}
