// Taking over real connections: several nsqds, discovery, dead letters, shutdown, and runs with connections that drop.

internal import StalkCore
internal import StalkNSQ
internal import StalkTesting
internal import StalkWorker
internal import Testing

@Suite(.timeLimit(.minutes(10))) struct ConsumerTests {
    @Test func takesFromAllNSQDs() async throws {
        try await withNSQ(servers: 3) { servers, collector in
            for (number, server) in servers.enumerated() {
                await server.put((0..<100).map { Array("\(number)-\($0)".utf8) }, "orders", delay: .zero)
            }
            try await collector.wake()
            let taken = try await collector.takeAll(300)
            #expect(Set(taken.map(\.body)).count == 300)
        }
    }

    /// One delivery at a time over five connections: RDY goes round until it finds the nsqd that has messages.
    @Test func oneInFlightGoesRoundAllNSQDs() async throws {
        try await withNSQ(servers: 5) {
            $0.maxInFlight = 1
        } _: { servers, collector in
            try await collector.wake()
            for (number, server) in servers.enumerated() {
                await server.put([Array("\(number)".utf8)], "orders", delay: .zero)
            }
            var texts: Set<String> = []
            for _ in servers {
                let delivery = try await collector.takeAll(1, finishing: false)[0]
                var out = 0
                for server in servers { out += await server.inFlight("orders", "stalk") }
                #expect(out <= 2, "\(out) are out where 1 was allowed, and one may be on its way")
                texts.insert(delivery.text)
                try await collector.acknowledge(delivery)
            }
            #expect(texts.count == 5)
        }
    }

    /// RDY must begin to go round when a second nsqd comes while a take waits, not at the next call.
    @Test func nsqdThatComesLaterGetsItsTurn() async throws {
        try await withNSQ(servers: 2) {
            $0.maxInFlight = 1
            $0.rotationInterval = .milliseconds(5)
        } _: { servers, collector in
            try await collector.wake()
            let port = await servers[1].port
            await servers[1].stop()
            async let taken = collector.take(TakeRequest(wait: .seconds(10)))
            try await eventually("the take waits for the first") { await servers[0].readyCounts == [1] }
            try await servers[1].start(port: port)
            try await eventually("both are connected") { await servers[1].readyCounts.count == 1 }
            let idle = await servers[1].readyCounts == [0] ? servers[1] : servers[0]
            await idle.put([Array("late".utf8)], "orders", delay: .zero)
            #expect(try await taken.map(\.text) == ["late"])
        }
    }

    /// A taker of one raises the attempts of no other message; a slow one gets no more than it asked for.
    @Test func slowConsumerIsNotFlooded() async throws {
        try await withNSQ { servers, collector in
            await servers[0].put((0..<1000).map { Array("\($0)".utf8) }, "orders", delay: .zero)
            try await collector.wake()
            for _ in 0..<20 {
                let delivery = try await collector.takeAll(1, finishing: false)[0]
                #expect(await servers[0].inFlight("orders", "stalk") == 1)
                try await collector.acknowledge(delivery)
                try await eventually("RDY is 0") { await servers[0].readyCounts == [0] }
            }
        }
    }

    @Test func deadLetterWaitsForTheErrorTopic() async throws {
        try await withNSQ { servers, collector in
            try await collector.publish(Message("poison"))
            try await collector.wake()
            let delivery = try await collector.takeAll(1, finishing: false)[0]
            // Publishing fails: the message must not be finished.
            await servers[0].react { command, _ in
                if case .publish = command { .refuse("E_PUB_FAILED no") } else { .obey }
            }
            let refusal = await code { try await collector.finish(delivery, .deadLetter(reason: "bad")) }
            #expect(refusal == .unavailable)
            #expect(await servers[0].unfinished("orders", "stalk") == 1)
            await servers[0].react(nil)
            try await collector.finish(delivery, .deadLetter(reason: "bad"))
            try await eventually("it leaves the topic") { await servers[0].unfinished("orders", "stalk") == 0 }
            #expect(await servers[0].backlog(of: "orders.errors") == [Array("poison".utf8)])
        }
    }

    @Test func tooManyAttemptsGoToTheErrorTopic() async throws {
        try await withNSQ {
            $0.maxAttempts = 2
            $0.errorTopic = "broken"
        } _: { servers, collector in
            try await collector.publish(Message("crasher"))
            try await collector.wake()
            for attempt in 1...2 {
                let delivery = try await collector.takeAll(1, finishing: false)[0]
                #expect(delivery.attempt == attempt)
                try await collector.finish(delivery, .release)
            }
            async let none = collector.take(TakeRequest(wait: .milliseconds(500)))
            try await eventually("it is in the error topic") { await servers[0].published(to: "broken") == 1 }
            try await eventually("it left the topic") { await servers[0].unfinished("orders", "stalk") == 0 }
            #expect(try await none.isEmpty)
        }
    }

    @Test func closingGivesBackAtOnce() async throws {
        try await withNSQ {
            $0.prefetch = 50
        } _: { servers, collector in
            await servers[0].put((0..<20).map { Array("\($0)".utf8) }, "orders", delay: .zero)
            try await collector.wake()
            let taken = try await collector.takeAll(5, finishing: false)
            try await eventually("the rest is here") { await servers[0].inFlight("orders", "stalk") == 20 }
            try await collector.acknowledge(taken[0])
            await servers[0].record(true)
            await collector.close()
            try await eventually("all is given back", within: .seconds(5)) {
                await servers[0].inFlight("orders", "stalk") == 0
            }
            #expect(await servers[0].unfinished("orders", "stalk") == 19)
            #expect(await servers[0].commands.contains(.startClose))
            #expect(await code { try await collector.take(TakeRequest()) } == .closed)
        }
    }

    @Test func failingHandlerBacksOffAndRecovers() async throws {
        try await withNSQ {
            $0.backoff = NSQBackoff(failures: 3, base: .milliseconds(100), cap: .milliseconds(800))
        } _: { servers, collector in
            await servers[0].put((0..<40).map { Array("\($0)".utf8) }, "orders", delay: .zero)
            let state = Locked((isBroken: true, calls: 0, done: 0))
            let worker = Worker(
                collector: collector,
                options: WorkerOptions(concurrency: 2, retryPolicy: try .fixed(.zero, maxAttempts: nil)),
                until: { try await eventually("all is done") { state.withLock { $0.done } == 40 } },
                handler: { _ in
                    let isBroken = state.withLock { state in
                        state.calls += 1
                        if !state.isBroken { state.done += 1 }
                        return state.isBroken
                    }
                    if isBroken { throw NotWithinPatience(what: "the database") }
                    return .acknowledge
                }
            )
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await worker.run() }
                try await Task.sleep(for: .milliseconds(1500))
                // Without back-off there would be thousands of calls by now.
                let calls = state.withLock { state in
                    state.isBroken = false
                    return state.calls
                }
                #expect((3...20).contains(calls), "\(calls) calls while the handler was broken")
                let mended = ContinuousClock.now
                try await group.waitForAll()
                // 0.8 s of pause, 0.4 and 0.1 s on the way back, and a loaded machine.
                #expect(mended.duration(to: .now) < .seconds(10))
            }
        }
    }

    @Test func lookupdNamesNodesAsTheyCome() async throws {
        let lookupds = [ScriptedLookupd(), ScriptedLookupd(), ScriptedLookupd()]
        for lookupd in lookupds { try await lookupd.start() }
        lookupds[2].state.withLock { $0.isSilent = true }
        let addresses = lookupds.map(\.address)
        try await withNSQ(servers: 2) {
            $0.lookupds = addresses
            $0.lookupInterval = .milliseconds(100)
            $0.connectTimeout = .milliseconds(500)
            $0.nsqds = []
        } _: { servers, collector in
            // Nobody has the topic yet: the publish goes to any node.
            let first = await servers[0].address
            lookupds[0].state.withLock { $0.nodes = [first] }
            try await collector.publish(Message("one"))
            #expect(await servers[0].published(to: "orders") == 1)
            try await collector.wake()
            lookupds[0].state.withLock { $0.topics["orders"] = [first] }
            #expect(try await collector.takeAll(1).map(\.text) == ["one"])
            // A second node, that another nsqlookupd knows, and one that nobody can reach.
            let second = await servers[1].address
            await servers[1].put([Array("two".utf8)], "orders", delay: .zero)
            lookupds[1].state.withLock { $0.topics["orders"] = [second, NSQAddress(host: "127.0.0.1", port: 1)] }
            #expect(try await collector.takeAll(1).map(\.text) == ["two"])
            // Forgotten by nsqlookupd, but still connected.
            lookupds[0].state.withLock { $0.topics = [:] }
            await servers[0].put([Array("three".utf8)], "orders", delay: .zero)
            #expect(try await collector.takeAll(1).map(\.text) == ["three"])
        }
        for lookupd in lookupds { await lookupd.stop() }
    }

    @Test func awayIsNotEmpty() async throws {
        try await withNSQ { servers, collector in
            await servers[0].stop()
            try await collector.wake()
            #expect(await code { try await collector.take(TakeRequest(wait: .milliseconds(50))) } == .unavailable)
            try await servers[0].start(port: servers[0].port)
            try await eventually("it is back") {
                (try? await collector.take(TakeRequest(wait: .milliseconds(50)))) != nil
            }
        }
    }

    @Test func severalCollectorsWorkInOneProcess() async throws {
        try await withNSQ { servers, collector in
            let address = await servers[0].address
            var other = NSQConfiguration(topic: "orders", nsqds: [address])
            other.channel = "audit"
            let second = try NSQCollector(other)
            try await collector.wake()
            try await second.wake()
            try await collector.publish(Message("for both"))
            #expect(try await collector.takeAll(1).count == 1)
            #expect(try await second.takeAll(1).count == 1)
            await second.close()
        }
    }
}
