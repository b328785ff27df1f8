import Glibc
import StalkCore
import StalkLog
import StalkTesting
import Testing

@testable import StalkLocal

/// A number from the environment, to let long runs use the same tests.
func environmentNumber(_ name: String) -> Int? {
    getenv(name).flatMap { Int(String(cString: $0)) }
}

/// How many histories are played: STALK_SCHEDULES asks for more.
private let schedules = environmentNumber("STALK_SCHEDULES") ?? 120
/// In how many states histories are cut, each at every change of the disk: STALK_CRASH_STATES asks for more.
private let crashStates = environmentNumber("STALK_CRASH_STATES") ?? 1000
/// Where the seeds begin: STALK_FIRST_SEED lets long runs go on where others ended.
private let firstSeed = environmentNumber("STALK_FIRST_SEED") ?? 0
/// Two at a time per core, so that all cores are used.
private let parts = 4

/// Whole stores on a simulated disk, in virtual time, against a model.
@Suite struct SimulationTests {
    @Test("Random histories follow the model", .timeLimit(.minutes(60)), arguments: 0..<parts)
    func historiesFollowModel(part: Int) {
        var crashes = 0
        for seed in stride(from: firstSeed + part, to: firstSeed + schedules, by: parts) {
            var simulation = Simulation(seed: UInt64(seed))
            do {
                try simulation.run(lives: 3, steps: 150)
            } catch {
                Issue.record("seed \(seed), step \(simulation.steps): \(error)")
                return
            }
            crashes += simulation.crashes
        }
        #expect(crashes >= 3 * (schedules / parts))
    }

    @Test("A crash at any change of the disk loses nothing", .timeLimit(.minutes(60)), arguments: 0..<parts)
    func crashAtEveryChange(part: Int) throws {
        var states = 0
        var seed = firstSeed + part
        while states < crashStates / parts {
            defer { seed += parts }
            var rehearsal = Simulation(seed: UInt64(seed))
            try rehearsal.live(.close, steps: 60)
            let changes = rehearsal.changes
            #expect(changes > 20)
            for change in 1...changes {
                for cut in 0..<4 as Range<UInt64> {
                    var simulation = Simulation(seed: UInt64(seed))
                    simulation.cutSeed = cut
                    states += 1
                    do {
                        try simulation.live(.powerCut(change: change), steps: 60)
                        try simulation.drain()
                    } catch {
                        Issue.record("seed \(seed), change \(change), cut \(cut): \(error)")
                        return
                    }
                }
            }
        }
    }

    @Test("The same seed gives the same run")
    func sameSeedSameRun() throws {
        for seed in 0..<20 as Range<UInt64> {
            var fingerprints: Set<UInt64> = []
            for _ in 0..<3 {
                var simulation = Simulation(seed: seed)
                try simulation.run(lives: 3, steps: 150)
                fingerprints.insert(simulation.fingerprint)
            }
            #expect(fingerprints.count == 1, "seed \(seed)")
        }
    }

    @Test("One history, told step by step: STALK_SEED names it", .enabled(if: environmentNumber("STALK_SEED") != nil))
    func oneHistory() throws {
        var simulation = Simulation(seed: UInt64(environmentNumber("STALK_SEED") ?? 0))
        simulation.isTold = true
        try simulation.run(lives: 3, steps: 150)
    }
}

/// The simulation must notice what it is there for: each of these must fail it within some seeds.
@Suite struct SimulationControls {
    enum Sabotage: CaseIterable {
        /// Syncs of files do nothing.
        case lyingSync
        /// Syncs of directories do nothing.
        case lyingDirectorySync
        /// Recovery does not find the log's frames.
        case skippedReplay
        /// Commits of the index are forgotten.
        case forgottenIndex
        /// A byte of a body changes on the disk.
        case changedByte
    }

    @Test("A store that breaks its promise is found out", arguments: Sabotage.allCases)
    func sabotageIsNoticed(_ sabotage: Sabotage) {
        for seed in 0..<400 as Range<UInt64> {
            let disk =
                switch sabotage {
                case .lyingSync: SimulatedDisk(lyingAbout: [.sync])
                case .lyingDirectorySync: SimulatedDisk(lyingAbout: [.syncDirectory])
                case .skippedReplay, .forgottenIndex, .changedByte: SimulatedDisk()
                }
            var simulation = Simulation(seed: seed, disk: disk)
            simulation.sabotage = { disk in Self.spoil(disk, sabotage) }
            do {
                try simulation.run(lives: 3, steps: 150)
            } catch {
                return
            }
        }
        Issue.record("\(sabotage) is not noticed")
    }

    /// Damages the disk between two lives.
    private static func spoil(_ disk: SimulatedDisk, _ sabotage: Sabotage) {
        let segments = (try? disk.kill().list("log")) ?? []
        switch sabotage {
        case .lyingSync, .lyingDirectorySync: break
        case .skippedReplay:
            for name in segments {
                let zeros = [UInt8](repeating: 0, count: SimulatedStore.segmentBytes)
                disk.damage("log/\(name)", at: 0, with: zeros)
            }
        case .forgottenIndex:
            // Only the first commit, which makes the tables, stays whole.
            let count = disk.contents(of: "index/data.mdb")?.count ?? 0
            if count > 400 { disk.truncate("index/data.mdb", to: 400) }
        case .changedByte:
            for name in segments { Self.changeByte(of: "log/\(name)", on: disk) }
        }
    }

    /// Changes the middle byte of a segment's first frame, and makes its checksum fit, as if nobody looked at it.
    private static func changeByte(of name: String, on disk: SimulatedDisk) {
        guard let segment = disk.contents(of: name), let number = Segment.number(inName: String(name.dropFirst(4))),
            let (header, _) = segment.withUnsafeBytes({ FrameHeader.read($0, segment: number, store: 4711) }),
            header.payloadBytes > 8, FrameHeader.byteCount + header.payloadBytes <= segment.count
        else { return }
        var frame = Array(segment.prefix(FrameHeader.byteCount + header.payloadBytes))
        frame[FrameHeader.byteCount + header.payloadBytes / 2] ^= 1
        header.seal(&frame)
        disk.damage(name, at: 0, with: frame)
    }
}
