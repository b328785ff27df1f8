// What an examination found, bounded.

/// Problems in the order in which they were found; of very many only the first are kept one by one.
struct ProblemList {
    private static let keptMax = 1000

    private var kept: [VerifyReport.Problem] = []
    private(set) var count = 0

    var isEmpty: Bool { self.count == 0 }

    mutating func add(_ file: String, at offset: Int? = nil, _ what: String) {
        self.count += 1
        guard self.kept.count < Self.keptMax else { return }
        self.kept.append(VerifyReport.Problem(file: file, offset: offset, what: what))
    }

    mutating func add(_ other: ProblemList) {
        let room = max(0, Self.keptMax - self.kept.count)
        self.kept += other.kept.prefix(room)
        self.count += other.count
    }

    /// The problems, and how many more there are.
    var all: [VerifyReport.Problem] {
        guard self.count > self.kept.count, let file = self.kept.last?.file else { return self.kept }
        let more = VerifyReport.Problem(
            file: file,
            offset: nil,
            what: "and \(self.count - self.kept.count) more problems"
        )
        return self.kept + [more]
    }
}
