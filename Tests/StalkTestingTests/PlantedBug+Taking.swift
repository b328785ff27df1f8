import StalkCore
import StalkTesting

extension PlantedBug {
    static let dispositions: [PlantedBug] = [
        PlantedBug("retries at once", .retryComesAgainWhenDue) { collector in
            collector.alterDispositions {
                if case .retry(_, let reason) = $0 { $0 = .retry(after: .zero, reason: reason) }
            }
        },
        PlantedBug("retries as a new message", .retryComesAgainWhenDue) { collector in
            collector.alterDeliveries { if $0.attempt > 1 { $0.id = MessageID("new") } }
        },
        PlantedBug("loses headers on retry", .retryComesAgainWhenDue) { collector in
            collector.alterDeliveries { if $0.attempt > 1 { $0.headers = [:] } }
        },
        PlantedBug("takes a retry for done", .retryWithoutDelayComesAtOnce) { collector in
            collector.alterDispositions { if case .retry = $0 { $0 = .acknowledge } }
        },
        PlantedBug("clamps the delay of a retry", .retryDelayOutOfRangeIsRefused) { collector in
            let longest = collector.capabilities.maxDelay
            collector.alterDispositions { disposition in
                guard case .retry(let delay, let reason) = disposition else { return }
                disposition = .retry(after: min(delay, longest), reason: reason)
            }
        },
        PlantedBug("counts attempts from 0", .attemptsCountFromOne) { $0.alterDeliveries { $0.attempt -= 1 } },
        PlantedBug("does not count crashes", .attemptsCountFromOne) {
            $0.alterDeliveries { if $0.attempt > 2 { $0.attempt -= 1 } }
        },
        PlantedBug("counts a release", .releaseComesAtOnce) { collector in
            collector.alterDispositions { if $0 == .release { $0 = .retry(after: .zero, reason: "release") } }
        },
        PlantedBug("keeps what is released until its lease ends", .releaseComesAtOnce) { collector in
            let finish = collector.onFinish
            collector.onFinish = { completions in
                let kept = completions.filter { $0.disposition != .release }
                return kept.isEmpty ? completions.map { _ in .success(()) } : try await finish(kept)
            }
        },
        PlantedBug("retries dead letters", .deadLetterLeavesQueue) { collector in
            collector.alterDispositions {
                if case .deadLetter(let reason) = $0 { $0 = .retry(after: .zero, reason: reason) }
            }
        },
        PlantedBug("drops dead letters", .deadLetterLeavesQueue) { collector in
            collector.alterDispositions { if case .deadLetter = $0 { $0 = .acknowledge } }
        },
        PlantedBug("loses the reason", .deadLetterLeavesQueue) { $0.alterReason = { _ in "" } },
        PlantedBug("fails all for one", .finishAnswersForEach) { collector in
            let finish = collector.onFinish
            collector.onFinish = { completions in
                let results = try await finish(completions)
                for result in results { try result.get() }
                return results
            }
        },
        PlantedBug("publishes before it acknowledges", .staleReceiptPublishesNothing) { collector in
            let (finish, publish) = (collector.onFinish, collector.onPublish)
            collector.onFinish = { completions in
                for case .acknowledgeAndPublish(let outgoing) in completions.map(\.disposition) {
                    _ = try await publish(outgoing.map(\.message))
                }
                return try await finish(
                    completions.map { completion in
                        guard case .acknowledgeAndPublish = completion.disposition else { return completion }
                        return Completion(completion.receipt, .acknowledge)
                    }
                )
            }
        },
        PlantedBug("acknowledges before it publishes", .publishingWithAcknowledgeIsOneStep) { collector in
            let (finish, publish) = (collector.onFinish, collector.onPublish)
            collector.onFinish = { completions in
                guard case .acknowledgeAndPublish(let outgoing) = completions[0].disposition else {
                    return try await finish(completions)
                }
                let results = try await finish([Completion(completions[0].receipt, .acknowledge)])
                for result in try await publish(outgoing.map(\.message)) { _ = try result.get() }
                return results
            }
        },
        PlantedBug("publishes half", .publishingWithAcknowledgeIsOneStep) { collector in
            collector.alterDispositions { disposition in
                guard case .acknowledgeAndPublish(let outgoing) = disposition else { return }
                disposition = .acknowledgeAndPublish(Array(outgoing.prefix(1)))
            }
        },
        PlantedBug("forgets to publish", .missingAtomicPublishIsRefused, humble: true) { collector in
            collector.alterDispositions { if case .acknowledgeAndPublish = $0 { $0 = .acknowledge } }
        },
    ]

    static let taking: [PlantedBug] = [
        PlantedBug("delivers batches backwards", .readyMessagesLeaveInOrder) { collector in
            let take = collector.onTake
            collector.onTake = { try await take($0).reversed() }
        },
        PlantedBug("ignores when a retry is due", .retriedMessageTakesPlaceByDueTime) { collector in
            collector.alterDispositions {
                if case .retry(_, let reason) = $0 { $0 = .retry(after: .zero, reason: reason) }
            }
        },
        PlantedBug("puts what is released at the end", .releasedMessageReturnsToFront) { collector in
            collector.alterDispositions { if $0 == .release { $0 = .retry(after: .zero, reason: "release") } }
        },
        PlantedBug("delivers more than asked", .takeKeepsToMax) { $0.alterRequests { $0.max += 1 } },
        PlantedBug("takes none for one", .takeArgumentsAreChecked) { $0.alterRequests { $0.max = max($0.max, 1) } },
        PlantedBug("takes a negative wait for none", .takeArgumentsAreChecked) { collector in
            collector.alterRequests { $0.wait = max($0.wait, .zero) }
        },
        PlantedBug("clamps a lease", .takeArgumentsAreChecked) { collector in
            let longest = collector.capabilities.maxLease
            collector.alterRequests { $0.lease = min($0.lease, longest) }
        },
        PlantedBug("delivers to two", .takersShareWithoutDuplicates) { collector in
            let (take, last) = (collector.onTake, LastDeliveries())
            collector.onTake = { request in
                let deliveries = try await take(request)
                return deliveries.isEmpty ? last.takeAll() : last.exchange(deliveries)
            }
        },
        PlantedBug("loses what it delivers", .takersShareWithoutDuplicates) { collector in
            let take = collector.onTake
            collector.onTake = { request in
                let deliveries = try await take(request)
                return deliveries.count == 3 ? Array(deliveries.dropLast()) : deliveries
            }
        },
        PlantedBug("does not wait", .waitingTakeGetsLaterMessage) { $0.alterRequests { $0.wait = .zero } },
        PlantedBug("is not woken by a publish", .waitingTakeGetsLaterMessage) { $0.looksOnlyAtEnd() },
        PlantedBug("is not woken when due", .waitingTakeGetsDueMessage) { $0.looksOnlyAtEnd() },
        PlantedBug("is not woken by an expiry", .waitingTakeGetsExpiredLease) { $0.looksOnlyAtEnd() },
        PlantedBug("is not woken by wake", .wakingReachesWaitingTake) { $0.looksOnlyAtEnd() },
        PlantedBug("waits on", .waitRunsOut) { $0.alterRequests { if $0.wait > .zero { $0.wait *= 10 } } },
        PlantedBug("does not wait at all", .waitRunsOut) { $0.alterRequests { $0.wait = .zero } },
        PlantedBug("hides a cancellation", .cancelledTakeLosesNothing) { collector in
            let take = collector.onTake
            collector.onTake = { request in
                do { return try await take(request) } catch is CancellationError { return [] }
            }
        },
        PlantedBug("takes on after a cancellation", .cancelledTakeLosesNothing) { collector in
            let (base, onPublish) = (collector.base, collector.onPublish)
            collector.onPublish = { messages in
                let results = try await onPublish(messages)
                _ = try await base.take(TakeRequest(lease: .seconds(1000)))
                return results
            }
        },
    ]

    static let control: [PlantedBug] = [
        PlantedBug("starts awake", .startsAsleep) { _ = try? await $0.base.wake() },
        PlantedBug("toggles", .sleepAndWakeAreIdempotent) { collector in
            let base = collector.base
            collector.onControl = { command in
                guard command == .wake, try await !base.status.isAsleep else { return try await base.control(command) }
                return try await base.sleep()
            }
        },
        PlantedBug("refuses to finish while asleep", .sleepLeavesDeliveriesAlone) { collector in
            let (base, finish) = (collector.base, collector.onFinish)
            collector.onFinish = { completions in
                guard try await !base.status.isAsleep else { throw StalkError(.unavailable, "asleep") }
                return try await finish(completions)
            }
        },
        PlantedBug("delivers while asleep", .sleepLeavesDeliveriesAlone) { collector in
            let base = collector.base
            collector.onControl = { try await base.control($0 == .sleep ? .report : $0) }
        },
        PlantedBug("ignores scale", .scaleLimitsDeliveries) { collector in
            let base = collector.base
            collector.onControl = { command in
                guard case .scale(let limit) = command else { return try await base.control(command) }
                var status = try await base.status
                status.maxInFlight = limit
                return status
            }
        },
        PlantedBug("takes 0 for no limit", .scaleZeroDeliversNothing) { collector in
            let base = collector.base
            collector.onControl = { try await base.control($0 == .scale(0) ? .scale(1000) : $0) }
        },
        PlantedBug("wakes on scale", .scaleNeverWakes) { collector in
            let base = collector.base
            collector.onControl = { command in
                if case .scale = command { try await base.wake() }
                return try await base.control(command)
            }
        },
        PlantedBug("clamps a scale", .negativeScaleIsRefused) { collector in
            let base = collector.base
            collector.onControl = { command in
                guard case .scale(let limit) = command else { return try await base.control(command) }
                return try await base.scale(to: max(limit, 0))
            }
        },
        PlantedBug("does not count", .statusCountsDeliveries) { $0.alterStatus { _, status in status.inFlight = 0 } },
    ]
}

extension AlteredCollector {
    /// Looks once, waits to the end whatever happens, and looks once more.
    fileprivate mutating func looksOnlyAtEnd() {
        let (take, clock) = (self.onTake, self.clock)
        self.onTake = { request in
            var look = request
            look.wait = .zero
            let deliveries = try await take(look)
            guard deliveries.isEmpty, request.wait > .zero else { return deliveries }
            try await clock.sleep(for: request.wait)
            return try await take(look)
        }
    }
}

/// What was delivered before, to be delivered once more.
private final class LastDeliveries: Sendable {
    private let last = Locked<[Delivery]>([])

    func exchange(_ deliveries: [Delivery]) -> [Delivery] {
        self.last.withLock { last in
            last = deliveries
            return deliveries
        }
    }

    func takeAll() -> [Delivery] {
        self.last.withLock { last in
            defer { last = [] }
            return last
        }
    }
}
