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

    /// The remote is silent about one group alone, and the breaker is closed.
    @Test func whatIsNewInAnotherGroupGoesAtOnce() async throws {
        let rig = try Rig()
        let store = try await LocalStore.open(at: rig.path)
        let gate = GroupGate(rig.remote, group: "a")
        var options = FailoverOptions()
        options.forwarding.order = .group
        let collector = try FailoverCollector(primary: gate, spool: store, options: options)
        func message(_ text: String) -> Message { Message(text, headers: ["Stalk-Group": String(text.prefix(1))]) }
        rig.remote.script { $0.next = [.notSent] }
        try await collector.publish(message("a1"))
        while gate.waiting == 0 { try await Task.sleep(for: .milliseconds(1)) }
        try await collector.publish(message("a2"))
        try await collector.publish(message("b1"))
        #expect(rig.arrived == ["b1"])
        let stats = try await collector.stats()
        #expect(stats.direct == 1 && stats.stored == 2 && stats.breaker == .closed)
        gate.open()
        while try await collector.stats().waiting > 0 { try await Task.sleep(for: .milliseconds(1)) }
        #expect(rig.arrived == ["b1", "a1", "a2"])
        await collector.close()
        try await store.close()
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

/// A remote that lets the first publish of a group through, and keeps the next ones waiting until it is opened.
private final class GroupGate: Collector {
    private struct State {
        var calls = 0
        var waiting = 0
        var isOpen = false
    }

    private let base: any Collector
    private let group: String
    private let state = Locked(State())

    init(_ base: any Collector, group: String) {
        self.base = base
        self.group = group
    }

    var queue: QueueName { self.base.queue }
    var capabilities: CollectorCapabilities { self.base.capabilities }
    var waiting: Int { self.state.withLock { $0.waiting } }

    func open() { self.state.withLock { $0.isOpen = true } }

    func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>] {
        if messages.contains(where: { $0.headers["Stalk-Group"] == self.group }) {
            let mustWait = self.state.withLock { state in
                state.calls += 1
                if state.calls > 1 { state.waiting += 1 }
                return state.calls > 1
            }
            while mustWait, !self.state.withLock({ $0.isOpen }) { try await Task.sleep(for: .milliseconds(1)) }
        }
        return try await self.base.publish(messages, durability: durability)
    }

    func take(_ request: TakeRequest) async throws -> [Delivery] { try await self.base.take(request) }

    func finish(_ completions: [Completion], durability: Durability) async throws -> [Result<Void, StalkError>] {
        try await self.base.finish(completions, durability: durability)
    }

    func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        try await self.base.extend(receipts, lease: lease)
    }

    func control(_ command: CollectorCommand) async throws -> CollectorStatus { try await self.base.control(command) }
}
