// A spool in front of a real SQS server, while the network between them breaks in each way that the proxy knows.

import Foundation
import StalkCore
import StalkFailover
import StalkLocal
import StalkTesting
import Testing

@testable import StalkSQS

/// How a remote is away.
enum Outage: String, CaseIterable, Sendable {
    case refused, silent, resetAtOnce, resetWithinRequest, answerCut, answerSwallowed, sendsUnanswered, answerStalled
    case slowDrip, serverError, throttled, denied, gone

    /// What the proxy does with new connections; it refuses them by itself.
    var fault: FaultProxy.Fault {
        switch self {
        case .refused, .silent: .blackHole
        case .resetAtOnce: .resetAfterRequest(bytes: 50)
        case .resetWithinRequest: .resetAfterRequest(bytes: 2500)
        case .answerCut: .cutAnswer(bytes: 200)
        case .answerSwallowed: .swallowAnswer(after: 0, holdFor: .milliseconds(50))
        case .sendsUnanswered: .loseSendAnswers(holdFor: .seconds(5))
        case .answerStalled: .stallAnswer(bytes: 100, holdFor: .seconds(5))
        case .slowDrip: .dripAnswer(bytes: 20, pause: .milliseconds(100))
        case .serverError: .answer(status: 503, body: "<html><body>503 Service Unavailable</body></html>")
        case .throttled: .answer(status: 400, body: #"{"__type":"RequestThrottled","message":"slow down"}"#)
        case .denied: .answer(status: 403, body: #"{"__type":"AccessDeniedException","message":"no"}"#)
        case .gone: .answer(status: 400, body: #"{"__type":"QueueDoesNotExist","message":"gone"}"#)
        }
    }

    /// Whether a send may arrive in it although nobody hears of that.
    var isAmbiguous: Bool {
        switch self {
        case .answerCut, .answerSwallowed, .sendsUnanswered, .answerStalled, .slowDrip: true
        default: false
        }
    }
}

/// What publishers were promised, and what is wrong with what arrived.
struct FailoverBooks {
    var promised: [(text: String, group: String)] = []
    var ambiguous = 0

    /// The breaches of "nothing lost, no more copies than ambiguous sends, in order within a group".
    func breaches(_ arrived: [String], isFIFO: Bool) -> [String] {
        var breaches: [String] = []
        let lost = Set(self.promised.map(\.text)).subtracting(arrived)
        if !lost.isEmpty { breaches.append("lost: \(lost.sorted())") }
        let copies = arrived.count - Set(arrived).count
        // A FIFO queue drops copies by their deduplication id.
        if copies > (isFIFO ? 0 : self.ambiguous) { breaches.append("\(copies) copies, \(self.ambiguous) ambiguous") }
        guard isFIFO else { return breaches }
        for group in Set(self.promised.map(\.group)) {
            let wanted = self.promised.filter { $0.group == group }.map(\.text)
            let members = Set(wanted)
            let got = arrived.filter { members.contains($0) }
            if got != wanted, Set(got) == members { breaches.append("out of order in \(group): \(got)") }
        }
        return breaches
    }
}

@Suite(.serialized) struct FailoverTests {
    /// How many outages of each kind there are; `STALK_FAILOVER_OUTAGES` says otherwise.
    static let count = ProcessInfo.processInfo.environment["STALK_FAILOVER_OUTAGES"].flatMap { Int($0) } ?? 10

    @Test(
        .enabled(if: RealServer.present.contains(.ministack), "no MiniStack: see tools/lib/requirements.sh"),
        .timeLimit(.minutes(30))
    )
    func outagesOfARealServerLoseNothing() async throws {
        let server = try RealServer(.ministack)
        defer { server.stop() }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for outage in Outage.allCases {
                for queue in ["\(outage)", "\(outage).fifo"] {
                    group.addTask { try await self.endure(outage, queue, server) }
                }
            }
            try await group.waitForAll()
        }
    }

    private func endure(_ outage: Outage, _ queue: String, _ server: RealServer) async throws {
        try await server.createQueue(queue, queue.hasSuffix(".fifo") ? ["FifoQueue": "true"] : [:])
        let fault = SharedFault(.none)
        let upstream = try #require(try Endpoint(server.configuration.endpoint ?? "").port)
        let proxy = try await FaultProxy(to: upstream) { _ in fault.value }
        let remote = try await self.open(queue, self.configuration(server, proxy))
        let counters = try await self.count(queue, server, remote) { _ in
            fault.value = outage.fault
            if outage == .refused { await proxy.refuse() }
            proxy.hangUp()
        } ends: { _ in
            fault.value = .none
            if outage == .refused { try await proxy.listen() }
            proxy.hangUp()
        }
        if outage.isAmbiguous { #expect(counters.ambiguous > 0, "\(queue)") }
        await proxy.stop()
    }

    /// Counts what a queue makes of a number of outages of one kind.
    ///
    /// - Parameters:
    ///   - begins: Takes the remote away, for the time of the given number.
    ///   - ends: Brings it back.
    func count(
        _ queue: String,
        _ server: RealServer,
        _ remote: SQSCollector,
        begins: (Int) async throws -> Void,
        ends: (Int) async throws -> Void
    ) async throws -> ForwardingCounters {
        let isFIFO = queue.hasSuffix(".fifo")
        let path = FileManager.default.temporaryDirectory.path + "/stalk-sqs-failover-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let store = try await LocalStore.open(at: path)
        let collector = try FailoverCollector(primary: remote, spool: store, options: self.options(isFIFO: isFIFO))
        var books = FailoverBooks()
        let start = ContinuousClock.now
        for number in 0..<Self.count {
            let publish = { (numbers: Range<Int>) in
                let messages = numbers.map { Message("\(number)-\($0)", headers: ["Stalk-Group": "\($0 % 2)"]) }
                for result in try await collector.publish(messages) { _ = try result.get() }
                books.promised += numbers.map { (text: "\(number)-\($0)", group: "\($0 % 2)") }
            }
            try await publish(0..<4)
            let before = try await collector.stats()
            try await begins(number)
            for single in 4..<7 { try await publish(single..<single + 1) }
            try await publish(7..<10)
            try await ContinuousClock().sleep(for: .milliseconds(Int.random(in: 0...150)))
            // Otherwise nothing was tried here.
            let felt = try await collector.stats()
            #expect(felt.stored > before.stored, "\(queue), outage \(number)")
            try await ends(number)
            try await publish(10..<13)
            while try await collector.stats().waiting > 0 {
                try #require(ContinuousClock.now - start < .seconds(600), "\(queue) does not drain")
                try await ContinuousClock().sleep(for: .milliseconds(20))
            }
        }
        let stats = try await collector.stats()
        books.ambiguous = stats.forwarding.ambiguous
        #expect(stats.setAside == 0)
        await collector.close()
        await remote.close()
        try await store.close()
        let arrived = try await Self.readAll(server, queue)
        #expect(books.breaches(arrived, isFIFO: isFIFO) == [], "\(queue), \(stats)")
        if ProcessInfo.processInfo.environment["STALK_FAILOVER_REPORT"] != nil {
            let copies = arrived.count - Set(arrived).count
            print("\(queue): \(books.ambiguous) ambiguous, \(copies) copies, \(ContinuousClock.now - start)")
        }
        return stats.forwarding
    }

    private func open(_ queue: String, _ configuration: SQSConfiguration) async throws -> SQSCollector {
        try await self.patiently { try await SQSCollector.open(queue, configuration: configuration) }
    }

    /// All open at once, and a busy machine answers none of them within the short time of a call.
    func patiently(_ open: () async throws -> SQSCollector) async throws -> SQSCollector {
        for _ in 0..<50 {
            do {
                return try await open()
            } catch let error as StalkError where error.code == .unavailable {
                try await ContinuousClock().sleep(for: .milliseconds(100))
            }
        }
        return try await open()
    }

    func configuration(_ server: RealServer, _ proxy: FaultProxy) -> SQSConfiguration {
        var configuration = server.configuration
        configuration.endpoint = "http://127.0.0.1:\(proxy.port)"
        configuration.callTimeout = .milliseconds(600)
        // The spool tries again; copies of tries within one call would not be counted.
        configuration.maxAttempts = 1
        return configuration
    }

    private func options(isFIFO: Bool) -> FailoverOptions {
        var options = FailoverOptions()
        options.forwarding.order = .group
        options.forwarding.minBackoff = .milliseconds(50)
        options.forwarding.maxBackoff = .milliseconds(300)
        options.forwarding.refusedInterval = .milliseconds(400)
        options.forwarding.deduplicationWindow = isFIFO ? .seconds(300) : .zero
        return options
    }

    static func readAll(_ server: RealServer, _ queue: String) async throws -> [String] {
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

    /// The negative control of the books: each planted breach is seen.
    @Test func theBooksSeeWhatGoesWrong() {
        var books = FailoverBooks(promised: [("1", "a"), ("2", "a"), ("3", "b")])
        for isFIFO in [false, true] {
            #expect(books.breaches(["1", "3", "2"], isFIFO: isFIFO) == [])
            #expect(books.breaches(["1", "3"], isFIFO: isFIFO).count == 1)
            #expect(books.breaches(["1", "2", "1", "3"], isFIFO: isFIFO).isEmpty == false)
        }
        #expect(books.breaches(["2", "1", "3"], isFIFO: true).count == 1)
        books.ambiguous = 1
        #expect(books.breaches(["1", "2", "1", "3"], isFIFO: false) == [])
    }
}

/// A fault that a test changes while the proxy runs.
final class SharedFault: Sendable {
    private let locked: Locked<FaultProxy.Fault>

    init(_ value: FaultProxy.Fault) {
        self.locked = Locked(value)
    }

    var value: FaultProxy.Fault {
        get { self.locked.withLock { $0 } }
        set { self.locked.withLock { $0 = newValue } }
    }
}
