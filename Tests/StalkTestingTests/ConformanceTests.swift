import StalkCore
import StalkTesting
import Testing

@Suite struct ConformanceTests {
    @Test(.timeLimit(.minutes(10)), arguments: CollectorCheck.allCases)
    func inMemoryCollectorKeeps(check: CollectorCheck) async throws {
        let outcome = try await CollectorConformance(InMemoryHarness()).run(check)
        let needsLess: Set<CollectorCheck> = [.missingExtensionIsRefused, .missingAtomicPublishIsRefused]
        #expect((outcome == .passed) != needsLess.contains(check), "\(outcome)")
    }

    @Test(.timeLimit(.minutes(10)), arguments: CollectorCheck.allCases)
    func humbleBackendKeeps(check: CollectorCheck) async throws {
        var harness = InMemoryHarness()
        harness.capabilities = .humble
        let outcome = try await CollectorConformance(harness).run(check)
        let needsMore: Set<CollectorCheck> = [
            .badItemAloneIsRefused, .finishAnswersForEach, .delayIsKept, .retryComesAgainWhenDue,
            .waitingTakeGetsDueMessage,
            .extensionKeepsLease, .extensionOutOfRangeIsRefused, .publishingWithAcknowledgeIsOneStep,
            .staleReceiptPublishesNothing, .readyMessagesLeaveInOrder, .retriedMessageTakesPlaceByDueTime,
            .releasedMessageReturnsToFront,
        ]
        #expect((outcome == .passed) != needsMore.contains(check), "\(outcome)")
    }

    @Test(.timeLimit(.minutes(10)), arguments: PlantedBug.all)
    func findsPlanted(bug: PlantedBug) async throws {
        var harness = InMemoryHarness(bug: bug)
        harness.timing.patience = .milliseconds(200)
        if bug.isOfHumbleBackend { harness.capabilities = .humble }
        let error = await #expect(throws: ConformanceFailure.self, "the bug was not found") {
            try await CollectorConformance(harness).run(bug.foundBy)
        }
        #expect(error?.check == bug.foundBy)
    }

    @Test func everyCheckHasBugThatItFinds() {
        let without = Set(CollectorCheck.allCases).subtracting(PlantedBug.all.map(\.foundBy))
        #expect(without.isEmpty)
    }

    @Test func runOfAllRecordsEachFailure() async throws {
        try await withKnownIssue {
            let bug = PlantedBug("wakes on scale", .scaleNeverWakes) { collector in
                let base = collector.base
                collector.onControl = { command in
                    if case .scale = command { try await base.wake() }
                    return try await base.control(command)
                }
            }
            try await CollectorConformance(InMemoryHarness(bug: bug)).run()
        } matching: { issue in
            (issue.error as? ConformanceFailure)?.check == .scaleNeverWakes
        }
    }

    @Test func runOfAllPassesHonestCollector() async throws {
        try await CollectorConformance(InMemoryHarness()).run()
    }
}

extension CollectorCapabilities {
    /// A backend that can hardly do anything, as the protocol allows.
    static var humble: CollectorCapabilities {
        CollectorCapabilities(
            maxBodyBytes: 1000,
            maxDelay: .zero,
            maxLease: .seconds(100),
            maxBatch: 1,
            ordering: .bestEffort,
            leaseExtension: false,
            atomicPublish: false,
            uncountedRelease: false,
            durableDelay: false
        )
    }
}
