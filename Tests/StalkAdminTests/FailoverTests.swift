// What the control shows of a remote queue with a spool, while the remote is away and when it is back.

import Foundation
import FoundationNetworking
import StalkCore
import StalkFailover
import StalkLocal
import StalkTesting
import Testing

@testable import StalkAdmin

@Suite(.timeLimit(.minutes(5))) struct FailoverTests {
    /// A remote that is away, with five messages before it of which one can't be read, shown by a server.
    private func withOutage(
        _ body: @Sendable (FaultyCollector, FailoverCollector, AdminAddress) async throws -> Void
    ) async throws {
        let path = NSTemporaryDirectory() + "/stalk-admin-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let store = try await LocalStore.open(at: path)
        let memory = InMemoryCollector(queue: try QueueName("orders"), clock: ContinuousClock())
        let remote = FaultyCollector(memory)
        remote.script { script in
            script.lasting = .lostAnswer(arrived: 0)
            script.refuses = { $0.body == Array("bad".utf8) }
        }
        var options = FailoverOptions()
        options.forwarding.failuresToOpen = 1
        options.forwarding.minBackoff = .milliseconds(50)
        options.forwarding.maxBackoff = .milliseconds(100)
        options.forwarding.messagesPerSecond = 1000
        let collector = try FailoverCollector(primary: remote, spool: store, options: options)
        for text in ["one", "two", "bad", "four", "five"] { try await collector.publish(Message(text)) }
        let (listening, isListening) = AsyncThrowingStream.makeStream(of: AdminAddress.self)
        let server = AdminServer(
            options: AdminOptions(address: AdminAddress(port: 0)),
            collectors: [AdminCollector(id: "cloud", backend: "sqs", collector: collector)]
        ) { isListening.yield($0) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                do {
                    try await server.run()
                    isListening.finish()
                } catch {
                    isListening.finish(throwing: error)
                }
            }
            defer { group.cancelAll() }
            for try await address in listening {
                try await body(remote, collector, address)
                break
            }
        }
        await collector.close()
        try await store.close()
    }

    private func get(_ address: AdminAddress, _ path: String) async throws -> String {
        let url = try #require(URL(string: "http://\(address)\(path)"))
        return String(decoding: try await URLSession.shared.data(from: url).0, as: UTF8.self)
    }

    private func overview(_ address: AdminAddress) async throws -> AdminOverview.Failover {
        let text = try await self.get(address, "/api/queues")
        let overview = try JSONDecoder().decode(AdminOverview.self, from: Data(text.utf8))
        return try #require(overview.failovers.first)
    }

    @Test func figuresOfAnOutageAreServed() async throws {
        try await self.withOutage { remote, collector, address in
            let away = try await self.overview(address)
            #expect(away.id == "cloud" && away.queue == "orders" && away.breaker != "closed")
            #expect(away.waiting == 5 && away.bytes == 17 && away.setAside == 0 && away.stored == 5)
            #expect(away.ambiguous >= 1 && away.opened == 1 && away.forwarded == 0)
            #expect(away.oldestAgeMs != nil && away.timeToEmptyMs == nil && away.rateLimit == 1000)
            let text = try await self.get(address, "/metrics")
            ServerTests.checkForm(of: text)
            let lines = Set(text.split(separator: "\n").map(String.init))
            for line in [
                #"stalk_failover_messages{failover="cloud",queue="orders",state="waiting"} 5"#,
                #"stalk_failover_messages{failover="cloud",queue="orders",state="set_aside"} 0"#,
                #"stalk_failover_bytes{failover="cloud",queue="orders"} 17"#,
                #"stalk_failover_breaker_open{failover="cloud",queue="orders"} 1"#,
                #"stalk_failover_stored_total{failover="cloud",queue="orders"} 5"#,
                #"stalk_failover_rate{failover="cloud",queue="orders"} 0"#,
                #"stalk_failover_rate_limit{failover="cloud",queue="orders"} 1000.0"#,
            ] { #expect(lines.contains(line), "\(line)") }
            for name in ["oldest_age_seconds", "ambiguous_total", "may_be_duplicate_total", "opened_total"] {
                #expect(text.contains("\nstalk_failover_\(name){"), "\(name)")
            }

            remote.script { $0.lasting = nil }
            while try await collector.stats().waiting > 0 { try await ContinuousClock().sleep(for: .milliseconds(10)) }
            let back = try await self.overview(address)
            #expect(back.waiting == 0 && back.breaker == "closed" && back.setAside == 1 && back.forwarded == 4)
            #expect(back.timeToEmptyMs == 0)
            let after = try await self.get(address, "/metrics")
            #expect(after.contains("stalk_failover_breaker_open{failover=\"cloud\",queue=\"orders\"} 0\n"))
            #expect(after.contains("stalk_failover_forwarded_total{failover=\"cloud\",queue=\"orders\"} 4\n"))
        }
    }

    @Test(.enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/chromium"), "no /usr/bin/chromium"))
    func thePageShowsAnOutage() async throws {
        try await self.withOutage { remote, _, address in
            let find = """
                const spool = () => document.querySelector('#failovers tr[data-failover="cloud"]');
                const text = (cell) => spool().cells[cell].textContent;
                """
            // Two looks, so that the outage lasts for as long as the first one takes.
            let away = try await PageTests.browse(
                address,
                find + """

                    await until("five waiting", () => spool() && text(3) === "5" && text(2) !== "closed");
                    return { away: [text(1), text(6), text(10), text(11), text(13) !== "0"] };
                    """
            )
            #expect(away.contains(#""away": ["orders", "17 B", "0", "5", true]"#), "\(away)")
            remote.script { $0.lasting = nil }
            let result = try await PageTests.browse(
                address,
                find + """

                    await until("the end", () => spool() && text(2) === "closed" && text(3) === "0" && text(5) === "1");
                    return { hidden: document.querySelector("#failover").hidden, forwarded: text(12) };
                    """
            )
            #expect(result.contains(#""forwarded": "4""#) && result.contains(#""hidden": false"#), "\(result)")
        }
    }
}
