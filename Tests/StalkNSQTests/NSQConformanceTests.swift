// The public conformance suite on the scripted nsqd, and on a real one where there is one.

internal import StalkCore
internal import StalkNSQ
internal import StalkTesting
internal import Testing

@Suite(.timeLimit(.minutes(10))) struct NSQConformanceTests {
    /// What needs a capability that NSQ lacks, or the lack of one that it has.
    private static let notApplicable: Set<CollectorCheck> = [
        .missingExtensionIsRefused, .publishingWithAcknowledgeIsOneStep, .staleReceiptPublishesNothing,
        .readyMessagesLeaveInOrder, .retriedMessageTakesPlaceByDueTime, .releasedMessageReturnsToFront,
    ]

    /// What NSQ can't do without the envelope: headers, empty bodies, and an id that the publisher knows.
    private static let needEnvelope: Set<CollectorCheck> = [
        .publishTakeAcknowledge, .batchPublishesEach, .emptyBodyIsValid, .anyTextIsAHeaderValue,
        .retryComesAgainWhenDue, .releaseComesAtOnce, .deadLetterLeavesQueue,
    ]

    private static func run(_ check: CollectorCheck, on harness: NSQHarness) async throws -> ConformanceOutcome {
        try await Turnstile.shared.pass {
            try await harness.start()
            let result: Result<ConformanceOutcome, any Error>
            do {
                result = .success(try await CollectorConformance(harness).run(check))
            } catch {
                result = .failure(error)
            }
            await harness.shutDown()
            return try result.get()
        }
    }

    @Test(arguments: CollectorCheck.allCases)
    func collectorKeeps(check: CollectorCheck) async throws {
        let outcome = try await Self.run(check, on: NSQHarness())
        #expect((outcome == .passed) != Self.notApplicable.contains(check), "\(outcome)")
    }

    @Test(arguments: CollectorCheck.allCases)
    func collectorOnThreeNSQDsKeeps(check: CollectorCheck) async throws {
        let outcome = try await Self.run(check, on: NSQHarness(servers: 3))
        #expect((outcome == .passed) != Self.notApplicable.contains(check), "\(outcome)")
    }

    /// Over deflate, and with each byte of the server in a packet of its own where that is quick enough.
    @Test(arguments: CollectorCheck.allCases)
    func compressedCollectorKeeps(check: CollectorCheck) async throws {
        let harness = NSQHarness {
            $0.envelope = true
            $0.deflateLevel = 6
        }
        let outcome = try await Self.run(check, on: harness)
        #expect((outcome == .passed) != Self.notApplicable.contains(check), "\(outcome)")
    }

    @Test(arguments: CollectorCheck.allCases)
    func collectorWithoutEnvelopeKeeps(check: CollectorCheck) async throws {
        let harness = NSQHarness { _ in }
        guard Self.needEnvelope.contains(check) else {
            let outcome = try await Self.run(check, on: harness)
            #expect((outcome == .passed) != Self.notApplicable.contains(check), "\(outcome)")
            return
        }
        // The list is honest only while each of these really fails.
        await #expect(throws: ConformanceFailure.self) { try await Self.run(check, on: harness) }
    }
}
