// One suite for every collector, so that a handler which works on one works on all.

internal import StalkCore
public import Testing

/// The checks that every ``StalkCore/Collector`` passes, run against one backend.
///
/// Run them one by one as a parametrised test, so that each failure has its name:
///
/// ```swift
/// @Test(arguments: CollectorCheck.allCases)
/// func conforms(to check: CollectorCheck) async throws {
///     try await CollectorConformance(MyHarness()).run(check)
/// }
/// ```
///
/// See <doc:Conformance> for the harness.
public struct CollectorConformance<Harness: CollectorHarness>: Sendable {
    /// One check of the suite.
    public typealias Check = CollectorCheck

    private let harness: Harness

    /// Makes the suite for a backend.
    ///
    /// - Parameter harness: How the backend is reached.
    public init(_ harness: Harness) {
        self.harness = harness
    }

    /// Runs every check and records each one that fails as an issue of the running test.
    ///
    /// - Parameter sourceLocation: Where the issues are shown.
    public func run(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        for check in Check.allCases {
            do {
                try await self.run(check)
            } catch let error as CancellationError {
                throw error
            } catch {
                Issue.record(error, "\(check)", sourceLocation: sourceLocation)
            }
        }
    }

    /// Runs one check on a queue of its own.
    ///
    /// - Parameter check: The check.
    /// - Returns: Whether the collector passed, or has nothing to try here.
    /// - Throws: ``ConformanceFailure`` when the collector does not keep the promise; the harness's own errors.
    @discardableResult
    public func run(_ check: Check) async throws -> ConformanceOutcome {
        let collector = try await self.harness.makeCollector()
        let trial = ConformanceTrial(check: check, harness: self.harness, collector: collector)
        let result: Result<ConformanceOutcome, any Error>
        do {
            try await trial.run()
            result = .success(.passed)
        } catch let reason as NotApplicable {
            result = .success(.notApplicable(reason.why))
        } catch let failure as ConformanceFailure {
            result = .failure(failure)
        } catch let error as StalkError {
            result = .failure(trial.failure("an unexpected error: \(error.detailedDescription)"))
        } catch is CancellationError where !Task.isCancelled {
            result = .failure(trial.failure("an unexpected CancellationError, although nothing was cancelled"))
        } catch {
            result = .failure(error)
        }
        try await self.harness.finishUp(collector)
        return try result.get()
    }
}

extension ConformanceTrial {
    /// Runs the check that the trial is for.
    func run() async throws {
        switch self.check {
        case .publishTakeAcknowledge: try await self.publishTakeAcknowledge()
        case .batchPublishesEach: try await self.batchPublishesEach()
        case .badItemAloneIsRefused: try await self.badItemAloneIsRefused()
        case .emptyBatchesAreFine: try await self.emptyBatchesAreFine()
        case .oversizeBatchIsRefused: try await self.oversizeBatchIsRefused()
        case .emptyBodyIsValid: try await self.emptyBodyIsValid()
        case .bodyAtLimitIsValid: try await self.bodyAtLimitIsValid()
        case .bodyOverLimitIsRefused: try await self.bodyOverLimitIsRefused()
        case .anyBytesAreABody: try await self.anyBytesAreABody()
        case .anyTextIsAHeaderValue: try await self.anyTextIsAHeaderValue()
        case .delayIsKept: try await self.delayIsKept()
        case .delayOutOfRangeIsRefused: try await self.delayOutOfRangeIsRefused()
        case .expiredLeaseComesAgain: try await self.expiredLeaseComesAgain()
        case .staleReceiptIsRefused: try await self.staleReceiptIsRefused()
        case .finishedReceiptIsStale: try await self.finishedReceiptIsStale()
        case .secondAcknowledgeIsHarmless: try await self.secondAcknowledgeIsHarmless()
        case .foreignReceiptIsRefused: try await self.foreignReceiptIsRefused()
        case .extensionKeepsLease: try await self.extensionKeepsLease()
        case .extensionOutOfRangeIsRefused: try await self.extensionOutOfRangeIsRefused()
        case .missingExtensionIsRefused: try await self.missingExtensionIsRefused()
        case .retryComesAgainWhenDue: try await self.retryComesAgainWhenDue()
        case .retryWithoutDelayComesAtOnce: try await self.retryWithoutDelayComesAtOnce()
        case .retryDelayOutOfRangeIsRefused: try await self.retryDelayOutOfRangeIsRefused()
        case .attemptsCountFromOne: try await self.attemptsCountFromOne()
        case .releaseComesAtOnce: try await self.releaseComesAtOnce()
        case .deadLetterLeavesQueue: try await self.deadLetterLeavesQueue()
        case .finishAnswersForEach: try await self.finishAnswersForEach()
        case .publishingWithAcknowledgeIsOneStep: try await self.publishingWithAcknowledgeIsOneStep()
        case .staleReceiptPublishesNothing: try await self.staleReceiptPublishesNothing()
        case .missingAtomicPublishIsRefused: try await self.missingAtomicPublishIsRefused()
        case .readyMessagesLeaveInOrder: try await self.readyMessagesLeaveInOrder()
        case .retriedMessageTakesPlaceByDueTime: try await self.retriedMessageTakesPlaceByDueTime()
        case .releasedMessageReturnsToFront: try await self.releasedMessageReturnsToFront()
        case .takeKeepsToMax: try await self.takeKeepsToMax()
        case .takeArgumentsAreChecked: try await self.takeArgumentsAreChecked()
        case .takersShareWithoutDuplicates: try await self.takersShareWithoutDuplicates()
        case .waitingTakeGetsLaterMessage: try await self.waitingTakeGetsLaterMessage()
        case .waitingTakeGetsDueMessage: try await self.waitingTakeGetsDueMessage()
        case .waitingTakeGetsExpiredLease: try await self.waitingTakeGetsExpiredLease()
        case .waitRunsOut: try await self.waitRunsOut()
        case .cancelledTakeLosesNothing: try await self.cancelledTakeLosesNothing()
        case .startsAsleep: try await self.startsAsleep()
        case .sleepAndWakeAreIdempotent: try await self.sleepAndWakeAreIdempotent()
        case .sleepLeavesDeliveriesAlone: try await self.sleepLeavesDeliveriesAlone()
        case .wakingReachesWaitingTake: try await self.wakingReachesWaitingTake()
        case .scaleLimitsDeliveries: try await self.scaleLimitsDeliveries()
        case .scaleZeroDeliversNothing: try await self.scaleZeroDeliversNothing()
        case .scaleNeverWakes: try await self.scaleNeverWakes()
        case .negativeScaleIsRefused: try await self.negativeScaleIsRefused()
        case .statusCountsDeliveries: try await self.statusCountsDeliveries()
        }
    }
}
