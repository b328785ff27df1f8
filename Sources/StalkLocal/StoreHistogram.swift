// How often something had which size, in buckets.

/// Figures counted in buckets whose bounds never change, so that counts can be added up.
public struct StoreHistogram: Hashable, Sendable {
    /// The upper bounds of the buckets but the last, which has none.
    public let bounds: [Int]
    /// How many fell into each bucket; one more than there are bounds.
    public private(set) var counts: [Int]
    /// All of them added up.
    public private(set) var sum = 0

    /// Counts nothing yet.
    ///
    /// - Parameter bounds: The upper bounds of the buckets but the last, ascending.
    public init(bounds: [Int]) {
        self.bounds = bounds
        self.counts = [Int](repeating: 0, count: bounds.count + 1)
    }

    /// Counts that another process made.
    init(bounds: [Int], counts: [Int], sum: Int) {
        (self.bounds, self.counts, self.sum) = (bounds, counts, sum)
    }

    /// How many there were.
    public var count: Int { self.counts.reduce(0, +) }

    /// Counts one.
    public mutating func record(_ value: Int) {
        self.counts[self.bounds.firstIndex { value <= $0 } ?? self.bounds.count] += 1
        self.sum += value
    }

    /// For how long syncs take, in microseconds: from a disk that has a cache of its own to one that is about to die.
    static let syncMicroseconds = StoreHistogram(
        bounds: [
            50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
            5_000_000,
        ]
    )

    /// For how many calls share a group commit.
    static let commitCalls = StoreHistogram(bounds: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024])
}
