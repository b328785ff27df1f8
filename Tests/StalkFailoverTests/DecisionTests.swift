import StalkCore
import StalkTesting
import Testing

@testable import StalkFailover

@Suite struct DecisionTests {
    @Test func theBreakerOpensAfterFailuresInARow() {
        var breaker = CircuitBreaker(options: ForwardingOptions())
        var random = Jitter(seed: 1)
        for _ in 0..<2 { breaker.failed(now: .zero, using: &random) }
        breaker.succeeded()
        for _ in 0..<2 { breaker.failed(now: .zero, using: &random) }
        #expect(breaker.phase == .closed)
        breaker.failed(now: .zero, using: &random)
        #expect(breaker.phase == .open)
        // A straggler says nothing new.
        let permission = breaker.permission(now: .zero)
        breaker.failed(now: .zero, using: &random)
        #expect(breaker.permission(now: .zero) == permission)
        breaker.beginTrial()
        #expect(breaker.permission(now: .seconds(1000)) == .nothing(until: nil))
        breaker.succeeded()
        #expect(breaker.permission(now: .zero) == .all)
    }

    @Test func waitsGrowToTheirCapWithFullJitter() {
        var waits: [[Duration]] = []
        for seed in 0..<200 {
            var breaker = CircuitBreaker(options: ForwardingOptions())
            var random = Jitter(seed: UInt64(seed))
            for _ in 0..<2 { breaker.failed(now: .zero, using: &random) }
            var row: [Duration] = []
            for _ in 0..<10 {
                breaker.failed(now: .zero, using: &random)
                guard case .nothing(let until?) = breaker.permission(now: .milliseconds(-1)) else { continue }
                row.append(until)
                breaker.beginTrial()
            }
            waits.append(row)
        }
        for index in 0..<10 {
            let longest = min(Duration.seconds(1) * (1 << index), .seconds(60))
            let column = waits.map { $0[index] }
            #expect(column.allSatisfy { $0 <= longest })
            // Spread over the whole range.
            #expect(column.min() ?? .zero < longest / 10 && column.max() ?? .zero > longest * 0.9)
        }
    }

    @Test func aRefusedQueueIsProbedSlowly() {
        for seed in 0..<100 {
            var breaker = CircuitBreaker(options: ForwardingOptions())
            var random = Jitter(seed: UInt64(seed))
            breaker.refused(now: .zero, using: &random)
            #expect(breaker.isRefused)
            guard case .nothing(let until?) = breaker.permission(now: .zero) else {
                Issue.record("it is not open")
                continue
            }
            #expect((Duration.seconds(30)...Duration.seconds(60)).contains(until))
        }
    }

    @Test func throttlingHalvesAndTimeAdds() {
        var rate = SendRate(messagesPerSecond: nil, bytesPerSecond: nil)
        rate.left(messages: 800, bytes: 0, now: .zero)
        rate.throttled(now: .milliseconds(500))
        #expect(rate.limit == 400)
        rate.throttled(now: .milliseconds(600))
        #expect(rate.limit == 200)
        for second in 1...4 { rate.accepted(1, now: .milliseconds(600) + .seconds(second)) }
        // A tenth of the 400 that were too much, each second.
        #expect(rate.limit == 360)
        for second in 5...30 { rate.accepted(1, now: .milliseconds(600) + .seconds(second)) }
        #expect(rate.limit == nil)
    }

    @Test func bucketsHoldASecondsWorth() {
        var rate = SendRate(messagesPerSecond: 100, bytesPerSecond: 1000)
        rate.left(messages: 100, bytes: 100, now: .zero)
        #expect(rate.startAt(now: .zero) == .zero)
        rate.left(messages: 100, bytes: 100, now: .zero)
        #expect(rate.startAt(now: .zero) == .seconds(1))
        rate.left(messages: 1, bytes: 4800, now: .seconds(1))
        #expect(rate.startAt(now: .seconds(1)) >= .seconds(4))
        #expect(rate.largestBatch == 100)
    }

    /// What is given back must be in its place before anything behind it is taken or sent.
    ///
    /// The breaker's wait may be over before that. A take that was waiting for new messages may bring one all the same.
    @Test func nothingOvertakesWhatIsGivenBack() throws {
        var options = ForwardingOptions()
        options.failuresToOpen = 1
        var machine = Self.machine(options)
        func step(_ event: ForwardingStateMachine.Event, at seconds: Int) -> Steps {
            let wall = Timestamp(millisecondsSince1970: Int64(seconds) * 1000)
            return Steps(machine.handle(event, .init(now: .seconds(seconds), wall: wall)))
        }
        #expect(step(.nudged, at: 0).takes == 1)
        let first = step(.taken(.success([try Self.delivery("a")])), at: 0)
        #expect(first.takes == 1)
        let failed = step(.sent(try #require(first.sends.first), .failure(StalkError(.unavailable, "away"))), at: 0)
        #expect(failed.records.map(\.disposition) == [.release])
        // The breaker's wait is over before the store has answered.
        let early = step(.alarm(.seconds(100)), at: 100)
        #expect(early.takes == 0 && early.sends.isEmpty)
        let behind = step(.taken(.success([try Self.delivery("b")])), at: 100)
        #expect(behind.takes == 0 && behind.sends.isEmpty)
        #expect(behind.records.map(\.disposition) == [.release])
        let half = step(.recorded(try #require(failed.records.first?.call), .success([.success(())])), at: 100)
        #expect(half.takes == 0 && half.sends.isEmpty)
        let whole = step(.recorded(try #require(behind.records.first?.call), .success([.success(())])), at: 100)
        #expect(whole.takes == 1)
        let again = step(.taken(.success([try Self.delivery("a"), try Self.delivery("b")])), at: 100)
        #expect(again.sends.count == 1)
    }

    /// As many batches as may be on their way, each as large as the remote takes, and of one group one at a time.
    @Test func batchesAreFullAndSeveralAreOnTheirWay() throws {
        let queue = try QueueName("q")
        // Ten of the first group, ten of the second one, and so on.
        let deliveries = (0..<40).map { number in
            Delivery(
                id: MessageID("\(number)"),
                queue: queue,
                body: [1],
                headers: ["Stalk-Group": "\(number / 10)"],
                attempt: 1,
                publishedAt: Timestamp(millisecondsSince1970: 0),
                receipt: Receipt("\(number)")
            )
        }
        for (order, expected) in [(ForwardingOrder.group, 3), (.queue, 1)] {
            var options = ForwardingOptions()
            options.order = order
            options.maxInFlight = 3
            var machine = Self.machine(options)
            let moment = ForwardingStateMachine.Moment(now: .zero, wall: Timestamp(millisecondsSince1970: 0))
            var sent: [(call: UInt64, groups: [String?])] = []
            func handle(_ event: ForwardingStateMachine.Event) {
                for case .send(let call, let messages) in machine.handle(event, moment) {
                    sent.append((call, messages.map { $0.headers["Stalk-Group"] }))
                }
            }
            handle(.taken(.success(deliveries)))
            #expect(sent.map(\.groups) == (0..<expected).map { Array(repeating: "\($0)", count: 10) }, "\(order)")
            handle(.sent(sent[0].call, .success((0..<10).map { .success(MessageID("\($0)")) })))
            #expect(sent.count == expected + 1 && sent.last?.groups == Array(repeating: "\(expected)", count: 10))
        }
    }

    /// Forwards from a store to a standard queue of SQS.
    private static func machine(_ options: ForwardingOptions) -> ForwardingStateMachine {
        ForwardingStateMachine(
            options: options,
            source: .likeStore,
            destination: .likeSQS,
            sendsDeduplicationID: false,
            attemptsAreSends: true,
            seed: 1
        )
    }

    /// What a step of the machine asks for.
    private struct Steps {
        var takes = 0
        var sends: [UInt64] = []
        var records: [(call: UInt64, disposition: Disposition)] = []

        init(_ actions: [ForwardingStateMachine.Action]) {
            for action in actions {
                switch action {
                case .take: self.takes += 1
                case .send(let number, _): self.sends.append(number)
                case .record(let call, let completions): self.records += completions.map { (call, $0.disposition) }
                case .extend, .alarm, .note: break
                }
            }
        }
    }

    private static func delivery(_ id: String) throws -> Delivery {
        Delivery(
            id: MessageID(id),
            queue: try QueueName("q"),
            body: [1],
            headers: [:],
            attempt: 1,
            publishedAt: Timestamp(millisecondsSince1970: 0),
            receipt: Receipt(id)
        )
    }

    @Test func aMessageWaitsForItsGroupAlone() {
        var routing = RoutingStateMachine(limits: FailoverOptions())
        routing.opened(messages: 0, bytes: 0)
        #expect(routing.isFree("a"))
        routing.begin("a", bytes: 1, isCounted: true)
        #expect(!routing.isFree("a") && routing.isFree("b"))
        routing.end("a", bytes: 1, isCounted: true, isStored: true)
        #expect(!routing.isFree("a"))
        routing.left("a", bytes: 1, isCounted: true)
        #expect(routing.isFree("a"))
    }

    @Test func theFirstInLineTellsTheAge() {
        func wall(_ seconds: Int) -> Timestamp { Timestamp(millisecondsSince1970: Int64(seconds) * 1000) }
        var ages = SpoolAges(limit: .seconds(100))
        ages.opened(count: 2, since: wall(0))
        for second in 10..<20 { ages.add(at: wall(second)) }
        ages.takeBack()
        // Of a delayed message and the two of before.
        ages.left(isCounted: false)
        #expect(ages.oldest == wall(0))
        ages.left(isCounted: false)
        #expect(ages.oldest == wall(10))
        ages.left(isCounted: false)
        #expect(ages.oldest == wall(10))
        for _ in 0..<8 { ages.left(isCounted: true) }
        #expect(ages.oldest == wall(18))
        ages.left(isCounted: true)
        #expect(ages.oldest == nil)
        for millisecond in 0..<100_000 { ages.add(at: Timestamp(millisecondsSince1970: Int64(millisecond) * 500)) }
        #expect(ages.oldest == wall(0) && ages.stepCount <= SpoolAges.mostSteps)
    }

    @Test func whatAnEarlierProcessLeftHoldsUpAll() {
        var routing = RoutingStateMachine(limits: FailoverOptions())
        routing.opened(messages: 2, bytes: 2)
        #expect(!routing.isFree("a"))
        // A look that began while something was stored proves nothing.
        routing.begin("a", bytes: 1, isCounted: true)
        routing.looking()
        routing.end("a", bytes: 1, isCounted: true, isStored: true)
        routing.foundNothing()
        #expect(!routing.isFree("b"))
        routing.looking()
        routing.foundNothing()
        #expect(routing.isFree("a") && routing.isFree("b"))
    }

    @Test func aMillionGroupsAreNotToldApart() {
        var routing = RoutingStateMachine(limits: FailoverOptions())
        routing.opened(messages: 0, bytes: 0)
        for number in 0..<100_000 { routing.begin("\(number)", bytes: 1, isCounted: true) }
        for number in 0..<100_000 { routing.end("\(number)", bytes: 1, isCounted: true, isStored: true) }
        #expect(routing.waiting.count <= RoutingStateMachine.mostGroups)
        // What is not counted waits all the same, and so does what is new behind it.
        #expect(!routing.isFree("99999") && !routing.isFree("new"))
        for number in 0..<100_000 { routing.left("\(number)", bytes: 1, isCounted: true) }
        #expect(!routing.isFree("99999"))
        routing.looking()
        routing.foundNothing()
        #expect(routing.isFree("99999") && routing.messages == 0)
    }

    @Test func idsAreOfVersionSevenAndInOrderOfTime() {
        var random = Jitter(seed: 7)
        let ids = (0..<100).map { second in
            stableID(at: Timestamp(millisecondsSince1970: 1_700_000_000_000 + Int64(second)), using: &random)
        }
        #expect(ids == ids.sorted() && Set(ids).count == 100)
        #expect(ids.allSatisfy { $0.count == 36 && Array($0)[14] == "7" && "89ab".contains(Array($0)[19]) })
    }

    @Test func optionsWithoutAMeaningAreRefused() {
        let changes: [(inout ForwardingOptions) -> Void] = [
            { $0.maxBatch = 0 }, { $0.trialBatch = 0 }, { $0.messagesPerSecond = 0 }, { $0.bytesPerSecond = .infinity },
            { $0.maxBackoff = .zero }, { $0.maxTries = 0 }, { $0.maxAge = .zero }, { $0.lease = .seconds(-1) },
        ]
        for change in changes {
            var options = ForwardingOptions()
            change(&options)
            #expect(throws: StalkError.self) { try options.validate() }
        }
    }
}
