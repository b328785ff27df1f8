import Foundation
import StalkCore
import StalkTesting
import Testing

@testable import StalkFailover
@testable import StalkLocal

/// What other processes see of one that forwards.
@Suite struct ReportTests {
    @Test func othersSeeTheBreakerAndTheRates() async throws {
        let rig = try Rig()
        rig.remote.script { $0.lasting = .notSent }
        try await rig.live(FailoverOptions(mode: .writeThrough)) { collector, store in
            let seen = { try await ForwardingReport.all(in: store).first { $0.queue == collector.queue } }
            for number in 0..<20 { try await collector.publish(Message("message \(number % 10)")) }
            try await rig.until("the breaker") {
                guard let report = try await seen(), report.isAlive, report.figures.breaker == .open else {
                    return false
                }
                let wait = report.figures.triedAt?.remaining(at: rig.clock.wallTime()) ?? .seconds(100)
                return wait > .zero && wait <= .seconds(60) && report.figures.counters.opened == 1
            }
            rig.remote.script { $0.lasting = nil }
            try await rig.until("the rates", step: .milliseconds(10)) {
                guard let figures = try await seen()?.figures else { return false }
                return figures.rate > 0 && figures.byteRate == figures.rate * 9 && figures.breaker == .closed
            }
            try await rig.drained(collector)
            try await rig.until("the end") {
                let figures = try await seen()?.figures
                return figures?.counters.forwarded == 20 && figures?.rate == 0
            }
            #expect(try await seen()?.process == Int(getpid()))
            await collector.close()
            let last = try #require(try await seen())
            #expect(!last.isAlive && last.figures.counters.forwarded == 20)
        }
    }

    /// A board of one queue on a clock that stands still, without a store.
    private final class Place: Sendable {
        let path = FileManager.default.temporaryDirectory.path + "/stalk-report-\(UUID().uuidString)"
        let clock = ManualClock()
        let counters = Locked(ForwardingCounters())

        init() throws {
            try FileManager.default.createDirectory(atPath: self.path, withIntermediateDirectories: true)
            chmod(self.path, 0o700)
        }

        func remove() { try? FileManager.default.removeItem(atPath: self.path) }

        func board() throws -> (ForwardingBoard, Task<Void, Never>) {
            let queue = try QueueName("orders")
            let board = ForwardingBoard(store: self.path, queue: queue, clock: ElapsedClock(self.clock))
            let running = Task {
                await board.run(to: queue) {
                    ForwardingReport.Figures(
                        breaker: .closed,
                        rate: 0,
                        byteRate: 0,
                        counters: self.counters.withLock { $0 }
                    )
                }
            }
            return (board, running)
        }

        var reports: [ForwardingReport] { (try? ForwardingReport.all(inStoreAt: self.path)) ?? [] }

        func until(_ what: String, _ condition: () throws -> Bool) async throws {
            let start = ContinuousClock.now
            while try !condition() {
                try #require(ContinuousClock.now - start < .seconds(30), "\(what) did not happen")
                try await Task.sleep(for: .milliseconds(1))
            }
        }
    }

    @Test func aReportIsWrittenOnceASecondAndWhenTheBreakerTurns() async throws {
        let place = try Place()
        defer { place.remove() }
        let (board, running) = try place.board()
        func poke(_ forwarded: Int, isUrgent: Bool) {
            place.counters.withLock { $0.forwarded = forwarded }
            board.poke(isUrgent: isUrgent)
        }
        let forwarded = { place.reports.first?.figures.counters.forwarded }
        try await place.until("the first") { forwarded() == 0 }
        for count in 1...1000 { poke(count, isUrgent: false) }
        try await Task.sleep(for: .milliseconds(50))
        #expect(forwarded() == 0)
        place.clock.advance(by: .seconds(1))
        try await place.until("the next second's") { forwarded() == 1000 }
        poke(1001, isUrgent: true)
        try await place.until("the urgent one") { forwarded() == 1001 }
        // Idle, it wakes nobody, and the next event wakes it.
        try await place.until("idleness") {
            place.clock.advance(by: .seconds(1))
            return !board.looksByItself
        }
        poke(1002, isUrgent: false)
        try await place.until("the one after that") { forwarded() == 1002 }
        running.cancel()
        await running.value
        #expect(place.reports.map(\.isAlive) == [false])
    }

    @Test func severalThatForwardFromOneQueueAreToldApart() async throws {
        let place = try Place()
        defer { place.remove() }
        let running = try (0..<3).map { _ in try place.board().1 }
        try await place.until("all three") { place.reports.filter(\.isAlive).count == 3 }
        for (number, one) in running.enumerated() {
            one.cancel()
            await one.value
            // Of those that are gone one is shown, and only when nobody is left.
            #expect(place.reports.map(\.isAlive) == (number == 2 ? [false] : Array(repeating: true, count: 2 - number)))
        }
        let again = try place.board().1
        try await place.until("another one") { place.reports.map(\.isAlive) == [true] }
        #expect(try FileManager.default.contentsOfDirectory(atPath: place.path + "/forwarding").count == 3)
        again.cancel()
        await again.value
    }

    @Test func whatIsNoReportIsNotShown() throws {
        var report = ForwardingReport(
            queue: try QueueName(String(repeating: "q", count: 200)),
            destination: try QueueName(String(repeating: "d", count: 200)),
            process: .max,
            isAlive: false,
            writtenAt: Timestamp(millisecondsSince1970: .max),
            figures: ForwardingReport.Figures(
                breaker: .halfOpen,
                triedAt: Timestamp(millisecondsSince1970: .min),
                rate: .max,
                byteRate: .max,
                rateLimit: 1.5,
                counters: ForwardingCounters()
            )
        )
        report.figures.counters.ambiguous = 7
        let bytes = ForwardingText.bytes(report, number: .max)
        #expect(bytes.count == ForwardingText.size && ForwardingText.report(bytes) == report)
        // Without its last newline it is as good.
        for count in 0..<bytes.count - 1 { #expect(ForwardingText.report(Array(bytes.prefix(count))) == nil) }
        let next = ForwardingText.bytes(report, number: 1)
        for cut in [100, 1000, 2040] {
            #expect(ForwardingText.report(Array(bytes.prefix(cut) + next.dropFirst(cut))) == nil)
        }
        #expect(ForwardingText.report(Array("stalk forwarding 1 5\nx\nend 5\n".utf8)) == nil)
        #expect(ForwardingText.report([UInt8](repeating: 0, count: 2048)) == nil)
    }

    @Test func whatStandsInTheWayOfAReportStopsNobody() async throws {
        let rig = try Rig()
        try await rig.live { collector, _ in _ = try await collector.publish(Message("one")) }
        try FileManager.default.removeItem(atPath: rig.path + "/forwarding")
        try Data().write(to: URL(fileURLWithPath: rig.path + "/forwarding"))
        rig.remote.script { $0.lasting = .notSent }
        try await rig.live { collector, _ in
            try await collector.publish(Message("two"))
            rig.remote.script { $0.lasting = nil }
            try await rig.drained(collector)
        }
        #expect(rig.arrived == ["one", "two"])
        // Beside reports, strange files are passed over, and links are not followed.
        try FileManager.default.removeItem(atPath: rig.path + "/forwarding")
        try await rig.live { _, store in
            try await rig.until("a report") { try await !ForwardingReport.all(in: store).isEmpty }
            let directory = rig.path + "/forwarding/"
            try Data("nonsense".utf8).write(to: URL(fileURLWithPath: directory + "stray"))
            try FileManager.default.createSymbolicLink(
                atPath: directory + "link",
                withDestinationPath: directory + "orders"
            )
            #expect(try await ForwardingReport.all(in: store).count == 1)
        }
    }
}
