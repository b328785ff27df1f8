import StalkCore
import Testing

@testable import StalkWorker

@Suite struct OutcomeRulesTests {
    let rules = OutcomeRules(maxDelay: .seconds(900))

    func decide(_ result: HandlerResult, attempt: Int = 1, max: Int? = 3) throws -> Disposition {
        var generator = SplitMix64(seed: 1)
        return self.rules.disposition(for: result, of: try self.facts(attempt: attempt, max: max), using: &generator)
    }

    func facts(attempt: Int, max: Int?, interval: Duration = .seconds(10)) throws -> DeliveryFacts {
        DeliveryFacts(
            id: MessageID("m"),
            receipt: Receipt("r"),
            attempt: attempt,
            policy: try .fixed(interval, maxAttempts: max)
        )
    }

    @Test func returnedDispositionHolds() throws {
        let outgoing = [OutgoingMessage(Message("next"), to: try QueueName("other"))]
        for disposition in [.acknowledge, .release, .acknowledgeAndPublish(outgoing)] as [Disposition] {
            #expect(try self.decide(.returned(disposition), attempt: 99) == disposition)
        }
        #expect(try self.decide(.returned(.deadLetter(reason: "bad"))) == .deadLetter(reason: "bad"))
        let retry = Disposition.retry(after: .seconds(77), reason: "later")
        #expect(try self.decide(.returned(retry)) == retry)
    }

    @Test func returnedRetryEndsWithAttempts() throws {
        let retry = HandlerResult.returned(.retry(after: .seconds(77), reason: "later"))
        #expect(try self.decide(retry, attempt: 2) == .retry(after: .seconds(77), reason: "later"))
        #expect(try self.decide(retry, attempt: 3) == .deadLetter(reason: "later"))
        #expect(try self.decide(retry, attempt: 1, max: 1) == .deadLetter(reason: "later"))
        #expect(try self.decide(retry, attempt: 1000, max: nil) == .retry(after: .seconds(77), reason: "later"))
    }

    @Test func thrownErrorIsRetriedByPolicy() throws {
        #expect(try self.decide(.threw(Oops()), attempt: 1) == .retry(after: .seconds(10), reason: "oops"))
        #expect(try self.decide(.threw(Oops()), attempt: 2) == .retry(after: .seconds(10), reason: "oops"))
        #expect(try self.decide(.threw(Oops()), attempt: 3) == .deadLetter(reason: "oops"))
    }

    @Test func specialErrorsSayMore() throws {
        #expect(try self.decide(.threw(DeadLetter("poison"))) == .deadLetter(reason: "poison"))
        let later = HandlerResult.threw(RetryLater(after: .seconds(5), reason: "rate limit"))
        #expect(try self.decide(later, attempt: 2) == .retry(after: .seconds(5), reason: "rate limit"))
        #expect(try self.decide(later, attempt: 3) == .deadLetter(reason: "rate limit"))
    }

    @Test func policyWaitIsCutToWhatCollectorKeeps() throws {
        var generator = SplitMix64(seed: 1)
        let facts = try self.facts(attempt: 1, max: nil, interval: .seconds(3600))
        #expect(self.rules.failure(of: facts, "x", using: &generator) == .retry(after: .seconds(900), reason: "x"))
    }

    @Test func usedUpAttemptsForbidToRun() throws {
        #expect(self.rules.reasonAgainstRunning(try self.facts(attempt: 3, max: 3)) == nil)
        #expect(self.rules.reasonAgainstRunning(try self.facts(attempt: 300, max: nil)) == nil)
        let reason = try #require(self.rules.reasonAgainstRunning(try self.facts(attempt: 4, max: 3)))
        #expect(reason.hasPrefix("attempt 4 of at most 3"))
    }

    @Test(arguments: ["x", "é", "👋🏽", "e\u{301}"])
    func longReasonIsCutBetweenCharacters(character: Character) {
        let long = String(repeating: character, count: 2000)
        let cut = OutcomeRules.bounded(long)
        #expect(cut.utf8.count <= 1024)
        #expect(cut.utf8.count > 1024 - String(character).utf8.count - 3)
        #expect(cut.last == "…")
        #expect(cut.dropLast().allSatisfy { $0 == character })
    }

    @Test func reasonAtBoundIsKept() {
        let reason = String(repeating: "x", count: 1024)
        #expect(OutcomeRules.bounded(reason) == reason)
    }

    @Test func backoffGrowsToCapAndRests() {
        let backoff = WorkerBackoff(from: .milliseconds(100), cap: .seconds(1))
        for seed in 0..<50 as Range<UInt64> {
            var generator = SplitMix64(seed: seed)
            for (failure, largest) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (500, 1000)] {
                let delay = backoff.delay(afterFailure: failure, using: &generator)
                #expect(delay >= .milliseconds(largest) / 2)
                #expect(delay <= .milliseconds(largest))
            }
        }
    }
}
