import Foundation
import StalkCore
import StalkIndex
import StalkTesting
import Testing

@testable import StalkLocal

/// Damage of every kind is planned for without a trace, mended when told to, and what was whole stays whole.
@Suite(.timeLimit(.minutes(10))) struct RepairTests {
    @Test(arguments: StoreDamage.all)
    func damageIsMended(_ damage: StoreDamage) async throws {
        let sample = try await SampleStore()
        defer { sample.remove() }
        try damage.make(sample)
        let before = try everything(in: sample.path)
        let plan = try await LocalStore.repair(at: sample.path, apply: false)
        #expect(!plan.problems.isEmpty && !plan.steps.isEmpty && !plan.isApplied)
        #expect(try everything(in: sample.path) == before, "planning left a trace")

        let report = try await LocalStore.repair(at: sample.path, apply: true)
        #expect(report.isApplied && report.problems == plan.problems)
        for file in report.files {
            #expect(FileManager.default.fileExists(atPath: "\(sample.path)/\(file)"), "\(file) is not there")
        }
        try await Self.check(sample, damage, report)

        // A store that is whole is left alone.
        let whole = try everything(in: sample.path)
        let again = try await LocalStore.repair(at: sample.path, apply: true)
        #expect(again.problems.isEmpty && !again.isApplied)
        #expect(try everything(in: sample.path) == whole)
    }

    /// The store is intact, opens with `.refuse`, and holds nothing that it did not hold before.
    private static func check(_ sample: SampleStore, _ damage: StoreDamage, _ report: RepairReport) async throws {
        let verified = try await LocalStore.verify(at: sample.path)
        #expect(verified.problems.isEmpty, "\(damage.name): \(verified.problems)")
        let found = try await sample.read()
        for (id, message) in found {
            let expected = try #require(sample.expected[id], "\(damage.name): a message that never was")
            #expect(message.body == expected.body)
            if !damage.changesStates { #expect(message == expected) }
        }
        let lost = sample.expected.count - found.count
        #expect(lost <= damage.losesAtMost, "\(damage.name): \(lost) messages are gone: \(report)")
        if damage.losesAtMost < .max { #expect(lost == damage.losesAtMost, "the damage hit nothing") }
        // It goes on working.
        let store = try await sample.temporary.open()
        let id = try await store.queue("work").publish(Message("new"))
        #expect(sample.expected[id] == nil, "an id was given out twice")
        try await store.close()
        #expect(try await LocalStore.verify(at: sample.path).problems.isEmpty)
    }

    @Test func intactStoreIsLeftAlone() async throws {
        let sample = try await SampleStore()
        defer { sample.remove() }
        let before = try everything(in: sample.path)
        for apply in [false, true] {
            let report = try await LocalStore.repair(at: sample.path, apply: apply)
            #expect(report == RepairReport(problems: [], messagesKept: report.messagesKept))
            #expect(try everything(in: sample.path) == before)
        }
        #expect(try await sample.read() == sample.expected)
    }

    /// A kill at any step leaves a store that the next repair mends, with nothing lost that one repair keeps.
    @Test(arguments: [
        "a message", "a frame", "the marker is missing", "half of data.mdb", "no index", "no log",
        "marker, index and log",
    ])
    func killedRepairIsRepeated(name: String) async throws {
        let damage = try #require(StoreDamage.all.first { $0.name == name })
        var steps = 1
        var step = 0
        var uncut: Set<SampleStore.Expected> = []
        while step < steps {
            let sample = try await SampleStore(settled: 8, logged: 3)
            defer { sample.remove() }
            try damage.make(sample)
            let counter = NextNumber()
            let last = step
            var repair = StoreRepair(path: sample.path)
            repair.onStep = { _ throws(StalkError) in
                if counter.take() == last { throw StalkError(.interrupted, "killed") }
            }
            let cutShort = repair
            let isKilled = await Self.outcome { try cutShort.apply() } == .interrupted
            #expect(isKilled == (step > 0), "step \(step)")
            if step == 0 { steps = counter.take() }
            try await LocalStore.repair(at: sample.path, apply: true)
            #expect(try await LocalStore.verify(at: sample.path).problems.isEmpty)
            let found = Set(try await sample.read().values)
            if step == 0 { uncut = found }
            #expect(found == uncut, "\(name): cut at step \(step), \(uncut.count) became \(found.count)")
            #expect(!FileManager.default.fileExists(atPath: sample.path + "/repair"))
            step += 1
        }
        #expect(steps > 2)
    }

    private static func outcome(_ body: @escaping @Sendable () throws -> RepairReport) async -> StalkError.Code? {
        do {
            _ = try body()
            return nil
        } catch {
            return (error as? StalkError)?.code
        }
    }

    /// Whatever bits flip: nothing crashes, nothing wrong is read, and repair leaves a store that opens.
    @Test(arguments: 0..<40 as Range<UInt64>)
    func flippedBitsAreMended(seed: UInt64) async throws {
        var random = SeededGenerator(seed: seed)
        let sample = try await SampleStore(settled: 40, logged: 6)
        defer { sample.remove() }
        let flips = Int.random(in: 1...12, using: &random)
        try damage("\(sample.path)/\(StoreDamage.data)") { data in
            for _ in 0..<flips {
                // Half of them where LMDB keeps its pages' headers and nodes, which is where it hurts most.
                var place = Int.random(in: 0..<data.count, using: &random)
                if Bool.random(using: &random) { place = place & ~4095 + Int.random(in: 0..<64, using: &random) }
                data[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            }
        }
        let report = try await LocalStore.repair(at: sample.path, apply: true)
        #expect(try await LocalStore.verify(at: sample.path).problems.isEmpty)
        for (id, message) in try await sample.read() {
            #expect(message.body == sample.expected[id]?.body, "\(report)")
        }
    }

    @Test func nothingIsMadeAStore() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        for apply in [false, true] {
            let missing = await #expect(throws: StalkError.self) {
                try await LocalStore.repair(at: temporary.path, apply: apply)
            }
            #expect(missing?.code == .noSuchStore)
        }
        try FileManager.default.createDirectory(atPath: temporary.path + "/index", withIntermediateDirectories: true)
        try "hello".write(toFile: temporary.path + "/letter", atomically: false, encoding: .utf8)
        let before = try everything(in: temporary.path)
        let foreign = await #expect(throws: StalkError.self) {
            try await LocalStore.repair(at: temporary.path, apply: true)
        }
        #expect(foreign?.code == .notAStore)
        #expect(try everything(in: temporary.path) == before)
    }

    @Test func openStoreIsBusy() async throws {
        let temporary = TemporaryStore()
        defer { temporary.remove() }
        let store = try await temporary.open()
        for apply in [false, true] {
            let error = await #expect(throws: StalkError.self) {
                try await LocalStore.repair(at: temporary.path, apply: apply)
            }
            #expect(error?.code == .storeBusy)
        }
        try await store.close()
    }
}
