// Latencies in little memory, exact to about a percent and a half.

/// Counts durations in buckets that grow with the duration, 64 to an octave.
struct LatencyHistogram: Sendable {
    private static let subBits = 6
    private static let linear = 1 << (Self.subBits + 1)

    private var counts: [Int]
    private(set) var count = 0

    init() {
        self.counts = [Int](repeating: 0, count: Self.index(of: .max) + 1)
    }

    /// Counts one duration.
    ///
    /// - Parameter nanoseconds: The duration; a negative one counts as none.
    mutating func record(_ nanoseconds: Int64) {
        self.counts[Self.index(of: UInt64(max(nanoseconds, 0)))] += 1
        self.count += 1
    }

    /// Adds what another one counted.
    mutating func merge(_ other: LatencyHistogram) {
        for index in self.counts.indices { self.counts[index] += other.counts[index] }
        self.count += other.count
    }

    /// The duration in nanoseconds that a share of all does not exceed; 0 when there is none.
    ///
    /// - Parameter share: From 0 to 1.
    func quantile(_ share: Double) -> Double {
        let rank = max(1, Int((share * Double(self.count)).rounded(.up)))
        var seen = 0
        for (index, count) in self.counts.enumerated() where count > 0 {
            seen += count
            if seen >= rank { return Self.middle(of: index) }
        }
        return 0
    }

    private static func index(of value: UInt64) -> Int {
        guard value >= UInt64(Self.linear) else { return Int(value) }
        let exponent = 63 - value.leadingZeroBitCount
        let sub = Int(value >> UInt64(exponent - Self.subBits)) & (1 << Self.subBits - 1)
        return Self.linear + (exponent - Self.subBits - 1) << Self.subBits + sub
    }

    private static func middle(of index: Int) -> Double {
        guard index >= Self.linear else { return Double(index) }
        let exponent = (index - Self.linear) >> Self.subBits + Self.subBits + 1
        let sub = (index - Self.linear) & (1 << Self.subBits - 1)
        let width = Double(UInt64(1) << UInt64(exponent - Self.subBits))
        return (Double(1 << Self.subBits + sub) + 0.5) * width
    }
}
