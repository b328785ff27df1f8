// The messages of the torture: body and headers follow from a number, so that a wrong byte is recognised by itself.

internal import StalkCore

/// What follows from the number of a message.
enum TortureMessage {
    /// The header that bears the number, since a body may be empty.
    static let header = "Torture-Number"
    /// No body is larger.
    static let largestBody = 24 << 10

    /// The message with a number.
    static func make(_ number: UInt64, delay: Duration = .zero) -> Message {
        Message(Self.body(number), headers: Self.headers(number), delay: delay)
    }

    /// The number that headers bear.
    static func number(in headers: Headers) -> UInt64? {
        headers[Self.header].flatMap { UInt64($0) }
    }

    /// Whether body and headers are what their number says.
    static func isRight(_ number: UInt64, body: [UInt8], headers: Headers) -> Bool {
        headers == Self.headers(number) && body == Self.body(number)
    }

    /// The reason that is given when a delivery of a message fails.
    static func reason(_ number: UInt64, attempt: Int) -> String {
        "torture \(number) failed at attempt \(attempt)"
    }

    private static func headers(_ number: UInt64) -> Headers {
        var headers: Headers = [Self.header: String(number)]
        if number.isMultiple(of: 3) { headers["Kind"] = "third \(number % 100), with ünïcode" }
        return headers
    }

    /// Empty, small, or some kilobytes; text that compresses well, or bytes that don't.
    static func body(_ number: UInt64) -> [UInt8] {
        var random = TortureRandom(seed: number)
        let length =
            switch random.below(16) {
            case 0: 0
            case 1: 1 + random.below(16)
            case 2: 4096 + random.below(Self.largestBody - 4096)
            default: 64 + random.below(1024)
            }
        return random.below(2) == 0 ? Self.text(length, number, &random) : Self.noise(length, &random)
    }

    private static func text(_ length: Int, _ number: UInt64, _ random: inout TortureRandom) -> [UInt8] {
        let words = ["\"name\":", "\"version\":", "\"published\":true,", "\"licence\":\"MIT\",", "\"size\":", "null,"]
        var bytes = Array("{\"number\":\(number),".utf8)
        while bytes.count < length {
            bytes += words[random.below(words.count)].utf8
            bytes += "\(random.below(1000)),".utf8
        }
        return Array(bytes.prefix(length))
    }

    private static func noise(_ length: Int, _ random: inout TortureRandom) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(length + 8)
        while bytes.count < length {
            withUnsafeBytes(of: random.next().littleEndian) { bytes += $0 }
        }
        return Array(bytes.prefix(length))
    }
}

/// Chance that can be repeated: SplitMix64 (Steele, Lea and Flood 2014).
struct TortureRandom: RandomNumberGenerator, Sendable {
    private var state: UInt64

    init(seed: UInt64) {
        self.state = seed
    }

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = self.state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, but not including, a bound.
    mutating func below(_ bound: Int) -> Int {
        Int(truncatingIfNeeded: self.next().multipliedFullWidth(by: UInt64(bound)).high)
    }
}
