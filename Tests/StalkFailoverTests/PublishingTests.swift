import StalkCore
import StalkLocal
import StalkTesting
import Testing

@testable import StalkFailover

@Suite struct PublishingTests {
    @Test func goesDirectlyWhileTheRemoteIsWell() async throws {
        let rig = try Rig()
        try await rig.live { collector, _ in
            let ids = try await collector.publish([Message("a"), Message("b")]).map { try $0.get() }
            #expect(rig.arrived == ["a", "b"])
            #expect(rig.remote.arrived.map(\.id) == ids.map(\.rawValue))
            #expect(Set(ids).count == 2)
            let stats = try await collector.stats()
            #expect(stats.direct == 2 && stats.stored == 0)
        }
    }

    @Test func isStoredWhileTheRemoteIsAway() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        try await rig.live { collector, _ in
            for number in 0..<25 { try await collector.publish(Message("\(number)")) }
            #expect(rig.arrived.isEmpty)
            #expect(try await collector.stats().waiting == 25)
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
            #expect(rig.arrived == (0..<25).map(String.init))
            #expect(try await collector.stats().forwarding.ambiguous == 0)
        }
    }

    @Test func everythingQueuesBehindWhatWaits() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        try await rig.live { collector, _ in
            for number in 0..<40 {
                // Well again half-way: what is new must not overtake what waits.
                if number == 20 { rig.remote.script { $0.lasting = nil } }
                try await collector.publish(Message("\(number)"))
                if number % 7 == 0 { try await rig.pass(.milliseconds(300), steps: 2) }
            }
            try await rig.drained(collector)
            #expect(rig.arrived == (0..<40).map(String.init))
            // And once nothing waits, it goes directly again.
            let before = try await collector.stats().direct
            try await rig.until("a direct publish") {
                try await collector.publish(Message("x"))
                return try await collector.stats().direct > before
            }
        }
    }

    @Test func groupsThatWaitHoldUpNoOther() async throws {
        let rig = try Rig()
        var options = FailoverOptions()
        options.forwarding.order = .group
        rig.remote.script { $0.next = [.throttled, .throttled] }
        try await rig.live(options) { collector, _ in
            try await collector.publish(Message("a1", headers: ["Stalk-Group": "a"]))
            // Throttled: group a waits for its rate. The breaker is closed, but the rate holds b as well.
            rig.remote.script { $0.next = [] }
            try await collector.publish(Message("a2", headers: ["Stalk-Group": "a"]))
            try await collector.publish(Message("b1", headers: ["Stalk-Group": "b"]))
            try await rig.drained(collector)
            #expect(rig.arrived.filter { $0.hasPrefix("a") } == ["a1", "a2"])
            #expect(Set(rig.arrived) == ["a1", "a2", "b1"])
        }
    }

    @Test func writeThroughStoresFirst() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .silence }
        try await rig.live(FailoverOptions(mode: .writeThrough)) { collector, _ in
            // Returns although the remote never answers.
            for number in 0..<5 { try await collector.publish(Message("\(number)")) }
            #expect(rig.arrived.isEmpty)
            #expect(try await collector.stats().direct == 0)
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
            #expect(rig.arrived == (0..<5).map(String.init))
        }
    }

    @Test func aLostAnswerIsStoredAndCounted() async throws {
        let rig = try Rig()
        rig.remote.script { $0.next = [.lostAnswer(arrived: nil)] }
        try await rig.live { collector, _ in
            let id = try await collector.publish(Message("a"))
            try await rig.drained(collector)
            #expect(rig.remote.arrived.map(\.id) == [id.rawValue, id.rawValue])
            let counters = try await collector.stats().forwarding
            #expect(counters.ambiguous == 1 && counters.mayBeDuplicate == 1)
        }
    }

    @Test func withinTheWindowOfAFifoQueueACopyIsNone() async throws {
        let rig = try Rig("orders.fifo")
        var options = FailoverOptions()
        options.forwarding.deduplicationWindow = .seconds(300)
        rig.remote.script { $0.next = [.lostAnswer(arrived: nil)] }
        try await rig.live(options) { collector, _ in
            let id = try await collector.publish(Message("a"))
            try await rig.drained(collector)
            #expect(rig.remote.arrived.map { $0.headers["Stalk-Deduplication-Id"] } == [id.rawValue, id.rawValue])
            let counters = try await collector.stats().forwarding
            #expect(counters.ambiguous == 1 && counters.mayBeDuplicate == 0)
            // The same again, with an outage that is longer than the window.
            rig.remote.script {
                $0.next = [.lostAnswer(arrived: nil)]
                $0.lasting = .notSent
            }
            try await collector.publish(Message("b"))
            try await rig.pass(.seconds(400))
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
            let after = try await collector.stats().forwarding
            #expect(after.mayBeDuplicate == 1, "\(after) \(rig.remote.batches)")
        }
    }

    @Test func aRefusedMessageIsToldToItsPublisher() async throws {
        let rig = try Rig()
        rig.remote.script { $0.refuses = { $0.text == "bad" } }
        try await rig.live { collector, _ in
            let results = try await collector.publish([Message("a"), Message("bad"), Message("b")])
            #expect(rig.arrived == ["a", "b"])
            #expect((try? results[0].get()) != nil && (try? results[2].get()) != nil)
            #expect(throws: StalkError.self) { try results[1].get() }
            #expect(try await collector.stats().waiting == 0)
        }
    }

    @Test func aSilentRemoteIsGivenUpAfterTheDeadline() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .silence }
        try await rig.live { collector, _ in
            async let published = collector.publish(Message("a"))
            try await rig.until("storing") { try await collector.stats().stored == 1 }
            _ = try await published
            #expect(try await collector.stats().forwarding.ambiguous >= 1)
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
            #expect(Set(rig.arrived) == ["a"])
        }
    }

    @Test func longDelaysWaitInTheStore() async throws {
        let rig = try Rig()
        try await rig.live { collector, _ in
            try await collector.publish(Message("hour", delay: .seconds(3600)))
            try await collector.publish(Message("minute", delay: .seconds(60)))
            try await collector.publish(Message("now"))
            // A minute is within the remote's reach, an hour is not, and holds up nobody.
            #expect(rig.arrived == ["minute", "now"])
            #expect(rig.remote.arrived[0].delay == .seconds(60))
            try await rig.pass(.seconds(2690), steps: 60)
            #expect(rig.arrived.count == 2)
            try await rig.until("the delayed one") { rig.arrived.count == 3 }
            // It left as soon as the rest was within the remote's reach.
            #expect(rig.remote.arrived[2].delay <= .seconds(900) && rig.remote.arrived[2].delay > .seconds(880))
        }
    }

    @Test func delaysThatTheRemoteForgetsWaitInTheStore() async throws {
        var capabilities = CollectorCapabilities.likeSQS
        capabilities.durableDelay = false
        let rig = try Rig(capabilities: capabilities)
        try await rig.live { collector, _ in
            try await collector.publish(Message("later", delay: .seconds(5)))
            #expect(rig.arrived.isEmpty)
        }
        // It outlives the process.
        try await rig.live { collector, _ in
            try await rig.until("the delayed one") { rig.arrived == ["later"] }
        }
    }

    @Test func idsThatWereGivenAreKept() async throws {
        let rig = try Rig()
        try await rig.live { collector, _ in
            let id = try await collector.publish(Message("a", headers: ["Stalk-Id": "my-own"]))
            #expect(id.rawValue == "my-own")
            try await collector.wake()
            let delivery = try #require(try await collector.take(TakeRequest()).first)
            #expect(delivery.id == id)
        }
    }
}
