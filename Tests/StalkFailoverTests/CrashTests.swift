import StalkCore
import StalkTesting
import StalkWorker
import Synchronization
import Testing

@testable import StalkFailover
@testable import StalkLocal

@Suite struct CrashTests {
    /// Killed at each step of a message's way: stored, sent but not recorded, recorded but not deleted.
    @Test func aKillAfterStoringLosesNothing() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        let (collector, store) = try await rig.open()
        for number in 0..<15 { try await collector.publish(Message("\(number)")) }
        try await rig.until("the breaker") { try await collector.stats().breaker == .open }
        try await rig.until("giving back") { try await store.stats().queues[0].leased == 0 }
        await rig.kill(collector, store)
        rig.remote.script { $0.lasting = nil }
        try await rig.live { collector, _ in
            // What is new queues behind what the dead process left.
            try await collector.publish(Message("15"))
            try await rig.drained(collector)
            #expect(rig.arrived == (0...15).map(String.init))
            #expect(try await collector.stats().forwarding.ambiguous == 0)
        }
    }

    @Test func aKillBetweenSendingAndRecordingIsAmbiguous() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .silence }
        let (collector, store) = try await rig.open(FailoverOptions(mode: .writeThrough))
        for number in 0..<15 { try await collector.publish(Message("\(number)")) }
        try await rig.until("sending") { rig.remote.batches.count == 1 }
        // The store dies first; then the send succeeds, and nobody can record it.
        store.core.step { engine, _ in engine.fail(.storeClosed) }
        rig.remote.script { $0.lasting = nil }
        await collector.close()
        await store.access.abandon()
        let sent = rig.arrived.count
        rig.remote.script { $0.lasting = nil }
        try await rig.live { collector, _ in
            try await rig.drained(collector)
            let counters = try await collector.stats().forwarding
            // The attempts of the dead process are the ledger: at least what was in flight is in doubt.
            #expect(counters.ambiguous >= 1 && counters.ambiguous >= sent)
            #expect(counters.mayBeDuplicate == counters.ambiguous)
            #expect(Array(rig.arrived.dropFirst(sent)) == (0..<15).map(String.init))
        }
    }

    @Test func aKillAfterRecordingSendsNothingTwice() async throws {
        let rig = try Rig()
        let (collector, store) = try await rig.open(FailoverOptions(mode: .writeThrough))
        for number in 0..<15 { try await collector.publish(Message("\(number)")) }
        try await rig.drained(collector)
        // The books of the store count what is on its way to the log.
        try await store.sync()
        await rig.kill(collector, store)
        try await rig.live { collector, _ in
            try await rig.pass(.seconds(100))
            #expect(rig.arrived == (0..<15).map(String.init))
        }
    }

    @Test func aCloseInAnOutageLosesNothingAndLeavesNothingInDoubt() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        try await rig.live { collector, _ in
            for number in 0..<15 { try await collector.publish(Message("\(number)")) }
        }
        rig.remote.script { $0.lasting = nil }
        try await rig.live { collector, _ in
            try await rig.drained(collector)
            #expect(rig.arrived == (0..<15).map(String.init))
            #expect(try await collector.stats().forwarding.ambiguous == 0)
        }
    }

    /// Ten outages of each kind, with a kill at a random moment in each, two groups, and publishing all along.
    @Test(arguments: [
        FaultyCollector.Fault.notSent, .lostAnswer(arrived: nil), .lostAnswer(arrived: 3), .throttled, .noSuchQueue,
        .denied, .silence,
    ])
    func outagesAndKillsLoseNothing(fault: FaultyCollector.Fault) async throws {
        for order in [ForwardingOrder.queue, .group] {
            let rig = try Rig()
            var random = SeededGenerator(seed: 42)
            var options = FailoverOptions(mode: Bool.random(using: &random) ? .direct : .writeThrough)
            options.forwarding.order = order
            options.directDeadline = .milliseconds(500)
            var oracle = Oracle()
            var ambiguous = 0
            for outage in 0..<10 {
                let (collector, store) = try await rig.open(options)
                let (begin, end) = (Int.random(in: 0..<10, using: &random), Int.random(in: 12..<25, using: &random))
                for number in 0..<30 {
                    if number == begin { rig.remote.script { $0.lasting = fault } }
                    if number == end { rig.remote.script { $0.lasting = nil } }
                    let group = number % 3 == 0 ? "a" : "b"
                    let message = Message("\(outage)-\(number)", headers: ["Stalk-Group": group])
                    async let ticking: Void = rig.pass(.seconds(1), steps: 3)
                    let id = try await collector.publish(message)
                    try await ticking
                    oracle.promised.append((id.rawValue, group))
                }
                try await rig.pass(.milliseconds(Int64.random(in: 0...2000, using: &random)), steps: 4)
                ambiguous += try await collector.stats().forwarding.ambiguous
                let before = collector.forwarder.counters.ambiguous
                await rig.kill(collector, store)
                ambiguous += collector.forwarder.counters.ambiguous - before
            }
            let drained = try await rig.live(options) { collector, _ in
                try await rig.drained(collector)
                return try await collector.stats()
            }
            ambiguous += drained.forwarding.ambiguous
            #expect(drained.setAside == 0)
            let breaches = oracle.breaches(arrived: rig.remote.arrived.map(\.id), ambiguous: ambiguous)
            #expect(breaches == [], "\(order)")
        }
    }

    /// The negative control of the oracle: each planted breach is seen.
    @Test func theOracleSeesWhatGoesWrong() {
        var oracle = Oracle()
        oracle.promised = [("1", "a"), ("2", "a"), ("3", "b")]
        #expect(oracle.breaches(arrived: ["1", "3", "2"], ambiguous: 0) == [])
        #expect(oracle.breaches(arrived: ["1", "2", "1", "3"], ambiguous: 1) == [])
        #expect(!oracle.breaches(arrived: ["1", "3"], ambiguous: 0).isEmpty)
        #expect(!oracle.breaches(arrived: ["2", "1", "3"], ambiguous: 0).isEmpty)
        #expect(!oracle.breaches(arrived: ["1", "2", "1", "3"], ambiguous: 0).isEmpty)
    }
}

@Suite struct LatencyTests {
    /// In real time, the two in turns, so that whatever else the machine does slows both.
    @Test func publishingInAnOutageCostsLessThanTwoLocalPublishes() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        let store = try await LocalStore.open(at: rig.path)
        var options = FailoverOptions()
        options.forwarding.minBackoff = .seconds(60)
        let collector = try FailoverCollector(primary: rig.remote, spool: store, options: options)
        let local = try store.queue("local")
        while try await collector.stats().breaker == .closed { try await collector.publish(Message("x")) }
        let clock = ContinuousClock()
        let message = Message([UInt8](repeating: 7, count: 1024))
        var (spooled, plain): ([Duration], [Duration]) = ([], [])
        for _ in 0..<300 {
            plain.append(try await clock.measure { try await local.publish(message) })
            spooled.append(try await clock.measure { try await collector.publish(message) })
        }
        await collector.close()
        try await store.close()
        let (median, base) = (spooled.sorted()[150], plain.sorted()[150])
        #expect(median < base * 2, "\(median) in the outage, \(base) locally")
    }
}

@Suite struct RememberedTests {
    @Test func aCopyIsKnownAfterARestart() async throws {
        let rig = try Rig()
        let handled = Counter()
        for _ in 0..<2 {
            try await rig.live { _, store in
                let ids = RememberedIDs(store: store, queue: try QueueName("seen"), window: .seconds(3600))
                try await ids.load()
                let handler = [Middleware.deduplicate(in: ids)].around { _ in
                    handled.add()
                    return .acknowledge
                }
                for _ in 0..<2 {
                    let disposition = try await handler(Self.delivery("one"))
                    #expect(disposition == .acknowledge)
                }
                // Without the header, the delivery's own id is taken.
                for _ in 0..<2 { _ = try await handler(Self.delivery(nil)) }
            }
        }
        #expect(handled.value == 2)
    }

    @Test func whatFailedRunsAgainAndWhatIsOldIsForgotten() async throws {
        let rig = try Rig()
        try await rig.live { _, store in
            let ids = RememberedIDs(store: store, queue: try QueueName("seen"), window: .seconds(60))
            try await ids.load()
            let handled = Counter()
            let handler = [Middleware.deduplicate(in: ids)].around { _ in
                handled.add()
                return handled.value == 1 ? .retry(after: .zero, reason: "not yet") : .acknowledge
            }
            for _ in 0..<3 { _ = try await handler(Self.delivery("one")) }
            #expect(handled.value == 2 && ids.count == 1)
            try await rig.pass(.seconds(61))
            try await rig.until("forgetting") {
                try await ids.insert([("other", .acknowledge)])
                return ids.count == 1
            }
            #expect(ids.disposition(of: "one") == nil)
        }
    }

    static func delivery(_ id: String?) throws -> Delivery {
        Delivery(
            id: MessageID("m"),
            queue: try QueueName("q"),
            body: [],
            headers: id.map { ["Stalk-Id": $0] } ?? [:],
            attempt: 1,
            publishedAt: Timestamp(millisecondsSince1970: 0),
            receipt: Receipt("r")
        )
    }
}

final class Counter: Sendable {
    private let count = Atomic(0)
    func add() { self.count.add(1, ordering: .relaxed) }
    var value: Int { self.count.load(ordering: .relaxed) }
}
