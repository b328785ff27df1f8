import ServiceLifecycleTestKit
import StalkCore
import StalkTesting
import Testing

@testable import StalkWorker

/// The rule of autoscaling against a simulated queue: messages come, handlers take time, and share something scarce.
@Suite(.timeLimit(.minutes(10))) struct AutoscalerTests {
    /// A queue and its handlers, second by second.
    private struct Simulation {
        var rule: Autoscaler
        /// How long a handler takes when few run, in seconds.
        var service = 0.1
        /// From how many handlers on more of them do no more work.
        var knee = Double.infinity
        var backlog = 0.0
        var history: [Int] = []

        init(_ options: AutoscaleOptions) { self.rule = Autoscaler(options) }

        /// Five seconds with so many messages a second.
        mutating func step(arrivals: Double) {
            let concurrency = Double(self.rule.concurrency)
            let service = self.service * max(1, concurrency / self.knee)
            let work = self.backlog + 5 * arrivals
            let handled = min(work, 5 * concurrency / service).rounded(.down)
            self.backlog = work - handled
            let reading = AutoscaleReading(
                backlog: Int(self.backlog),
                handled: Int(handled),
                handlerTime: .seconds(handled * service),
                elapsed: .seconds(5)
            )
            self.history.append(self.rule.take(reading))
        }
    }

    private let options = AutoscaleOptions(min: 1, max: 64, drainIn: .seconds(60), interval: .seconds(5), patience: 6)

    @Test func idleQueueNeedsTheFewest() {
        var simulation = Simulation(self.options)
        for _ in 0..<50 { simulation.step(arrivals: 0) }
        #expect(simulation.history.allSatisfy { $0 == 1 })
    }

    @Test(arguments: [5.0, 50.0, 200.0])
    func steadyLoadSettles(arrivals: Double) {
        var simulation = Simulation(self.options)
        for _ in 0..<200 { simulation.step(arrivals: arrivals) }
        // By Little's law so many are busy on average.
        let busy = arrivals * simulation.service
        let settled = simulation.history.suffix(50)
        #expect(settled.allSatisfy { Double($0) >= busy && Double($0) <= 2 * busy + 1 }, "\(settled)")
        #expect(simulation.backlog <= arrivals * 60)
        let changes = zip(settled, settled.dropFirst()).count { $0 != $1 }
        #expect(changes <= 4, "it swings: \(settled)")
    }

    @Test func backlogIsWorkedOffInTimeAndGivenBack() {
        var simulation = Simulation(self.options)
        for _ in 0..<10 { simulation.step(arrivals: 10) }
        let before = simulation.rule.concurrency
        simulation.backlog += 6000
        var steps = 0
        while simulation.backlog > 0, steps < 200 {
            simulation.step(arrivals: 10)
            steps += 1
        }
        // A minute for the backlog, and again as long since what is left asks for less and less.
        #expect(steps <= 36, "it took \(steps * 5) seconds: \(simulation.history)")
        #expect(simulation.history.max() ?? 0 > 4 * before)
        for _ in 0..<100 { simulation.step(arrivals: 10) }
        #expect(simulation.rule.concurrency <= 2)
    }

    @Test func growingThatDoesNotHelpIsTakenBack() {
        var simulation = Simulation(self.options)
        simulation.knee = 8
        simulation.backlog = 1_000_000
        for _ in 0..<300 { simulation.step(arrivals: 0) }
        let late = simulation.history.suffix(200)
        let mean = Double(late.reduce(0, +)) / Double(late.count)
        #expect(mean <= 16, "more than twice what is of use: \(late)")
        #expect(late.min() ?? 0 >= 4)
        // The control: without the knee the same backlog takes all it may.
        var control = Simulation(self.options)
        control.backlog = 1_000_000
        for _ in 0..<50 { control.step(arrivals: 0) }
        #expect(control.rule.concurrency == 64)
    }

    @Test(arguments: 0..<20)
    func boundsHoldWhateverComes(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let options = AutoscaleOptions(min: 2, max: 9, patience: 2)
        var rule = Autoscaler(options)
        for _ in 0..<1000 {
            let reading = AutoscaleReading(
                backlog: Int.random(in: 0...1_000_000_000, using: &generator),
                handled: Int.random(in: 0...1000, using: &generator),
                handlerTime: .milliseconds(Int.random(in: 0...10_000_000, using: &generator)),
                elapsed: .milliseconds(Int.random(in: 0...10_000, using: &generator))
            )
            let concurrency = rule.take(reading)
            #expect((2...9).contains(concurrency))
        }
    }

    @Test func serviceScalesTheWorker() async throws {
        let clock = ManualClock()
        let collector = FaultyCollector(try .make(clock: clock))
        let worker = Worker(acknowledging: collector, clock: clock) { _ in }
        let looks = Recorder<Void>()
        let autoscaling = Autoscaling(worker, options: self.options, clock: clock) {
            looks.record(())
            return 100
        }
        try await testGracefulShutdown { trigger in
            async let run: Void = autoscaling.run()
            await clock.sleeperCount(reaches: 1)
            clock.advance(by: .seconds(5))
            await looks.count(reaches: 1)
            await clock.sleeperCount(reaches: 1)
            #expect(worker.status.concurrency == 2)
            trigger.triggerGracefulShutdown()
            try await run
        }
        let senseless = Autoscaling(worker, options: AutoscaleOptions(min: 3, max: 2)) { 0 }
        await #expect(throws: StalkError.self) { try await senseless.run() }
    }
}
