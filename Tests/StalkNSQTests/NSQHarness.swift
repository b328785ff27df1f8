// How the conformance suite reaches a scripted nsqd: one server a check, under a clock that the check moves.

internal import NIOCore
internal import StalkCore
internal import StalkNSQ
internal import StalkTesting
internal import Testing

/// A collector on a scripted nsqd of its own, or on one of several.
final class NSQHarness: CollectorHarness {
    let clock = ManualClock()
    let servers: [ScriptedNSQD]
    let change: @Sendable (inout NSQConfiguration) -> Void
    private let made = Locked<[NSQCollector]>([])
    private let number = Locked(0)

    init(
        servers count: Int = 1,
        options: ScriptedNSQD.Options = ScriptedNSQD.Options(),
        _ change: @escaping @Sendable (inout NSQConfiguration) -> Void = { $0.envelope = true }
    ) {
        let clock = self.clock
        self.servers = (0..<count).map { _ in ScriptedNSQD(options: options, clock: clock) }
        self.change = change
    }

    func start() async throws {
        for server in self.servers { try await server.start() }
    }

    func shutDown() async {
        for server in self.servers { await server.stop() }
    }

    func makeCollector() async throws -> NSQCollector {
        let number = self.number.withLock { number in
            number += 1
            return number
        }
        var configuration = NSQConfiguration(topic: "topic\(number)")
        for server in self.servers { configuration.nsqds.append(await server.address) }
        configuration.pollGrace = .milliseconds(60)
        configuration.rotationInterval = .milliseconds(10)
        // Connecting again would wait for a clock that stands still.
        configuration.connectTimeout = .seconds(60)
        self.change(&configuration)
        let collector = try NSQCollector(configuration, clock: self.clock)
        self.made.withLock { $0.append(collector) }
        return collector
    }

    func advance(by duration: Duration) async throws {
        self.clock.advance(by: duration)
        for server in self.servers { await server.tick() }
    }

    func takeIsWaiting() async throws {
        let collectors = self.made.withLock { $0 }
        try await eventually("a take waits") {
            for collector in collectors where await collector.waitingTakes > 0 { return true }
            return false
        }
    }

    func deadLetters(of collector: NSQCollector) async throws -> [ConformanceDeadLetter]? {
        var dead: [ConformanceDeadLetter] = []
        for server in self.servers {
            for body in await server.backlog(of: collector.queue.rawValue + ".errors") {
                guard let letter = NSQCollector.openEnvelope(body) else { continue }
                dead.append(ConformanceDeadLetter(body: letter.body, reason: letter.headers["Stalk-Error"] ?? ""))
            }
        }
        return dead
    }

    func finishUp(_ collector: NSQCollector) async throws {
        await collector.close()
    }
}

/// Waits, in real time, until something is true.
func eventually(
    _ what: String,
    within patience: Duration = .seconds(20),
    sourceLocation: SourceLocation = #_sourceLocation,
    _ condition: () async throws -> Bool
) async throws {
    let start = ContinuousClock.now
    while try await !condition() {
        guard start.duration(to: .now) < patience else {
            Issue.record("\(what): not within \(patience)", sourceLocation: sourceLocation)
            throw NotWithinPatience(what: what)
        }
        try await Task.sleep(for: .milliseconds(2))
    }
}

struct NotWithinPatience: Error {
    var what: String
}
