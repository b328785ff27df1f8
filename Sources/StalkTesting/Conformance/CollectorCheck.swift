// The list of what every collector promises, one name per promise.

/// One check of the conformance suite; the name says what must hold.
public enum CollectorCheck: String, CaseIterable, Sendable, CustomStringConvertible {
    // Publishing.
    case publishTakeAcknowledge
    case batchPublishesEach
    case badItemAloneIsRefused
    case emptyBatchesAreFine
    case oversizeBatchIsRefused
    case emptyBodyIsValid
    case bodyAtLimitIsValid
    case bodyOverLimitIsRefused
    case anyBytesAreABody
    case anyTextIsAHeaderValue
    case delayIsKept
    case delayOutOfRangeIsRefused

    // Leases.
    case expiredLeaseComesAgain
    case staleReceiptIsRefused
    case finishedReceiptIsStale
    case secondAcknowledgeIsHarmless
    case foreignReceiptIsRefused
    case extensionKeepsLease
    case extensionOutOfRangeIsRefused
    case missingExtensionIsRefused

    // Dispositions.
    case retryComesAgainWhenDue
    case retryWithoutDelayComesAtOnce
    case retryDelayOutOfRangeIsRefused
    case attemptsCountFromOne
    case releaseComesAtOnce
    case deadLetterLeavesQueue
    case finishAnswersForEach
    case publishingWithAcknowledgeIsOneStep
    case staleReceiptPublishesNothing
    case missingAtomicPublishIsRefused

    // Order.
    case readyMessagesLeaveInOrder
    case retriedMessageTakesPlaceByDueTime
    case releasedMessageReturnsToFront

    // Taking.
    case takeKeepsToMax
    case takeArgumentsAreChecked
    case takersShareWithoutDuplicates
    case waitingTakeGetsLaterMessage
    case waitingTakeGetsDueMessage
    case waitingTakeGetsExpiredLease
    case waitRunsOut
    case cancelledTakeLosesNothing

    // Control.
    case startsAsleep
    case sleepAndWakeAreIdempotent
    case sleepLeavesDeliveriesAlone
    case wakingReachesWaitingTake
    case scaleLimitsDeliveries
    case scaleZeroDeliversNothing
    case scaleNeverWakes
    case negativeScaleIsRefused
    case statusCountsDeliveries

    /// The check's name.
    public var description: String { self.rawValue }
}

/// A promise that a collector did not keep.
public struct ConformanceFailure: Error, CustomStringConvertible {
    /// The check that failed.
    public var check: CollectorCheck
    /// What was seen instead of what must be.
    public var message: String
    /// Where in the suite, as `Module/File.swift:line`.
    public var location: String

    /// The check, what was seen, and where in the suite.
    public var description: String { "\(self.check): \(self.message) [\(self.location)]" }
}

/// How a check ended that did not fail.
public enum ConformanceOutcome: Hashable, Sendable {
    /// The collector keeps the promise.
    case passed
    /// The collector's capabilities leave nothing to try; the text says why.
    case notApplicable(String)
}
