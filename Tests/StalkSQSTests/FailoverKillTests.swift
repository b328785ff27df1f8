// `stalk put --spool` and `stalk forward`, killed at each step of a message's way to a real SQS server.

import Foundation
import StalkCore
import StalkTesting
import Subprocess
import Testing

@testable import StalkSQS

@Suite(.serialized) struct FailoverKillTests {
    /// How often a process is killed at each step; `STALK_FAILOVER_KILLS` says otherwise.
    static let count = ProcessInfo.processInfo.environment["STALK_FAILOVER_KILLS"].flatMap { Int($0) } ?? 5

    @Test(
        .enabled(if: RealServer.present.contains(.ministack), "no MiniStack: see tools/lib/requirements.sh"),
        .timeLimit(.minutes(30))
    )
    func killsAtEachStepLoseNothing() async throws {
        let server = try RealServer(.ministack)
        defer { server.stop() }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for queue in ["kills", "kills.fifo"] {
                group.addTask { try await KilledCommands(queue, server).run(rounds: Self.count) }
            }
            try await group.waitForAll()
        }
    }
}

/// The commands on one queue, with a spool of their own and a proxy in front of the server.
private final class KilledCommands {
    private let queue: String
    private let server: RealServer
    private let directory = FileManager.default.temporaryDirectory.path + "/stalk-sqs-kills-\(UUID().uuidString)"
    private let fault = SharedFault(.none)
    private var books = FailoverBooks()
    private var lines = 0
    private var environment = Subprocess.Environment.inherit

    init(_ queue: String, _ server: RealServer) {
        self.queue = queue
        self.server = server
    }

    deinit { try? FileManager.default.removeItem(atPath: self.directory) }

    func run(rounds: Int) async throws {
        let isFIFO = self.queue.hasSuffix(".fifo")
        try await self.server.createQueue(self.queue, isFIFO ? ["FifoQueue": "true"] : [:])
        try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
        let upstream = try #require(try Endpoint(self.server.configuration.endpoint ?? "").port)
        let fault = self.fault
        let proxy = try await FaultProxy(to: upstream) { _ in fault.value }
        let credentials = try #require(self.server.configuration.credentials)
        self.environment = .inherit.updating([
            "AWS_ENDPOINT_URL": "http://127.0.0.1:\(proxy.port)", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "\(credentials.accessKeyID)",
            "AWS_SECRET_ACCESS_KEY": "\(credentials.secretAccessKey)",
            "STALK": "\(CommandTests.tool)", "QUEUE": "\(self.queue)",
            "DIR": "\(self.directory)",
        ])
        for _ in 0..<rounds {
            try await self.afterStoring(proxy)
            try await self.afterSending(proxy)
            try await self.afterRecording(proxy)
            try await self.anywhere(proxy)
        }
        await proxy.stop()
        let arrived = try await FailoverTests.readAll(self.server, self.queue)
        // What a killed `put` had stored and not told yet may arrive as well: no order was promised with it.
        let promised = Set(self.books.promised.map(\.text))
        #expect(self.books.breaches(arrived.filter(promised.contains), isFIFO: isFIFO) == [], "\(self.queue)")
        #expect(self.books.ambiguous >= rounds)
        if ProcessInfo.processInfo.environment["STALK_FAILOVER_REPORT"] != nil {
            let copies = arrived.count - Set(arrived).count
            print("\(self.queue): \(promised.count) messages, \(self.books.ambiguous) ambiguous, \(copies) copies")
        }
    }

    // MARK: Steps

    /// Killed once the first ids stand on its output: those messages were promised.
    private func afterStoring(_ proxy: FaultProxy) async throws {
        try await self.away(proxy)
        let begin = self.lines
        let ids = self.directory + "/ids"
        try? FileManager.default.removeItem(atPath: ids)
        let feed = "for i in $(seq \(begin) \(begin + 99)); do echo $i; sleep 0.005; done"
        let least = Int.random(in: 1...30)
        try await self.kill("exec $STALK put sqs://$QUEUE --lines --ids --spool $DIR/spool < <(\(feed)) > $DIR/ids") {
            try Self.lineCount(ids) >= least
        }
        self.lines += 100
        self.promise(begin..<begin + (try Self.lineCount(ids)))
        try await self.back(proxy)
        try await self.drain(proxy)
    }

    /// Killed while the answer to a send is kept back: the messages are at the server, and nobody could record it.
    private func afterSending(_ proxy: FaultProxy) async throws {
        try await self.put(15, proxy)
        self.fault.value = .loseSendAnswers(holdFor: .seconds(60))
        let before = proxy.lostSends
        try await self.kill("exec $STALK forward $QUEUE sqs://$QUEUE --store $DIR/spool --drain") {
            proxy.lostSends > before
        }
        self.fault.value = .none
        // All fifteen were in its hands.
        #expect(try await self.drain(proxy) == (15, 15))
    }

    /// Killed when the remote's answer is in the log, and before a checkpoint has deleted the message.
    private func afterRecording(_ proxy: FaultProxy) async throws {
        try await self.put(15, proxy)
        let before = proxy.answeredSends
        try await self.kill("exec $STALK forward $QUEUE sqs://$QUEUE --store $DIR/spool") {
            guard proxy.answeredSends >= before + 2 else { return false }
            try await ContinuousClock().sleep(for: .milliseconds(200))
            return true
        }
        #expect(try await self.drain(proxy) == (0, 0))
    }

    /// Killed at any moment.
    private func anywhere(_ proxy: FaultProxy) async throws {
        try await self.put(40, proxy)
        let end = ContinuousClock.now + .milliseconds(Int.random(in: 50...400))
        try await self.kill("exec $STALK forward $QUEUE sqs://$QUEUE --store $DIR/spool --rate 400") {
            ContinuousClock.now >= end
        }
        try await self.drain(proxy)
    }

    // MARK: What a step is made of

    private func promise(_ numbers: Range<Int>) {
        self.books.promised += numbers.map { (text: "\($0)", group: "") }
    }

    private func away(_ proxy: FaultProxy) async throws {
        await proxy.refuse()
        proxy.hangUp()
    }

    private func back(_ proxy: FaultProxy) async throws {
        try await proxy.listen()
    }

    /// Stores messages in an outage.
    private func put(_ count: Int, _ proxy: FaultProxy) async throws {
        try await self.away(proxy)
        let last = self.lines + count - 1
        try await self.run("seq \(self.lines) \(last) | $STALK put sqs://$QUEUE --lines --spool $DIR/spool")
        self.promise(self.lines..<last + 1)
        self.lines = last + 1
        try await self.back(proxy)
    }

    /// Sends what waits; what was ambiguous in it goes into the books.
    @discardableResult
    private func drain(_ proxy: FaultProxy) async throws -> (forwarded: Int, ambiguous: Int) {
        let output = try await self.run("$STALK forward $QUEUE sqs://$QUEUE --store $DIR/spool --drain --json")
        let report = try JSON(Array(output.utf8))
        let (forwarded, ambiguous) = (report["forwarded"]?.integer ?? -1, report["ambiguous"]?.integer ?? -1)
        #expect(report["setAside"]?.integer == 0)
        self.books.ambiguous += ambiguous
        return (forwarded, ambiguous)
    }

    private static func lineCount(_ path: String) throws -> Int {
        guard let data = FileManager.default.contents(atPath: path) else { return 0 }
        return data.count { $0 == UInt8(ascii: "\n") }
    }

    @discardableResult
    private func run(_ script: String) async throws -> String {
        let result = try await Subprocess.run(
            .name("timeout"),
            arguments: ["60", "/bin/bash", "-euc", script],
            environment: self.environment,
            output: .string(limit: 1 << 20),
            error: .string(limit: 1 << 20)
        )
        try #require(result.terminationStatus == .exited(0), "\(script): \(result.standardError)")
        return result.standardOutput
    }

    /// Runs a command and kills it once something is so.
    private func kill(_ script: String, once condition: () async throws -> Bool) async throws {
        let result = try await Subprocess.run(
            .name("bash"),
            arguments: ["-euc", script],
            environment: self.environment,
            input: .none,
            output: .discarded,
            error: .string(limit: 1 << 20)
        ) { execution in
            let begun = ContinuousClock.now
            while try await !condition(), begun.duration(to: .now) < .seconds(30) {
                try await ContinuousClock().sleep(for: .milliseconds(2))
            }
            try execution.send(signal: .kill)
        }
        #expect(result.terminationStatus == .signaled(9), "\(script): \(result.standardError)")
    }
}
