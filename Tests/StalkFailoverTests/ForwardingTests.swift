import InMemoryLogging
import Logging
import StalkCore
import StalkLocal
import StalkTesting
import Testing

@testable import StalkFailover

@Suite struct ForwardingTests {
    @Test func anOutageIsTriedSeldomWithOneSmallBatch() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        var options = FailoverOptions(mode: .writeThrough)
        options.forwarding.trialBatch = 3
        try await rig.live(options) { collector, _ in
            for number in 0..<30 { try await collector.publish(Message("\(number)")) }
            try await rig.until("the breaker") { try await collector.stats().breaker == .open }
            let before = rig.remote.batches.count
            try await rig.pass(.seconds(600), steps: 600)
            let trials = rig.remote.batches.dropFirst(before)
            // Full jitter up to 60 s: 20 trials in 10 minutes are expected, and never more messages than a trial may have.
            #expect((5...60).contains(trials.count), "\(trials.count)")
            #expect(trials.allSatisfy { $0 <= 3 })
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
            #expect(rig.arrived == (0..<30).map(String.init))
            #expect(try await collector.stats().forwarding.ambiguous == 0)
        }
    }

    @Test func throttlingLowersTheRateAndOpensNothing() async throws {
        let rig = try Rig()
        try await rig.live(FailoverOptions(mode: .writeThrough)) { collector, _ in
            rig.remote.script { $0.next = [.throttled, .throttled, .throttled] }
            for number in 0..<30 { try await collector.publish(Message("\(number)")) }
            try await rig.until("throttling") { try await collector.stats().forwarding.throttled == 3 }
            let stats = try await collector.stats()
            #expect(stats.breaker == .closed && stats.forwarding.opened == 0)
            #expect(stats.rateLimit != nil)
            try await rig.drained(collector)
            #expect(rig.arrived == (0..<30).map(String.init))
        }
    }

    @Test func theRateIsKept() async throws {
        let rig = try Rig()
        var options = FailoverOptions(mode: .writeThrough)
        options.forwarding.messagesPerSecond = 10
        try await rig.live(options) { collector, _ in
            for number in 0..<100 { try await collector.publish(Message("\(number)")) }
            let (start, before) = (rig.clock.now, rig.arrived.count)
            try await rig.until("half of it", step: .milliseconds(50)) { rig.arrived.count >= before + 60 }
            let seconds = Double(start.duration(to: rig.clock.now).components.seconds)
            // Sixty messages at ten a second, of which a second's worth may come at once.
            #expect(seconds >= 4)
        }
    }

    @Test func oneRefusedMessageIsSetAsideAndTheRestGoesOn() async throws {
        for refusesWholeCalls in [false, true] {
            let rig = try Rig()
            rig.remote.script {
                $0.refuses = { $0.text == "13" }
                $0.refusesWholeCalls = refusesWholeCalls
                $0.lasting = .notSent
            }
            try await rig.live(FailoverOptions(mode: .writeThrough)) { collector, store in
                for number in 0..<30 { try await collector.publish(Message("\(number)")) }
                rig.remote.script { $0.lasting = nil }
                try await rig.drained(collector)
                #expect(rig.arrived == (0..<30).map(String.init).filter { $0 != "13" })
                let dead = try await store.peek(collector.queue, state: .dead)
                #expect(dead.map { String(decoding: $0.body, as: UTF8.self) } == ["13"])
                #expect(dead[0].failures.last?.reason.contains("scripted: this message is refused") == true)
                #expect(try await collector.stats().forwarding.setAside == 1)
                // What a person sends back goes again, with its id.
                rig.remote.script { $0.refuses = { _ in false } }
                #expect(try await store.redrive(collector.queue) == 1)
                try await rig.drained(collector)
                #expect(rig.arrived.last == "13")
            }
        }
    }

    @Test func aQueueThatRefusesHoldsEverything() async throws {
        for fault in [FaultyCollector.Fault.noSuchQueue, .denied] {
            let rig = try Rig()
            rig.remote.script { $0.lasting = fault }
            let handler = InMemoryLogHandler()
            let logger = Logger(label: "test") { _ in handler }
            try await rig.live(logger: logger) { collector, _ in
                for number in 0..<20 { try await collector.publish(Message("\(number)")) }
                try await rig.pass(.seconds(600), steps: 100)
                let stats = try await collector.stats()
                #expect(stats.waiting == 20 && stats.setAside == 0 && stats.forwarding.setAside == 0)
                // Every 30 to 60 seconds.
                #expect(rig.remote.batches.count <= 22, "\(rig.remote.batches)")
                #expect(handler.entries.filter { $0.level == .error }.count == 1)
                rig.remote.script { $0.lasting = nil }
                try await rig.drained(collector)
                #expect(rig.arrived == (0..<20).map(String.init))
            }
        }
    }

    @Test func aRemoteThatRefusesEveryMessageIsARefusedQueue() async throws {
        let rig = try Rig()
        rig.remote.script { $0.refuses = { _ in true } }
        try await rig.live(FailoverOptions(mode: .writeThrough)) { collector, _ in
            for number in 0..<100 { try await collector.publish(Message("\(number)")) }
            try await rig.pass(.seconds(120), steps: 60)
            let stats = try await collector.stats()
            // Ten in a row, then one a minute.
            #expect((10...16).contains(stats.forwarding.setAside), "\(stats.forwarding)")
            #expect(stats.waiting >= 84)
        }
    }

    @Test func nothingIsDroppedForItsAgeUnlessALimitSaysSo() async throws {
        for limit in [nil, Duration.seconds(86_400)] {
            let rig = try Rig()
            rig.remote.script { $0.lasting = .notSent }
            var options = FailoverOptions()
            options.forwarding.maxAge = limit
            try await rig.live(options) { collector, store in
                try await collector.publish(Message("old"))
                try await rig.pass(.seconds(100_000), steps: 200)
                rig.remote.script { $0.lasting = nil }
                try await rig.drained(collector)
                // A step is longer than the lease of what is being sent, which may make a copy.
                #expect(Set(rig.arrived) == (limit == nil ? ["old"] : []))
                let isThere = try await store.hasQueue(collector.queue)
                let dead = isThere ? try await store.peek(collector.queue, state: .dead) : []
                #expect(dead.count == (limit == nil ? 0 : 1))
                if limit != nil { #expect(dead[0].failures.last?.reason.contains("older than the limit") == true) }
            }
        }
    }

    @Test func aLimitOfTriesSetsAside() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        var options = FailoverOptions(mode: .writeThrough)
        options.forwarding.maxTries = 4
        options.errorQueue = try QueueName("failed")
        try await rig.live(options) { collector, store in
            try await collector.publish(Message("a"))
            try await rig.until("setting aside") { try await collector.stats().forwarding.setAside == 1 }
            #expect(rig.remote.batches.count == 4)
            let failed = try QueueName("failed")
            try await rig.until("recording") { try await store.hasQueue(failed) }
            let message = try #require(try await store.peek(failed).first)
            #expect(message.failures.last?.reason.contains("sent 4 times without success") == true, "\(message)")
        }
    }

    @Test func oneLineWhenItBeginsAndOneWhenItIsOver() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        let handler = InMemoryLogHandler()
        let logger = Logger(label: "test") { _ in handler }
        try await rig.live(logger: logger) { collector, _ in
            for number in 0..<50 { try await collector.publish(Message("\(number)")) }
            try await rig.pass(.seconds(300))
            #expect(handler.entries.map(\.level) == [.warning])
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
            try await rig.until("the last line") { handler.entries.count == 2 }
            #expect(handler.entries[1].level == .notice)
            #expect("\(handler.entries[1].message)".contains("50 forwarded"))
        }
    }

    @Test func figuresTellHowItIsDoing() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        try await rig.live { collector, _ in
            try await collector.publish(Message("12345"))
            try await collector.publish(Message("later", delay: .seconds(86_400)))
            try await rig.until("the breaker") { try await collector.stats().breaker == .open }
            try await rig.pass(.seconds(10))
            let stats = try await collector.stats()
            #expect(stats.waiting == 1 && stats.delayed == 1 && stats.bytes == 10)
            // Not told while the trial has it.
            try await rig.until("the age") { try await collector.stats().oldestAge ?? .zero >= .seconds(10) }
            #expect(stats.timeToEmpty == nil && stats.forwarding.opened >= 1)
        }
    }
}
