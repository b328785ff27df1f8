// What of the unsynced is on the disk after a power cut: the part where chance decides.

/// The choices of one power cut.
///
/// Writes and changes of names reach a disk in any order, unless a sync stands between them, so most cuts let each
/// survive by chance. The rest cut one point in time through all of them: what came before is there, what came after
/// is not, and what was just being written is torn.
struct PowerCut {
    private enum Plan {
        case chance(percent: Int)
        case upTo(serial: UInt64)
    }

    private var generator: SeededGenerator
    private let plan: Plan
    /// The smallest piece that reaches the disk as a whole: a page or a sector.
    let unitBytes: Int

    /// - Parameters:
    ///   - seed: Where the choices begin.
    ///   - serials: The numbers of what is not synced.
    init(seed: UInt64, serials: ClosedRange<UInt64>) {
        self.generator = SeededGenerator(seed: seed)
        self.unitBytes = self.generator.below(3) == 0 ? SimulatedContent.pageBytes : SimulatedContent.sectorBytes
        let span = Int(serials.upperBound - serials.lowerBound) + 1
        self.plan =
            switch self.generator.below(8) {
            case 0: .chance(percent: 0)
            case 1: .chance(percent: 100)
            case 2: .chance(percent: 20)
            case 3: .chance(percent: 50)
            case 4: .chance(percent: 80)
            case 5: .chance(percent: 97)
            default: .upTo(serial: serials.lowerBound + UInt64(self.generator.below(span)))
            }
    }

    /// Whether a piece of what was written or changed under a number is on the disk.
    mutating func keeps(_ serial: UInt64) -> Bool {
        switch self.plan {
        case .chance(let percent): self.generator.below(100) < percent
        case .upTo(let last): serial < last || (serial == last && self.generator.below(2) == 0)
        }
    }

    /// How many of these changes to one thing are on the disk: each contains those before it.
    mutating func kept(of serials: some Collection<UInt64>) -> Int {
        var count = 0
        for serial in serials {
            guard self.keeps(serial) else { break }
            count += 1
        }
        return count
    }
}
