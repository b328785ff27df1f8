// How long the first in line has waited, told from what was stored and what left.

internal import StalkCore

/// The times at which what waits was stored, in few steps: messages leave in the order in which they came.
struct SpoolAges: Sendable {
    private struct Step {
        var since: Timestamp
        var count: Int
    }

    /// The most steps: beyond them, what is stored counts with the last one before it.
    static let mostSteps = 1024

    private let width: Int64
    private var steps: [Step] = []
    /// Of the first step: what an earlier process left.
    private var earlier = 0

    /// - Parameter limit: The age that matters; it is told to a hundredth of that.
    init(limit: Duration) {
        self.width = max(limit.wholeMillisecondsRoundedUp / 100, 1)
    }

    var stepCount: Int { self.steps.count }

    /// When the first in line was stored; `nil` when nothing waits.
    var oldest: Timestamp? { self.steps.first?.since }

    /// What was found at the beginning.
    mutating func opened(count: Int, since: Timestamp?) {
        guard count > 0, let since else { return }
        self.steps.insert(Step(since: since, count: count), at: 0)
        self.earlier = count
    }

    mutating func add(at wall: Timestamp) {
        if let last = self.steps.indices.last,
            self.steps.count >= Self.mostSteps
                || wall.millisecondsSince1970 - self.steps[last].since.millisecondsSince1970 < self.width
        {
            self.steps[last].count += 1
        } else {
            self.steps.append(Step(since: wall, count: 1))
        }
    }

    /// One of them was not stored after all.
    mutating func takeBack() {
        guard let last = self.steps.indices.last else { return }
        self.steps[last].count -= 1
        if self.steps[last].count == 0 { self.steps.removeLast() }
    }

    /// The first in line has left, or one that was never counted here.
    mutating func left(isCounted: Bool) {
        if !isCounted {
            // A delayed one has no age.
            guard self.earlier > 0 else { return }
            self.earlier -= 1
        }
        guard !self.steps.isEmpty else { return }
        self.steps[0].count -= 1
        if self.steps[0].count == 0 { self.steps.removeFirst() }
    }

    /// Nothing waits.
    mutating func clear() {
        self.steps = []
        self.earlier = 0
    }
}
