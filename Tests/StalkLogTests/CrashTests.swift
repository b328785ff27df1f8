import Glibc
import StalkCore
import StalkLog
import StalkTesting
import Testing

/// How a history of a log is cut.
struct CrashPlan {
    /// How many lives follow each other.
    var lives = 4
    /// How many appends a life has at most.
    var steps = 16
    /// In how many ways the power goes at each place.
    var cuts = 8
    var isLying = false
    var sabotage = LogRun.Sabotage.none
}

/// What cutting histories gave.
struct CrashCount {
    var states = 0
    var torn = 0
    var frames = 0
    /// The first violation of each history, with what is needed to see it again.
    var violations: [(violation: Violation, place: String)] = []
}

/// Cuts one history at each change of the disk, in several ways, and goes on from one of the results, life after life.
func cutHistory(seed: UInt64, _ plan: CrashPlan = CrashPlan()) -> CrashCount {
    var count = CrashCount()
    var generator = SeededGenerator(seed: ~seed)
    var disk = SimulatedDisk(isLying: plan.isLying)
    var run = LogRun(seed: seed, sabotage: plan.sabotage)
    for life in 1...plan.lives {
        let whole = disk.kill()
        var dryRun = run
        // A life on a disk that does not fail ends by itself.
        guard (try? dryRun.live(on: whole, steps: plan.steps)) != nil else { return count }
        let chosen = 1 + generator.below(whole.changes)
        var next: (disk: SimulatedDisk, run: LogRun)?
        for change in 1...whole.changes {
            let victim = disk.kill()
            victim.cutPower(atChange: change)
            var cut = run
            try? cut.live(on: victim, steps: plan.steps)
            for index in 0..<plan.cuts {
                let cutSeed = generator.next()
                let after = victim.crash(seed: cutSeed)
                let recovery = cut.recover(after)
                count.states += 1
                count.torn += recovery.tornBytes > 0 ? 1 : 0
                count.frames += recovery.frames
                if let violation = recovery.violation {
                    let place = "seed \(seed), life \(life), change \(change), cut \(cutSeed)"
                    count.violations.append((violation, place))
                    return count
                }
                // Now and then it is only the process that ends, and the next life finds what was never synced.
                guard change == chosen, index == 0 else { continue }
                next = (generator.below(4) == 0 ? victim.kill() : victim.crash(seed: cutSeed), cut)
            }
        }
        guard let next else { return count }
        (disk, run) = next
    }
    return count
}

/// A number from the environment, to let long runs use the same tests.
func environmentNumber(_ name: String) -> Int? {
    getenv(name).flatMap { Int(String(cString: $0)) }
}

/// The seeds of the histories: STALK_CRASH_HISTORIES asks for more.
private let crashSeeds = (0..<UInt64(environmentNumber("STALK_CRASH_HISTORIES") ?? 20)).map { $0 }

@Suite struct CrashTests {
    @Test("A crash at any change of the disk loses nothing that was synced and invents nothing", arguments: crashSeeds)
    func crashAnywhere(seed: UInt64) {
        let count = cutHistory(seed: seed)
        for (violation, place) in count.violations { Issue.record("\(violation) (\(place))") }
        #expect(count.states > 600)
        #expect(count.torn > 0, "a history without a torn tail tests too little")
        #expect(count.frames > count.states)
    }

    @Test("A disk that lies about syncs is noticed")
    func lyingDisk() {
        let violations = self.violations(CrashPlan(lives: 1, isLying: true))
        #expect(violations.contains { if case .lost = $0 { true } else { false } })
    }

    @Test("Without checksums, torn frames would come back with wrong bytes")
    func checksumsMatter() {
        let violations = self.violations(CrashPlan(sabotage: .checksumsIgnored))
        #expect(violations.contains { if case .changed = $0 { true } else { false } })
    }

    @Test("Without segment numbers, frames of a segment's former life would come back")
    func segmentNumbersMatter() {
        let violations = self.violations(CrashPlan(lives: 24, steps: 4, cuts: 2, sabotage: .segmentNumbersIgnored))
        let isStale = violations.contains {
            switch $0 {
            case .invented, .changed: true
            default: false
            }
        }
        #expect(isStale, "\(violations)")
    }

    private func violations(_ plan: CrashPlan) -> [Violation] {
        (0..<6).flatMap { cutHistory(seed: $0, plan).violations.map(\.violation) }
    }
}
