import Glibc
import StalkTesting

/// Frames' contents: random, never the same twice, and cheap to make and compare without the optimiser.
struct Payloads {
    private static let pool: [UInt8] = {
        var generator = SeededGenerator(seed: 0x706F_6F6C)
        let words = (0..<8192).map { _ in generator.next() }
        return words.withUnsafeBytes { [UInt8]($0) }
    }()

    /// The longest payload.
    static let maxBytes = 32 << 10

    private var generator: SeededGenerator

    init(seed: UInt64) {
        self.generator = SeededGenerator(seed: seed)
    }

    /// A payload; from eight bytes on, its first eight are used nowhere else.
    mutating func next(bytes count: Int) -> [UInt8] {
        let start = self.generator.below(Self.pool.count - count)
        var payload = [UInt8](Self.pool[start..<start + count])
        guard count >= 8 else { return payload }
        let mark = self.generator.next()
        payload.withUnsafeMutableBytes { $0.storeBytes(of: mark, as: UInt64.self) }
        return payload
    }
}

/// Whether two arrays hold the same bytes; the standard library's `==` takes its time in debug builds.
func isSame(_ left: [UInt8], _ right: [UInt8]) -> Bool {
    guard left.count == right.count else { return false }
    return left.withUnsafeBytes { left in
        right.withUnsafeBytes { right in
            guard let first = left.baseAddress, let second = right.baseAddress else { return true }
            return memcmp(first, second, left.count) == 0
        }
    }
}
