// What a spool may hold, and what publishing does when it holds that.

import Foundation
import StalkCore
import StalkTesting
import Testing

@testable import StalkFailover
@testable import StalkLocal

@Suite struct BoundsTests {
    @Test func aFullSpoolRefuses() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        var options = FailoverOptions()
        options.maxMessages = 3
        try await rig.live(options) { collector, _ in
            for number in 0..<3 { try await collector.publish(Message("\(number)")) }
            let error = await #expect(throws: StalkError.self) { try await collector.publish(Message("3")) }
            #expect(error?.code == .storageFull)
            #expect(try await collector.stats().refusedFull == 1)
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
            try await rig.until("room") { (try? await collector.publish(Message("4"))) != nil }
            try await rig.drained(collector)
            #expect(rig.arrived == ["0", "1", "2", "4"])
        }
    }

    @Test func bytesAreBoundedToo() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        var options = FailoverOptions()
        options.maxBytes = 10
        try await rig.live(options) { collector, _ in
            try await collector.publish(Message("12345678"))
            await #expect(throws: StalkError.self) { try await collector.publish(Message("123")) }
            try await collector.publish(Message("12"))
        }
        // A new process knows what the last one left.
        try await rig.live(options) { collector, _ in
            let error = await #expect(throws: StalkError.self) { try await collector.publish(Message("1")) }
            #expect(error?.code == .storageFull)
        }
    }

    @Test func aFullSpoolWaitsForRoom() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        var options = FailoverOptions()
        options.maxMessages = 1
        // Longer than the breaker ever waits, so that room comes first when the remote is back.
        options.whenFull = .wait(.seconds(3600))
        try await rig.live(options) { collector, _ in
            try await collector.publish(Message("0"))
            let refused = Task { try await collector.publish(Message("never")) }
            try await rig.until("the deadline", step: .seconds(120)) { try await collector.stats().refusedFull == 1 }
            await #expect(throws: StalkError.self) { try await refused.value }
            let admitted = Task { try await collector.publish(Message("1")) }
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
            _ = try await admitted.value
            try await rig.drained(collector)
            // A send that was on its way when time was let pass is in doubt, and may have a copy.
            #expect(rig.arrived.suffix(1) == ["1"] && Set(rig.arrived) == ["0", "1"], "\(rig.arrived)")
        }
    }

    @Test func theOldestGoWhereThatWasChosen() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        var options = FailoverOptions()
        options.maxMessages = 5
        options.whenFull = .dropOldest
        try await rig.live(options) { collector, store in
            for number in 0..<5 { try await collector.publish(Message("\(number)")) }
            try await rig.until("the breaker") { try await collector.stats().breaker == .open }
            try await rig.until("giving back") { try await store.stats().queues[0].leased == 0 }
            for number in 5..<8 { try await collector.publish(Message("\(number)")) }
            #expect(try await collector.stats().dropped == 3)
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
            #expect(rig.arrived == ["3", "4", "5", "6", "7"])
        }
    }

    /// Stores a message, and lets its age come to 30 seconds while the remote is away.
    private func anOldOne(_ rig: Rig, _ collector: FailoverCollector, _ store: LocalStore) async throws {
        try await collector.publish(Message("old"))
        try await rig.pass(.seconds(30))
        try await rig.until("the breaker") { try await collector.stats().breaker == .open }
        try await rig.until("giving back") { try await store.stats().queues[0].leased == 0 }
    }

    private func options(_ whenFull: FailoverOptions.WhenFull) -> FailoverOptions {
        var options = FailoverOptions()
        options.maxOldestAge = .seconds(60)
        options.whenFull = whenFull
        return options
    }

    @Test func anOldSpoolRefuses() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        try await rig.live(self.options(.reject)) { collector, store in
            try await self.anOldOne(rig, collector, store)
            try await collector.publish(Message("young"))
            try await rig.pass(.seconds(40))
            let error = await #expect(throws: StalkError.self) { try await collector.publish(Message("refused")) }
            #expect(error?.code == .storageFull && error?.message.contains("older") == true)
            #expect(try await collector.stats().refusedFull == 1)
        }
        // The age is that of the message and not of the process.
        try await rig.live(self.options(.reject)) { collector, _ in
            let error = await #expect(throws: StalkError.self) { try await collector.publish(Message("refused")) }
            #expect(error?.code == .storageFull)
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
            try await rig.until("room") { (try? await collector.publish(Message("new"))) != nil }
            try await rig.drained(collector)
            #expect(rig.arrived == ["old", "young", "new"])
        }
    }

    @Test func anOldSpoolIsWaitedFor() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        try await rig.live(self.options(.wait(.seconds(3600)))) { collector, store in
            try await self.anOldOne(rig, collector, store)
            try await rig.pass(.seconds(40))
            let late = Task { try await collector.publish(Message("new")) }
            try await rig.pass(.seconds(100))
            #expect(try await collector.stats().stored == 1)
            rig.remote.script { $0.lasting = nil }
            _ = try await rig.until("room") { try await collector.stats().waiting == 0 }
            _ = try await late.value
            try await rig.drained(collector)
            #expect(rig.arrived == ["old", "new"])
        }
    }

    @Test func whatIsOlderThanItMayBeGoes() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        try await rig.live(self.options(.dropOldest)) { collector, store in
            try await self.anOldOne(rig, collector, store)
            try await collector.publish(Message("young"))
            try await rig.pass(.seconds(40))
            try await rig.until("giving back") { try await store.stats().queues[0].leased == 0 }
            try await collector.publish(Message("new"))
            #expect(try await collector.stats().dropped == 1)
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
            #expect(rig.arrived == ["young", "new"])
        }
    }

    /// A disk that is really full: a small tmpfs, which only root can mount.
    @Test(.timeLimit(.minutes(5))) func aFullDiskIsTypedAndForwardingBringsSpaceBack() async throws {
        let rig = try Rig()
        try FileManager.default.createDirectory(atPath: rig.path, withIntermediateDirectories: true)
        let isMounted = try Self.run("mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", rig.path) == 0
        guard isMounted else {
            print("SKIPPED: a full disk can't be tried here, since mounting a tmpfs is not allowed.")
            return
        }
        defer { _ = try? Self.run("umount", "-l", rig.path) }
        rig.remote.script { $0.lasting = .notSent }
        try await rig.live { collector, store in
            var random = SeededGenerator(seed: 1)
            let fill = { (most: Int) in
                var stored: [String] = []
                for _ in 0..<most {
                    // Nothing that compression makes small.
                    let body = (0..<1000).flatMap { _ in withUnsafeBytes(of: random.next()) { Array($0) } }
                    do {
                        stored.append(try await collector.publish(Message(body)).rawValue)
                    } catch let error as StalkError {
                        #expect(error.code == .storageFull)
                        break
                    }
                }
                return stored
            }
            let first = try await fill(10_000)
            #expect(first.count > 500 && first.count < 10_000)
            #expect(try await collector.stats().refusedFull == 1)
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
            #expect(rig.remote.arrived.map(\.id) == first)
            try await store.checkpoint()
            rig.remote.script { $0.lasting = .notSent }
            let second = try await fill(300)
            #expect(second.count == 300)
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
            #expect(rig.remote.arrived.map(\.id) == first + second)
        }
    }

    private static func run(_ arguments: String...) throws -> Int32 {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        return process.terminationStatus
    }
}
