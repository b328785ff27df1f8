import StalkCore
import StalkLocal
import StalkTesting
import Testing

@testable import StalkFailover

@Suite struct ConsumingTests {
    @Test func anAcknowledgeIsKeptWhileTheRemoteIsAway() async throws {
        let rig = try Rig()
        try await rig.live { collector, _ in
            try await collector.publish(Message("a"))
            try await collector.wake()
            let delivery = try #require(try await collector.take(TakeRequest(lease: .seconds(600))).first)
            rig.remote.script { $0.isConsumerAway = true }
            try await collector.acknowledge(delivery)
            #expect(try await collector.stats().outcomesWaiting == 1)
            #expect(rig.base.counts.leased == 1)
            rig.remote.script { $0.isConsumerAway = false }
            try await rig.until("the acknowledge") { rig.base.counts == InMemoryCollector.Counts() }
        }
    }

    @Test func whatComesAgainIsRecognised() async throws {
        for isRestarted in [false, true] {
            let rig = try Rig()
            let isDone: @Sendable (FailoverCollector) async throws -> Void = { collector in
                rig.remote.script { $0.isConsumerAway = false }
                // The lease is over: the message comes again, to nobody.
                try await rig.until("recognising") {
                    let fresh = try await collector.take(TakeRequest())
                    #expect(fresh.isEmpty)
                    return rig.base.counts == InMemoryCollector.Counts(dead: 1)
                }
                #expect(try await collector.stats().recognised >= 2 || rig.base.deadLetters.count == 1)
            }
            try await rig.live { collector, _ in
                try await collector.publish([Message("done"), Message("failed")])
                try await collector.wake()
                let deliveries = try await collector.take(TakeRequest(max: 2, lease: .seconds(30)))
                rig.remote.script { $0.isConsumerAway = true }
                try await collector.acknowledge(deliveries[0])
                try await collector.finish(deliveries[1], .deadLetter(reason: "no good"))
                try await rig.pass(.seconds(40))
                #expect(rig.base.counts.ready == 2)
                if !isRestarted { try await isDone(collector) }
            }
            if isRestarted { try await rig.live { collector, _ in try await isDone(collector) } }
            #expect(rig.base.deadLetters.map(\.reason) == ["no good"])
        }
    }

    /// Its lease ends in the outage: the remote gives the message out anew, and no handler gets it before its time.
    @Test(arguments: [false, true]) func aRetryInAnOutageWaitsForItsTime(isRestarted: Bool) async throws {
        let rig = try Rig()
        let (comesAgain, comesInTime) = (Duration.seconds(40), Duration.seconds(300))
        let isRetried: @Sendable (FailoverCollector) async throws -> Void = { collector in
            rig.remote.script { $0.isConsumerAway = false }
            for _ in 0..<20 {
                try await rig.pass(.seconds(5), steps: 4)
                let early = try await collector.take(TakeRequest())
                #expect(early.isEmpty)
            }
            #expect(try await collector.stats().outcomesWaiting == 0)
            try await rig.pass(comesInTime)
            let again = try #require(try await collector.take(TakeRequest()).first)
            #expect(again.text == "a")
            try await collector.acknowledge(again)
            #expect(rig.base.counts == InMemoryCollector.Counts())
        }
        try await rig.live { collector, _ in
            try await collector.publish(Message("a"))
            try await collector.wake()
            let delivery = try #require(try await collector.take(TakeRequest(lease: .seconds(30))).first)
            rig.remote.script { $0.isConsumerAway = true }
            try await collector.finish(delivery, .retry(after: comesInTime, reason: "later"))
            // What the remote would refuse is refused at once.
            await #expect(throws: StalkError.self) {
                try await collector.finish(delivery, .retry(after: .seconds(100_000), reason: "too long"))
            }
            #expect(try await collector.stats().outcomesWaiting == 1)
            try await rig.pass(comesAgain)
            #expect(rig.base.counts.ready == 1)
            if !isRestarted { try await isRetried(collector) }
        }
        if isRestarted { try await rig.live { collector, _ in try await isRetried(collector) } }
    }

    /// Its lease holds until the remote is back: the remote learns of the retry itself, with what is left of its delay.
    @Test func aRetryIsToldWhenTheRemoteIsBack() async throws {
        let rig = try Rig()
        try await rig.live { collector, _ in
            try await collector.publish(Message("a"))
            try await collector.wake()
            let delivery = try #require(try await collector.take(TakeRequest(lease: .seconds(600))).first)
            rig.remote.script { $0.isConsumerAway = true }
            try await collector.finish(delivery, .retry(after: .seconds(200), reason: "later"))
            try await rig.pass(.seconds(20))
            rig.remote.script { $0.isConsumerAway = false }
            try await rig.until("the retry") { rig.base.counts == InMemoryCollector.Counts(delayed: 1) }
            let early = try await collector.take(TakeRequest())
            #expect(early.isEmpty)
            try await rig.pass(.seconds(200))
            let again = try #require(try await collector.take(TakeRequest()).first)
            #expect(again.attempt == 2)
        }
    }

    /// A retry that is over and an acknowledgement after it: the later one is what holds.
    @Test func whatWasRetriedAndThenDoneIsDone() async throws {
        let rig = try Rig()
        try await rig.live { collector, _ in
            try await collector.publish(Message("a"))
            try await collector.wake()
            let first = try #require(try await collector.take(TakeRequest(lease: .seconds(10))).first)
            rig.remote.script { $0.isConsumerAway = true }
            try await collector.finish(first, .retry(after: .seconds(20), reason: "later"))
            try await rig.pass(.seconds(30))
            rig.remote.script { $0.isConsumerAway = false }
            try await rig.until("telling") { try await collector.stats().outcomesWaiting == 0 }
            let second = try #require(try await collector.take(TakeRequest(lease: .seconds(10))).first)
            rig.remote.script { $0.isConsumerAway = true }
            try await collector.acknowledge(second)
            try await rig.pass(.seconds(30))
            rig.remote.script { $0.isConsumerAway = false }
            try await rig.until("recognising") {
                let early = try await collector.take(TakeRequest())
                #expect(early.isEmpty)
                return rig.base.counts == InMemoryCollector.Counts()
            }
        }
    }

    @Test func outcomesComeBackFromTheirHeaders() {
        let due = Timestamp(millisecondsSince1970: 1_700_000_000_000)
        for outcome in [Outcome.acknowledge, .deadLetter(reason: "no"), .retry(due: due, reason: "later")] {
            #expect(Outcome(outcome.headers("id")) == outcome)
        }
        let soon = Timestamp(millisecondsSince1970: due.millisecondsSince1970 - 10)
        #expect(Outcome(.release, at: due) == nil)
        #expect(Outcome(.retry(after: .milliseconds(10), reason: ""), at: soon) == .retry(due: due, reason: ""))
        let retry = Outcome.retry(due: due, reason: "")
        #expect(retry.holds(at: soon) && !retry.holds(at: due))
        #expect(retry.disposition(at: soon) == .retry(after: .milliseconds(10), reason: ""))
    }
}

@Suite struct DeferredTests {
    @Test func aRemoteThatCannotBeOpenedYetIsOpenedLater() async throws {
        let rig = try Rig()
        let isAway = Counter()
        let deferred = DeferredCollector(queue: rig.base.queue, assuming: .likeSQS) {
            guard isAway.value > 0 else { throw StalkError(.unavailable, "not yet") }
            return rig.remote
        }
        // What is asked for now is done when it is there.
        #expect(try await deferred.wake() == CollectorStatus(isAsleep: false, maxInFlight: nil, inFlight: 0))
        #expect(try await deferred.scale(to: 2).maxInFlight == 2)
        let error = await #expect(throws: StalkError.self) { try await deferred.publish(Message("a")) }
        #expect(error?.code == .unavailable && deferred.opened == nil)
        isAway.add()
        for number in 0..<3 { try await deferred.publish(Message("\(number)")) }
        #expect(try await deferred.take(TakeRequest(max: 10)).count == 2)
        #expect(rig.arrived == ["0", "1", "2"])
    }
}
