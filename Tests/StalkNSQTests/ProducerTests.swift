// Publishing: what goes together, and that each publisher is answered whatever happens.

internal import StalkCore
internal import StalkTesting
internal import Testing

@testable internal import StalkNSQ

@Suite struct ProducerStateMachineTests {
    private typealias Machine = ProducerStateMachine

    private static func items(
        _ call: UInt64,
        _ count: Int,
        topic: String = "t",
        bytes: Int = 1,
        at now: Duration = .zero
    )
        -> [Machine.Item]
    {
        (0..<count).map {
            Machine.Item(
                call: call,
                index: $0,
                topic: topic,
                body: Array(repeating: 7, count: bytes),
                delayMillis: 0,
                queuedAt: now
            )
        }
    }

    private static func machine(maxBatch: Int = 10, maxBatchBytes: Int = 1000) -> Machine {
        var machine = Machine(maxBatch: maxBatch, maxBatchBytes: maxBatchBytes, linger: .milliseconds(5))
        machine.connected()
        return machine
    }

    private static func count(_ command: NSQCommand?) -> Int {
        switch command {
        case .publish, .deferredPublish: 1
        case .multiPublish(_, let bodies): bodies.count
        default: 0
        }
    }

    private static func code(_ result: Result<Void, StalkError>?) -> StalkError.Code? {
        guard case .failure(let error) = result else { return nil }
        return error.code
    }

    @Test func batchIsBoundedByCountBytesAndTopic() {
        var machine = Self.machine()
        machine.publish(1, Self.items(1, 12), deadline: .seconds(9))
        #expect(Self.count(machine.next(now: .zero)) == 10)
        machine.publish(2, Self.items(2, 2, topic: "u"), deadline: .seconds(9))
        #expect(Self.count(machine.next(now: .seconds(1))) == 2)
        #expect(Self.count(machine.next(now: .seconds(1))) == 2)
        var large = Self.machine()
        large.publish(3, Self.items(3, 5, bytes: 400), deadline: .seconds(9))
        #expect(Self.count(large.next(now: .zero)) == 2)
    }

    /// A lone publisher never waits; behind an unanswered one a message waits for company, but not longer than it may.
    @Test func lingersOnlyBehindUnanswered() {
        var machine = Self.machine()
        machine.publish(1, Self.items(1, 1), deadline: .seconds(9))
        #expect(machine.next(now: .zero) != nil)
        machine.publish(2, Self.items(2, 1), deadline: .seconds(9))
        #expect(machine.next(now: .milliseconds(4)) == nil)
        machine.publish(3, Self.items(3, 1, at: .milliseconds(4)), deadline: .seconds(9))
        #expect(machine.nextMoment == .milliseconds(5))
        #expect(Self.count(machine.next(now: .milliseconds(5))) == 2)
        machine.publish(4, Self.items(4, 1, at: .milliseconds(5)), deadline: .seconds(9))
        #expect(machine.accepted().map(\.call) == [1])
        #expect(Set(machine.accepted().map(\.call)) == [2, 3])
        #expect(Self.count(machine.next(now: .milliseconds(5))) == 1)
    }

    @Test func lostConnectionLeavesWhatWasSentUnknown() {
        var machine = Self.machine()
        machine.publish(1, Self.items(1, 2), deadline: .seconds(9))
        _ = machine.next(now: .zero)
        machine.publish(2, Self.items(2, 1), deadline: .seconds(9))
        let finished = machine.disconnected(StalkError(.unavailable, "gone"))
        #expect(finished.map(\.call) == [1])
        #expect(finished.first?.results.map { Self.code($0) } == [.interrupted, .interrupted])
        // What was not sent goes to the next nsqd.
        #expect(machine.next(now: .seconds(1)) == nil)
        machine.connected()
        #expect(Self.count(machine.next(now: .seconds(1))) == 1)
    }

    @Test func whatWasBehindARefusalGoesAgain() {
        var machine = Self.machine(maxBatch: 1)
        for call in 1...3 { machine.publish(UInt64(call), Self.items(UInt64(call), 1), deadline: .seconds(9)) }
        while machine.next(now: .zero) != nil {}
        let finished = machine.refused(StalkError(.invalidArgument, "no"))
        #expect(finished.map(\.call) == [1])
        #expect(Self.code(finished.first?.results.first) == .invalidArgument)
        machine.connected()
        var sent = 0
        while machine.next(now: .zero) != nil { sent += 1 }
        #expect(sent == 2)
        #expect(machine.accepted().map(\.call) + machine.accepted().map(\.call) == [2, 3])
        #expect(!machine.isBusy)
    }

    @Test func deadlineTellsUnsentFromUnknown() {
        var machine = Self.machine(maxBatch: 1)
        machine.publish(1, Self.items(1, 1), deadline: .seconds(1))
        _ = machine.next(now: .zero)
        _ = machine.disconnected(StalkError(.unavailable, "gone"))
        machine.publish(2, Self.items(2, 1), deadline: .seconds(1))
        machine.connected()
        _ = machine.next(now: .zero)
        machine.publish(3, Self.items(3, 1), deadline: .seconds(2))
        let finished = machine.advance(to: .seconds(1))
        #expect(finished.map(\.call) == [2])
        #expect(Self.code(finished.first?.results.first) == .interrupted)
        var away = Machine(maxBatch: 1, maxBatchBytes: 1000, linger: .zero)
        away.publish(4, Self.items(4, 1), deadline: .seconds(1))
        #expect(Self.code(away.advance(to: .seconds(1)).first?.results.first) == .unavailable)
        away.connected()
        // Whoever was told that it was not sent is not to find it published.
        #expect(away.next(now: .seconds(1)) == nil)
    }

    /// Random histories: each call is answered once, with as many results as it had messages, and success means that a
    /// command with it was answered.
    @Test func everyPublishIsAnsweredOnce() {
        for seed in 0..<2000 {
            var generator = SeededGenerator(seed: UInt64(seed))
            var machine = Machine(maxBatch: 4, maxBatchBytes: 200, linger: .milliseconds(2))
            var (now, next) = (Duration.zero, UInt64(1))
            var open: [UInt64: Int] = [:]
            var (isConnected, unanswered) = (false, 0)
            func end(_ finished: [Machine.Finished]) {
                for call in finished {
                    #expect(open.removeValue(forKey: call.call) == call.results.count, "seed \(seed)")
                }
            }
            for _ in 0..<60 {
                now += .milliseconds(Int.random(in: 0...3, using: &generator))
                switch Int.random(in: 0..<8, using: &generator) {
                case 0...2:
                    let count = Int.random(in: 1...6, using: &generator)
                    open[next] = count
                    machine.publish(next, Self.items(next, count, at: now), deadline: now + .milliseconds(20))
                    next += 1
                case 3:
                    while isConnected, machine.next(now: now) != nil { unanswered += 1 }
                case 4 where unanswered > 0:
                    unanswered -= 1
                    end(machine.accepted())
                case 5 where unanswered > 0:
                    (unanswered, isConnected) = (0, false)
                    end(machine.refused(StalkError(.invalidArgument, "no")))
                case 6:
                    if isConnected {
                        (unanswered, isConnected) = (0, false)
                        end(machine.disconnected(StalkError(.unavailable, "gone")))
                    } else {
                        isConnected = true
                        machine.connected()
                    }
                default:
                    end(machine.advance(to: now))
                }
            }
            end(machine.disconnected(StalkError(.unavailable, "gone")))
            end(machine.unreachable(StalkError(.unavailable, "none")))
            #expect(open.isEmpty && !machine.isBusy, "seed \(seed)")
        }
    }
}

@Suite(.timeLimit(.minutes(10))) struct ProducerTests {
    @Test func failsOverToTheNextNSQD() async throws {
        try await withNSQ(servers: 3) { servers, collector in
            try await collector.publish(Message("one"))
            #expect(await servers[0].published(to: "orders") == 1)
            await servers[0].stop()
            await servers[1].stop()
            // The loss may be noticed by this publish only.
            try await eventually("a publish succeeds") {
                await code { try await collector.publish(Message("two")) } == nil
            }
            #expect(await servers[2].published(to: "orders") == 1)
        }
    }

    @Test func nobodyToPublishToIsToldAtOnce() async throws {
        try await withNSQ { servers, collector in
            await servers[0].stop()
            let start = ContinuousClock.now
            #expect(await code { try await collector.publish(Message("x")) } == .unavailable)
            #expect(start.duration(to: .now) < .seconds(5))
        }
    }

    @Test func answerThatNeverComesEndsAtTheDeadline() async throws {
        try await withNSQ {
            $0.publishDeadline = .milliseconds(150)
        } _: { servers, collector in
            await servers[0].react { command, _ in if case .publish = command { .obeyInSilence } else { .obey } }
            #expect(await code { try await collector.publish(Message("x")) } == .interrupted)
        }
    }

    @Test func refusedBeforeTheWire() async throws {
        try await withNSQ { servers, collector in
            await servers[0].record(true)
            let large = Message([UInt8](repeating: 0, count: (1 << 20) + 1))
            let late = Message("x", delay: .seconds(3601))
            #expect(await code { try await collector.publish(Message("")) } == .invalidArgument)
            #expect(await code { try await collector.publish(large) } == .bodyTooLarge)
            #expect(await code { try await collector.publish(late) } == .delayOutOfRange)
            #expect(await code { try await collector.publish(Message("x", headers: ["a": "b"])) } == .unsupported)
            #expect(await servers[0].accepted == 0)
            try await collector.publish(Message("fine"))
            #expect(await servers[0].published(to: "orders") == 1)
        }
    }

    @Test(arguments: ["", "bad name!", "a/b", "#ephemeral", String(repeating: "x", count: 65), ".hidden", "t#other"])
    func badTopicsAreRefused(topic: String) async {
        let nsqds = [NSQAddress(host: "localhost", port: 1)]
        #expect(await code { try NSQCollector(NSQConfiguration(topic: topic, nsqds: nsqds)) } == .invalidQueueName)
        #expect(await code { try NSQCollector(NSQConfiguration(topic: "t#ephemeral", nsqds: nsqds)).queue } == nil)
    }

    @Test func concurrentPublishersShareCommands() async throws {
        try await withNSQ {
            $0.linger = .milliseconds(5)
        } _: { servers, collector in
            await servers[0].record(true)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<500 { group.addTask { try await collector.publish(Message("\(number)")) } }
                try await group.waitForAll()
            }
            #expect(await servers[0].published(to: "orders") == 500)
            #expect(await servers[0].commands.count < 250)
        }
    }
}
