import StalkCore
import StalkTesting
import Testing

@testable import StalkWorker

/// The machine's answers, read like a transcript.
@Suite struct WorkerStateMachineTests {
    static func options(_ concurrency: Int) -> WorkerOptions {
        WorkerOptions(
            concurrency: concurrency,
            lease: .seconds(30),
            timeout: .seconds(100),
            cancellationGrace: .seconds(5),
            pollWait: .seconds(20),
            backoff: WorkerBackoff(from: .seconds(1), cap: .seconds(1))
        )
    }

    static func machine(
        _ concurrency: Int,
        _ change: (inout CollectorCapabilities) -> Void = { _ in }
    ) -> WorkerStateMachine {
        var capabilities = InMemoryBroker.capabilities
        change(&capabilities)
        return WorkerStateMachine(options: Self.options(concurrency), capabilities: capabilities, seed: 7)
    }

    /// A machine that has begun and asked for messages.
    static func working(
        _ concurrency: Int,
        _ change: (inout CollectorCapabilities) -> Void = { _ in }
    ) -> WorkerStateMachine {
        var machine = Self.machine(concurrency, change)
        _ = machine.start(now: .zero)
        _ = machine.woke(now: .zero)
        return machine
    }

    static func delivery(_ number: Int, attempt: Int = 1) -> Delivery {
        Delivery(
            id: MessageID("m\(number)"),
            queue: QueueName(stored: "jobs"),
            body: [],
            headers: [:],
            attempt: attempt,
            publishedAt: Timestamp(millisecondsSince1970: 0),
            receipt: Self.receipt(number)
        )
    }

    static func receipt(_ number: Int) -> Receipt { Receipt("r\(number)") }
    static func slot(_ number: UInt64) -> SlotID { SlotID(number: number) }
    static func take(_ max: Int) -> WorkerAction {
        .take(TakeRequest(max: max, wait: .seconds(20), lease: .seconds(30)))
    }
    static func acknowledge(_ numbers: Int...) -> WorkerAction {
        .finish(numbers.map { Completion(Self.receipt($0), .acknowledge) })
    }

    let away = StalkError(.unavailable, "away")

    @Test func oneMessageFromTakeToEnd() {
        var machine = Self.machine(1)
        #expect(machine.start(now: .zero) == [.wake])
        #expect(machine.start(now: .zero) == nil)
        #expect(machine.woke(now: .zero) == [Self.take(1)])
        #expect(
            machine.took([Self.delivery(1)], now: .seconds(2)) == [
                .handle(Self.slot(1), Self.delivery(1)),
                .setAlarm(.timeout, at: .seconds(102)),
                .setAlarm(.heartbeat, at: .seconds(12)),
            ]
        )
        #expect(machine.counters.inFlight == 1)
        #expect(
            machine.handled(Self.slot(1), .returned(.acknowledge), now: .seconds(3)) == [
                .forgetHandler(Self.slot(1)), Self.acknowledge(1),
            ]
        )
        #expect(machine.finished([.success(())], now: .seconds(3)) == [Self.take(1)])
        #expect(machine.counters.inFlight == 0)
        #expect(machine.counters.acknowledged == 1)
        #expect(machine.stop(now: .seconds(4)) == [.cancelTake])
        #expect(machine.takeCancelled(now: .seconds(4)) == [.end])
    }

    @Test func slotIsFreeOnlyOnceOutcomeIsStored() {
        var machine = Self.working(2)
        _ = machine.took([Self.delivery(1)], now: .zero)
        _ = machine.handled(Self.slot(1), .returned(.acknowledge), now: .zero)
        // Asked for one while the first was held; asks for the second only now that the first is stored.
        #expect(machine.took([Self.delivery(2)], now: .zero).last == .handle(Self.slot(2), Self.delivery(2)))
        #expect(machine.finished([.success(())], now: .zero) == [Self.take(1)])
    }

    @Test func outcomesGatherWhileOneCallRuns() {
        var machine = Self.working(4)
        _ = machine.took((1...4).map { Self.delivery($0) }, now: .zero)
        #expect(machine.handled(Self.slot(1), .returned(.acknowledge), now: .zero).last == Self.acknowledge(1))
        for number in 2...4 as ClosedRange<UInt64> {
            #expect(
                machine.handled(Self.slot(number), .returned(.acknowledge), now: .zero) == [
                    .forgetHandler(Self.slot(number))
                ]
            )
        }
        #expect(machine.finished([.success(())], now: .zero) == [Self.acknowledge(2, 3, 4), Self.take(1)])
    }

    @Test func callsKeepToMaxBatch() {
        var machine = Self.working(10) { $0.maxBatch = 2 }
        #expect(machine.took([Self.delivery(1), Self.delivery(2)], now: .zero).last == Self.take(2))
        _ = machine.took([Self.delivery(3)], now: .zero)
        _ = machine.handled(Self.slot(1), .returned(.acknowledge), now: .zero)
        _ = machine.handled(Self.slot(2), .returned(.acknowledge), now: .zero)
        _ = machine.handled(Self.slot(3), .returned(.acknowledge), now: .zero)
        #expect(machine.finished([.success(())], now: .zero) == [Self.acknowledge(2, 3)])
    }

    @Test func lowerLimitReleasesWhatComesAboveIt() {
        var machine = Self.working(2)
        #expect(machine.scale(to: 1, now: .zero) == [])
        let actions = machine.took([Self.delivery(1), Self.delivery(2)], now: .zero)
        #expect(actions.contains(.handle(Self.slot(1), Self.delivery(1))))
        #expect(actions.last == .finish([Completion(Self.receipt(2), .release)]))
        #expect(machine.finished([.success(())], now: .zero) == [])
        #expect(machine.counters.released == 1)
        #expect(machine.scale(to: 3, now: .zero) == [Self.take(2)])
    }

    @Test func limitOfZeroLetsRunningDrain() {
        var machine = Self.working(1)
        _ = machine.took([Self.delivery(1)], now: .zero)
        #expect(machine.scale(to: 0, now: .zero) == [])
        _ = machine.handled(Self.slot(1), .returned(.acknowledge), now: .zero)
        #expect(machine.finished([.success(())], now: .zero) == [])
        #expect(machine.scale(to: 1, now: .zero) == [Self.take(1)])
    }

    @Test func deliveriesThatComeAfterStopAreReleased() {
        var machine = Self.working(2)
        #expect(machine.stop(now: .zero) == [.cancelTake])
        let released = WorkerAction.finish([1, 2].map { Completion(Self.receipt($0), .release) })
        let actions = machine.took([Self.delivery(1), Self.delivery(2)], now: .zero)
        #expect(actions.last == released)
        #expect(machine.finished([.success(()), .success(())], now: .zero) == [.end])
    }

    @Test func stopWaitsForHandlersAndOutcomes() {
        var machine = Self.working(1)
        _ = machine.took([Self.delivery(1)], now: .zero)
        #expect(machine.stop(now: .zero) == [])
        #expect(
            machine.handled(Self.slot(1), .returned(.acknowledge), now: .zero) == [
                .forgetHandler(Self.slot(1)), Self.acknowledge(1),
            ]
        )
        #expect(machine.finished([.success(())], now: .zero) == [.end])
    }

    @Test func cancelReleasesWhatDidNotComplete() {
        var machine = Self.working(2)
        _ = machine.took([Self.delivery(1), Self.delivery(2)], now: .seconds(1))
        #expect(
            machine.cancel(now: .seconds(1)) == [
                .cancelHandler(Self.slot(1)), .setAlarm(.grace, at: .seconds(6)), .cancelHandler(Self.slot(2)),
            ]
        )
        #expect(
            machine.handled(Self.slot(1), .threw(CancellationError()), now: .seconds(1)).last
                == .finish([Completion(Self.receipt(1), .release)])
        )
        _ = machine.handled(Self.slot(2), .returned(.acknowledge), now: .seconds(1))
        #expect(machine.finished([.success(())], now: .seconds(1)) == [Self.acknowledge(2)])
        #expect(machine.finished([.success(())], now: .seconds(1)) == [.end])
    }

    @Test func stuckHandlerBlocksNobody() {
        var machine = Self.working(1)
        _ = machine.took([Self.delivery(1)], now: .zero)
        #expect(machine.alarmWentOff(.timeout, now: .seconds(100)).contains(.cancelHandler(Self.slot(1))))
        // The grace is over: the message is retried, and another one is asked for.
        let actions = machine.alarmWentOff(.grace, now: .seconds(105))
        #expect(actions.last == Self.take(1))
        #expect(machine.counters.stuck == 1)
        let next = machine.took([Self.delivery(2)], now: .seconds(106))
        #expect(next.contains(.handle(Self.slot(2), Self.delivery(2))))
        _ = machine.handled(Self.slot(1), .returned(.acknowledge), now: .seconds(200))
        #expect(machine.counters.stuck == 0)
        #expect(machine.counters.acknowledged == 0, "the result of a stuck handler is not used")
    }

    @Test func noMoreStuckHandlersAreReplacedThanAllowed() {
        var options = Self.options(1)
        options.maxReplacedHandlers = 2
        var machine = WorkerStateMachine(options: options, capabilities: InMemoryBroker.capabilities, seed: 7)
        _ = machine.start(now: .zero)
        _ = machine.woke(now: .zero)
        for number in 1...3 {
            let now = Duration.seconds(1000 * number)
            _ = machine.took([Self.delivery(number)], now: now)
            _ = machine.alarmWentOff(.timeout, now: now + .seconds(100))
            let actions = machine.alarmWentOff(.grace, now: now + .seconds(105))
            _ = machine.finished([.success(())], now: now + .seconds(106))
            #expect(actions.contains(Self.take(1)) == (number <= 2), "handler \(number)")
        }
        #expect(machine.counters.stuck == 3)
    }

    @Test func stopCancelsWhatRunsWhenItsTimeIsOver() {
        var options = Self.options(1)
        options.stopGrace = .seconds(30)
        var machine = WorkerStateMachine(options: options, capabilities: InMemoryBroker.capabilities, seed: 7)
        _ = machine.start(now: .zero)
        _ = machine.woke(now: .zero)
        _ = machine.took([Self.delivery(1)], now: .zero)
        #expect(machine.stop(now: .seconds(10)) == [.setAlarm(.stop, at: .seconds(40))])
        #expect(machine.alarmWentOff(.stop, now: .seconds(40)).contains(.cancelHandler(Self.slot(1))))
        #expect(
            machine.handled(Self.slot(1), .threw(CancellationError()), now: .seconds(40)).last
                == .finish([Completion(Self.receipt(1), .release)])
        )
        #expect(machine.finished([.success(())], now: .seconds(40)) == [.end])
        #expect(machine.counters.released == 1)
    }

    @Test func takeLimitBoundsEachCall() {
        var options = Self.options(10)
        options.takeLimit = 4
        var machine = WorkerStateMachine(options: options, capabilities: InMemoryBroker.capabilities, seed: 7)
        _ = machine.start(now: .zero)
        #expect(machine.woke(now: .zero) == [Self.take(4)])
    }

    @Test func statusTellsOfTheBackend() {
        var machine = Self.working(3)
        #expect(machine.status(now: .seconds(1)).isBackendReachable)
        _ = machine.takeFailed(self.away, now: .seconds(2))
        var status = machine.status(now: .seconds(7))
        #expect(!status.isBackendReachable)
        #expect(status.sinceLastSuccess == .seconds(7))
        #expect(status.concurrency == 3 && status.isRunning && !status.isStopping)
        _ = machine.alarmWentOff(.take, now: .seconds(8))
        _ = machine.took([], now: .seconds(9))
        status = machine.status(now: .seconds(9))
        #expect(status.isBackendReachable && status.sinceLastSuccess == .zero)
    }

    @Test func durationsFallIntoBuckets() {
        var histogram = DurationHistogram()
        for milliseconds in [-5, 0, 1, 2, 100, 101, 600_000] { histogram.record(.milliseconds(milliseconds)) }
        #expect(histogram.count == 7)
        #expect(histogram.sum == .milliseconds(600_204))
        #expect(histogram.counts[0] == 3 && histogram.counts[1] == 1 && histogram.counts[5] == 1)
        #expect(histogram.counts.last == 1)
        #expect(histogram.counts.reduce(0, +) == 7)
    }

    @Test func collectorIDsAreRandomUUIDs() throws {
        let ids = (0..<1000).map { _ in WorkerOptions.makeCollectorID() }
        #expect(Set(ids).count == 1000)
        let form = /[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/
        #expect(ids.allSatisfy { $0.wholeMatch(of: form) != nil }, "\(ids[0])")
    }

    @Test func cancelGoesOnWithoutStuckHandlerAfterGrace() {
        var machine = Self.working(1)
        _ = machine.took([Self.delivery(1)], now: .zero)
        _ = machine.cancel(now: .zero)
        let actions = machine.alarmWentOff(.grace, now: .seconds(5))
        #expect(actions.last == .finish([Completion(Self.receipt(1), .release)]))
        #expect(machine.finished([.success(())], now: .seconds(5)) == [.end])
        #expect(machine.counters.inFlight == 1, "it occupies its slot until it ends")
        _ = machine.handled(Self.slot(1), .returned(.acknowledge), now: .seconds(9))
        #expect(machine.counters.inFlight == 0)
        #expect(machine.counters.acknowledged == 0)
    }

    @Test func cancelledRunTriesToStoreOnlyOnce() {
        var machine = Self.working(1)
        _ = machine.took([Self.delivery(1)], now: .zero)
        _ = machine.handled(Self.slot(1), .returned(.acknowledge), now: .zero)
        #expect(machine.finishFailed(self.away, now: .zero).contains(.setAlarm(.finish, at: .seconds(1))) == false)
        #expect(machine.isFinishBackingOff)
        #expect(machine.cancel(now: .zero) == [Self.acknowledge(1)])
        let actions = machine.finishFailed(self.away, now: .zero)
        #expect(actions.last == .end)
        #expect(actions.count == 2)
    }

    @Test func timeoutCancelsAndRetries() throws {
        var machine = Self.working(1)
        _ = machine.took([Self.delivery(1)], now: .zero)
        let actions = machine.alarmWentOff(.timeout, now: .seconds(100))
        #expect(actions.suffix(2) == [.cancelHandler(Self.slot(1)), .setAlarm(.grace, at: .seconds(105))])
        #expect(machine.counters.timedOut == 1)
        // Whatever a handler says after its time, it may have been cut short.
        let finish = machine.handled(Self.slot(1), .returned(.acknowledge), now: .seconds(101)).last
        guard case .finish(let completions)? = finish,
            case .retry(_, "timed out after 100s") = completions[0].disposition
        else {
            Issue.record("\(String(describing: finish))")
            return
        }
    }

    @Test func timeoutAlarmIsSetAgainForLaterHandlers() {
        var machine = Self.working(2)
        #expect(machine.took([Self.delivery(1)], now: .zero).contains(.setAlarm(.timeout, at: .seconds(100))))
        _ = machine.took([Self.delivery(2)], now: .seconds(40))
        #expect(machine.alarmWentOff(.timeout, now: .seconds(100)).contains(.setAlarm(.timeout, at: .seconds(140))))
        #expect(machine.counters.timedOut == 1)
    }

    @Test func stuckHandlerIsReplaced() {
        var machine = Self.working(2)
        _ = machine.took([Self.delivery(1)], now: .zero)
        _ = machine.alarmWentOff(.timeout, now: .seconds(100))
        let actions = machine.alarmWentOff(.grace, now: .seconds(105))
        guard case .finish? = actions.last else {
            Issue.record("\(actions)")
            return
        }
        _ = machine.finished([.success(())], now: .seconds(105))
        #expect(machine.counters.retried == 1)
        // It blocks nobody: the take that ends is followed by one for both slots.
        #expect(machine.took([], now: .seconds(106)) == [Self.take(2)])
        #expect(machine.handled(Self.slot(1), .threw(Oops()), now: .seconds(200)).first == .forgetHandler(Self.slot(1)))
        #expect(machine.counters.inFlight == 0)
        #expect(machine.counters.retried == 1)
    }

    @Test func heartbeatExtendsAllAndGoesOn() {
        var machine = Self.working(3)
        _ = machine.took([Self.delivery(1)], now: .zero)
        _ = machine.took([Self.delivery(2)], now: .seconds(9))
        #expect(
            machine.alarmWentOff(.heartbeat, now: .seconds(10)) == [
                .setAlarm(.heartbeat, at: .seconds(20)),
                .extend([Self.slot(1), Self.slot(2)], [Self.receipt(1), Self.receipt(2)]),
            ]
        )
        // The call before has not returned: none is added to it.
        #expect(machine.alarmWentOff(.heartbeat, now: .seconds(20)) == [.setAlarm(.heartbeat, at: .seconds(30))])
        let results = [Result<Void, StalkError>.success(()), .success(())]
        #expect(machine.extended([Self.slot(1), Self.slot(2)], results, sentAt: .seconds(10), now: .seconds(21)) == [])
        #expect(machine.alarmWentOff(.heartbeat, now: .seconds(30)).count == 2)
    }

    @Test func heartbeatStopsWithNothingHeldAndBeginsAgain() {
        var machine = Self.working(1)
        _ = machine.took([Self.delivery(1)], now: .zero)
        _ = machine.handled(Self.slot(1), .returned(.acknowledge), now: .zero)
        _ = machine.finished([.success(())], now: .zero)
        #expect(machine.alarmWentOff(.heartbeat, now: .seconds(10)) == [])
        #expect(machine.took([Self.delivery(2)], now: .seconds(15)).contains(.setAlarm(.heartbeat, at: .seconds(25))))
    }

    @Test func lostLeaseCancelsAndDropsResult() {
        var machine = Self.working(1)
        _ = machine.took([Self.delivery(1)], now: .zero)
        _ = machine.alarmWentOff(.heartbeat, now: .seconds(10))
        let stale = StalkError(.staleReceipt, "over")
        let actions = machine.extended([Self.slot(1)], [.failure(stale)], sentAt: .seconds(10), now: .seconds(10))
        #expect(actions.contains(.cancelHandler(Self.slot(1))))
        #expect(machine.counters.lostLeases == 1)
        #expect(
            machine.handled(Self.slot(1), .returned(.acknowledge), now: .seconds(11)) == [
                .forgetHandler(Self.slot(1)), Self.take(1),
            ]
        )
    }

    @Test func staleOutcomeIsCountedAndLetGo() {
        var machine = Self.working(1)
        _ = machine.took([Self.delivery(1)], now: .zero)
        _ = machine.handled(Self.slot(1), .returned(.acknowledge), now: .zero)
        let actions = machine.finished([.failure(StalkError(.staleReceipt, "over"))], now: .zero)
        #expect(actions.last == Self.take(1))
        #expect(machine.counters.lostLeases == 1)
        #expect(machine.counters.acknowledged == 0)
    }

    @Test func refusedOutcomeBecomesFailureOnce() {
        var machine = Self.working(1) { $0.maxRetryDelay = .seconds(60) }
        _ = machine.took([Self.delivery(1)], now: .zero)
        let tooLong = Disposition.retry(after: .seconds(3600), reason: "later")
        _ = machine.handled(Self.slot(1), .returned(tooLong), now: .zero)
        let refusal = StalkError(.delayOutOfRange, "too long")
        let replaced = machine.finished([.failure(refusal)], now: .zero).last
        guard case .finish(let completions)? = replaced, case .retry(let delay, let reason) = completions[0].disposition
        else {
            Issue.record("\(String(describing: replaced))")
            return
        }
        #expect(delay <= .seconds(60))
        #expect(reason.contains("too long"))
        let given = machine.finished([.failure(refusal)], now: .zero)
        #expect(given.last == Self.take(1), "a second refusal is logged and let go")
    }

    @Test func unansweredOutcomesAreSentAgain() {
        var machine = Self.working(2)
        _ = machine.took([Self.delivery(1), Self.delivery(2)], now: .zero)
        _ = machine.handled(Self.slot(1), .returned(.acknowledge), now: .zero)
        #expect(machine.finished([], now: .zero).last == .setAlarm(.finish, at: machine.nextFinish(after: .zero)))
        _ = machine.handled(Self.slot(2), .returned(.acknowledge), now: .zero)
        #expect(machine.alarmWentOff(.finish, now: .seconds(1)) == [Self.acknowledge(1, 2)])
    }

    @Test func outcomeIsLostWithItsLease() {
        var machine = Self.working(1) { $0.leaseExtension = false }
        _ = machine.took([Self.delivery(1)], now: .zero)
        _ = machine.handled(Self.slot(1), .returned(.acknowledge), now: .zero)
        _ = machine.finishFailed(self.away, now: .seconds(29))
        #expect(machine.counters.inFlight == 1)
        #expect(machine.alarmWentOff(.finish, now: .seconds(30)) == [Self.acknowledge(1)])
        let actions = machine.finishFailed(self.away, now: .seconds(30))
        #expect(actions.last == Self.take(1))
        #expect(machine.counters.inFlight == 0)
    }

    @Test func absenceIsToldOnceWhateverFails() {
        var machine = Self.working(2)
        let told = WorkerAction.log(.backendWentAway(self.away))
        _ = machine.took([Self.delivery(1)], now: .zero)
        #expect(machine.takeFailed(self.away, now: .zero).contains(told))
        _ = machine.handled(Self.slot(1), .returned(.acknowledge), now: .zero)
        #expect(!machine.finishFailed(self.away, now: .zero).contains(told))
        _ = machine.alarmWentOff(.take, now: .seconds(1))
        #expect(!machine.takeFailed(self.away, now: .seconds(1)).contains(told))
        _ = machine.alarmWentOff(.take, now: .seconds(2))
        // A take that works is not yet a backend that stores outcomes.
        #expect(!machine.took([], now: .seconds(2)).contains(.log(.backendReturned)))
        _ = machine.alarmWentOff(.finish, now: .seconds(2))
        #expect(machine.finished([.success(())], now: .seconds(2)).contains(.log(.backendReturned)))
    }

    @Test func lastingErrorEndsRunAfterWhatRuns() {
        var machine = Self.working(2)
        _ = machine.took([Self.delivery(1)], now: .zero)
        #expect(machine.takeFailed(StalkError(.closed, "closed"), now: .zero) == [])
        _ = machine.handled(Self.slot(1), .returned(.acknowledge), now: .zero)
        #expect(machine.finished([.success(())], now: .zero) == [.end])
        #expect((machine.failure as? StalkError)?.code == .closed)
    }

    @Test func stopDuringBackoffEndsAtOnce() {
        var machine = Self.working(1)
        _ = machine.takeFailed(self.away, now: .zero)
        #expect(machine.stop(now: .zero) == [.end])
        #expect(machine.alarmWentOff(.take, now: .seconds(1)) == [])
    }

    @Test func failedWakeIsTriedAgain() {
        var machine = Self.machine(1)
        _ = machine.start(now: .zero)
        _ = machine.wakeFailed(self.away, now: .zero)
        #expect(machine.alarmWentOff(.take, now: .seconds(1)) == [.wake])
        #expect(machine.woke(now: .seconds(1)) == [.log(.backendReturned), Self.take(1)])
    }
}

extension WorkerStateMachine {
    /// When the next finish will be, after one failure now: the seed makes it the same each time.
    fileprivate func nextFinish(after now: Duration) -> Duration {
        var generator = SplitMix64(seed: 7)
        return now + self.options.backoff.delay(afterFailure: 1, using: &generator)
    }
}
