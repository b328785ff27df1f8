import CoreMetrics
import MetricsTestKit
import StalkCore
import StalkTesting
import Testing

@testable import StalkFailover

/// What the process's own metrics backend gets to see.
@Suite struct MetricsTests {
    @Test func metricsOfAnOutageHaveTheDocumentedNames() async throws {
        let rig = try Rig()
        let metrics = TestMetrics()
        let labels = [("queue", "orders")]
        func total(_ name: String) throws -> Int64 {
            try metrics.expectCounter("stalk_failover_\(name)", labels).totalValue
        }
        func last(_ name: String) throws -> Double? {
            try metrics.expectMeter("stalk_failover_\(name)", labels).lastValue
        }
        rig.remote.script { script in
            script.next = [nil, .lostAnswer(arrived: nil)]
            script.lasting = .notSent
            script.refuses = { $0.text == "bad" }
        }
        try await withMetricsFactory(metrics) {
            try await rig.live { collector, _ in
                for text in ["one", "two", "three", "bad"] { try await collector.publish(Message(text)) }
                #expect(try total("direct") == 1 && total("stored") == 3)
                try await rig.until("the breaker") { try last("breaker_open") == 1 }
                try await rig.until("the depth") { try last("messages") == 3 && last("bytes") == 11 }
                rig.remote.script { $0.next = [.throttled] }
                rig.remote.script { $0.lasting = nil }
                try await rig.drained(collector)
                try await rig.until("the end") { try last("messages") == 0 && last("breaker_open") == 0 }
                #expect(try total("forwarded") == 2 && total("set_aside") == 1 && total("throttled") == 1)
                #expect(try total("ambiguous") == 1 && total("may_be_duplicate") == 1)
            }
        }
    }
}
