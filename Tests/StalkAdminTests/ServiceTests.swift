import Logging
import ServiceLifecycle
import StalkAdmin
import StalkCore
import StalkTesting
import StalkWorker
import Testing

/// Workers and the server as services of one group, as a program runs them.
@Suite(.timeLimit(.minutes(10))) struct ServiceTests {
    private static let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    private static func worker(_ collector: InMemoryCollector) -> Worker {
        Worker(acknowledging: collector, options: WorkerOptions(concurrency: 4)) { _ in await Task.yield() }
    }

    @Test func groupStopsInOrder() async throws {
        let collector = InMemoryCollector(queue: try QueueName("jobs"), clock: ContinuousClock())
        let worker = Self.worker(collector)
        let (listening, isListening) = AsyncStream.makeStream(of: AdminAddress.self)
        let server = AdminServer(
            options: AdminOptions(address: AdminAddress(port: 0)),
            collectors: [AdminCollector(worker)]
        ) { isListening.yield($0) }
        let services = ServiceGroup(services: [worker, server], logger: Self.quiet)
        async let run: Void = services.run()
        for await address in listening {
            for number in 0..<500 { try await collector.publish(Message("\(number)")) }
            while worker.counters.acknowledged < 100 { await Task.yield() }
            let request = "GET /api/queues HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            let answer = try await rawExchange(request, at: address)
            #expect(answer.contains(#""collectors":[{"#), "\(answer)")
            await services.triggerGracefulShutdown()
            break
        }
        try await run
        let counters = worker.counters
        #expect(counters.received == counters.acknowledged + counters.released && counters.inFlight == 0)
        #expect(collector.counts.ready == 500 - counters.acknowledged && collector.counts.leased == 0)
    }

    @Test func takenPortLeavesTheWorkerAlone() async throws {
        let (listening, isListening) = AsyncStream.makeStream(of: AdminAddress.self)
        let holder = AdminServer(options: AdminOptions(address: AdminAddress(port: 0))) { isListening.yield($0) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try? await holder.run() }
            defer { group.cancelAll() }
            for await address in listening {
                let collector = InMemoryCollector(queue: try QueueName("jobs"), clock: ContinuousClock())
                let worker = Self.worker(collector)
                let server = AdminServer(options: AdminOptions(address: address), collectors: [AdminCollector(worker)])
                let services = ServiceGroup(
                    configuration: .init(
                        services: [
                            .init(service: server, failureTerminationBehavior: .ignore),
                            .init(service: worker),
                        ],
                        logger: Self.quiet
                    )
                )
                async let run: Void = services.run()
                for number in 0..<100 { try await collector.publish(Message("\(number)")) }
                try await collector.drained()
                #expect(worker.counters.received == 100)
                await services.triggerGracefulShutdown()
                try await run
                break
            }
        }
    }
}
