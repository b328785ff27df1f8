// A spool in front of a real SQS server, while the network between them breaks in each way that the proxy knows.

import Foundation
import StalkCore
import StalkFailover
import StalkLocal
import StalkTesting
import Synchronization
import Testing

@testable import StalkSQS

@Suite(.serialized) struct FailoverTests {
    private static let outages: [FaultProxy.Fault] = [
        // The first two can't even be opened; with the others, something arrives before the connection breaks.
        .blackHole, .resetAfterRequest(bytes: 50), .resetAfterRequest(bytes: 4000), .cutAnswer(bytes: 1500),
        .swallowAnswer(after: 1500, holdFor: .milliseconds(50)),
    ]

    @Test(
        .enabled(if: RealServer.present.contains(.ministack), "no MiniStack: see tools/lib/requirements.sh"),
        .timeLimit(.minutes(5)),
        arguments: ["orders", "orders.fifo"]
    )
    func outagesOfARealServerLoseNothing(queue: String) async throws {
        let server = try RealServer(.ministack)
        defer { server.stop() }
        try await server.createQueue(queue, queue.hasSuffix(".fifo") ? ["FifoQueue": "true"] : [:])
        let path = FileManager.default.temporaryDirectory.path + "/stalk-sqs-failover-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let store = try await LocalStore.open(at: path)
        var published: [String] = []
        var ambiguous = 0
        for (number, outage) in (Self.outages + Self.outages).enumerated() {
            let texts = (0..<30).map { "\(number)-\($0)" }
            ambiguous += try await self.live(server, queue, store, outage, texts)
            published += texts
        }
        try await store.close()

        let arrived = try await self.readAll(server, queue)
        let copies = arrived.count - Set(arrived).count
        #expect(Set(arrived) == Set(published), "\(Set(published).subtracting(arrived)) are lost")
        if queue.hasSuffix(".fifo") {
            // The deduplication id is the same over all tries.
            #expect(copies == 0)
            #expect(arrived == published)
        } else {
            #expect(copies <= ambiguous, "\(copies) copies, \(ambiguous) ambiguous sends")
            // Otherwise nothing was tried here.
            #expect(copies > 0)
        }
        #expect(ambiguous > 0)
    }

    /// A life of a process that begins in an outage: what it publishes is safe at once, and arrives once it is over.
    private func live(
        _ server: RealServer,
        _ queue: String,
        _ store: LocalStore,
        _ outage: FaultProxy.Fault,
        _ texts: [String]
    ) async throws -> Int {
        let fault = SharedFault(outage)
        let upstream = try #require(try Endpoint(server.configuration.endpoint ?? "").port)
        let proxy = try await FaultProxy(to: upstream) { _ in fault.value }
        var configuration = server.configuration
        configuration.endpoint = "http://127.0.0.1:\(proxy.port)"
        configuration.callTimeout = .milliseconds(700)
        // The spool tries again; copies of tries within one call would not be counted.
        configuration.maxAttempts = 1
        let (settings, capabilities) = (configuration, try await self.capabilities(server, queue))
        let remote = DeferredCollector(queue: try QueueName(queue), assuming: capabilities) {
            try await SQSCollector.open(queue, configuration: settings)
        }
        var options = FailoverOptions()
        options.directDeadline = .seconds(1)
        options.forwarding.minBackoff = .milliseconds(50)
        options.forwarding.maxBackoff = .milliseconds(300)
        options.forwarding.deduplicationWindow = queue.hasSuffix(".fifo") ? .seconds(300) : .zero
        let collector = try FailoverCollector(primary: remote, spool: store, options: options)
        for text in texts.prefix(20) { try await collector.publish(Message(text)) }
        try await ContinuousClock().sleep(for: .milliseconds(500))
        fault.value = .none
        for text in texts.dropFirst(20) { try await collector.publish(Message(text)) }
        while try await collector.stats().waiting > 0 { try await ContinuousClock().sleep(for: .milliseconds(20)) }
        let counters = try await collector.stats().forwarding
        #expect(counters.setAside == 0)
        await collector.close()
        await (remote.opened as? SQSCollector)?.close()
        await proxy.stop()
        return counters.ambiguous
    }

    private func capabilities(_ server: RealServer, _ queue: String) async throws -> CollectorCapabilities {
        let collector = try await SQSCollector.open(queue, configuration: server.configuration)
        let capabilities = collector.capabilities
        await collector.close()
        return capabilities
    }

    private func readAll(_ server: RealServer, _ queue: String) async throws -> [String] {
        var configuration = server.configuration
        configuration.prefetch = 0
        let collector = try await SQSCollector.open(queue, configuration: configuration)
        try await collector.wake()
        var texts: [String] = []
        while true {
            let deliveries = try await collector.take(TakeRequest(max: 10, wait: .seconds(2)))
            if deliveries.isEmpty { break }
            texts += deliveries.map(\.text)
            try await collector.finish(deliveries.map { Completion($0.receipt, .acknowledge) })
        }
        await collector.close()
        return texts
    }
}

/// A fault that a test changes while the proxy runs.
private final class SharedFault: Sendable {
    private let locked: Locked<FaultProxy.Fault>

    init(_ value: FaultProxy.Fault) {
        self.locked = Locked(value)
    }

    var value: FaultProxy.Fault {
        get { self.locked.withLock { $0 } }
        set { self.locked.withLock { $0 = newValue } }
    }
}
