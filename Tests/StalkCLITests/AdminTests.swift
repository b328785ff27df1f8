import Foundation
import StalkAdmin
import StalkCore
import Subprocess
import Testing

@testable import StalkCLI

/// `work --http`, `serve`, `top`, `pause` and `resume`, end to end.
@Suite("Control, end to end", .timeLimit(.minutes(10)))
struct AdminTests {
    /// A port that was free a moment ago.
    private static let freePort = """
        python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
        """

    @Test("SIGTERM under load, again and again: each message is worked on once")
    func terminatedUnderLoad() async throws {
        try await EndToEndTests.withStore { store in
            let count = 400
            let lines = (0..<count).map { "\($0)\n" }.joined()
            _ = try await Tool.run("put", "q", "--lines", store: store, input: Array(lines.utf8))
            let outcome = try await Tool.shell(
                """
                port=$(\(Self.freePort))
                runs=0
                while [ "$("$STALK" stats q --json | grep -o '"ready":[0-9]*')" != '"ready":0' ] && [ $runs -lt 50 ]; do
                    runs=$((runs + 1))
                    : > "$STALK_STORE.notes"
                    "$STALK" work q -j 4 --http $port -- bash -c 'read -r n; sleep 0.02; echo "$n" >> "$STALK_STORE.done"' \
                        2> "$STALK_STORE.notes" & worker=$!
                    until grep -q Serving "$STALK_STORE.notes" || ! kill -0 $worker 2> /dev/null; do sleep 0.02; done
                    "$STALK" top --http $port --count 1 --json >> "$STALK_STORE.top"
                    sleep 0.4
                    kill -TERM $worker
                    wait $worker || echo "run $runs ended with $?"
                done
                echo "$runs"
                """,
                store: store
            )
            #expect(Int(outcome.lines.last ?? "") ?? 0 >= 3, "\(outcome.text) \(outcome.errors)")
            #expect(outcome.lines.count == 1, "each run ends with 0: \(outcome.text)")
            let done = try String(contentsOfFile: store + ".done", encoding: .utf8).split(separator: "\n")
            #expect(done.count == count, "lost or done twice")
            #expect(Set(done) == Set((0..<count).map { Substring("\($0)") }))
            let stats = try EndToEndTests.object(await Tool.run("stats", "q", "--json", store: store))
            let queue = try #require((stats["queues"] as? [[String: Any]])?.first)
            #expect(["ready", "delayed", "leased", "dead"].allSatisfy { queue[$0] as? Int == 0 })
            let tops = try String(contentsOfFile: store + ".top", encoding: .utf8).split(separator: "\n")
            #expect(tops.count >= 3 && tops.allSatisfy { $0.contains(#""backend":"local""#) })
        }
    }

    @Test("A taken port ends the command with 1 before anything is taken")
    func takenPort() async throws {
        try await EndToEndTests.withStore { store in
            _ = try await Tool.run("put", "q", store: store, input: Array("a".utf8))
            let outcome = try await Tool.shell(
                """
                port=$(\(Self.freePort))
                python3 -c 'import socket, sys, time
                s = socket.socket(); s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen()
                print("ready", flush=True); sys.stdin.read()' "$port" < <(sleep 60) > "$STALK_STORE.ready" & holder=$!
                until [ -s "$STALK_STORE.ready" ]; do sleep 0.02; done
                "$STALK" work q --drain --http "$port" -- touch "$STALK_STORE.ran"
                echo "status $?"
                "$STALK" serve --http "$port"
                echo "status $?"
                kill $holder
                """,
                store: store
            )
            #expect(outcome.lines == ["status 1", "status 1"], "\(outcome.errors)")
            #expect(outcome.errors.contains("Somebody else listens at 127.0.0.1:"))
            #expect(!FileManager.default.fileExists(atPath: store + ".ran"))
        }
    }

    @Test("serve shows the store until a signal; top reads it")
    func serve() async throws {
        try await EndToEndTests.withStore { store in
            _ = try await Tool.run("put", "mail", "--lines", store: store, input: Array("a\nb\n".utf8))
            let outcome = try await Tool.shell(
                """
                port=$(\(Self.freePort))
                echo 0123456789abcdef > "$STALK_STORE.token"
                "$STALK" serve --http $port --token-file "$STALK_STORE.token" 2> "$STALK_STORE.notes" & server=$!
                until grep -q Serving "$STALK_STORE.notes"; do sleep 0.02; done
                "$STALK" top --http $port --token-file "$STALK_STORE.token" --count 2 --interval 100ms
                "$STALK" top --http $port --count 1
                echo "without token $?"
                kill -TERM $server
                wait $server
                echo "served $?"
                "$STALK" top --http $port --count 1
                echo "without server $?"
                "$STALK" top --count 1
                """,
                store: store
            )
            #expect(outcome.lines.filter { $0.hasPrefix("mail ") }.count == 3, "\(outcome.text) \(outcome.errors)")
            #expect(outcome.text.contains("without token 1\nserved 0\nwithout server 1\n"))
            #expect(outcome.errors.contains("wants its token") && outcome.errors.contains("Nobody answers at"))
        }
    }

    @Test("With --max-jobs more commands run while there is a backlog, and never more than that")
    func autoscaled() async throws {
        try await EndToEndTests.withStore { store in
            let lines = (0..<600).map { "\($0)\n" }.joined()
            _ = try await Tool.run("put", "q", "--lines", store: store, input: Array(lines.utf8))
            let outcome = try await Tool.shell(
                """
                port=$(\(Self.freePort))
                "$STALK" work q --drain -j 1 --max-jobs 3 --http $port -- sleep 0.1 2> "$STALK_STORE.notes" & worker=$!
                until grep -q Serving "$STALK_STORE.notes"; do sleep 0.02; done
                for look in $(seq 1 60); do
                    "$STALK" top --http $port --count 1 --json | grep -o '"concurrency":[0-9]*'
                    sleep 0.25
                done | sort -u
                kill -TERM $worker
                wait $worker
                """,
                store: store
            )
            #expect(outcome.lines.first == #""concurrency":1"#, "\(outcome.text) \(outcome.errors)")
            #expect(outcome.lines.count > 1)
            #expect(!outcome.lines.contains { Int($0.split(separator: ":").last ?? "") ?? 9 > 3 })
            let usage = try await Tool.run("work", "q", "-j", "4", "--max-jobs", "3", "--", "true", store: store)
            #expect(usage.status == .exited(2))
        }
    }

    @Test("After SIGTERM and --stop-grace what runs is stopped, and comes again as if it had not been tried")
    func stopGrace() async throws {
        try await EndToEndTests.withStore { store in
            _ = try await Tool.run("put", "q", store: store, input: Array("a".utf8))
            let outcome = try await Tool.shell(
                """
                "$STALK" work q --stop-grace 200ms -- bash -c 'touch "$STALK_STORE.started"; sleep 300' & worker=$!
                until [ -e "$STALK_STORE.started" ]; do sleep 0.02; done
                kill -TERM $worker
                wait $worker
                """,
                store: store
            )
            #expect(outcome.status == .exited(0), "\(outcome.errors)")
            #expect(outcome.errors.contains("The time to stop is over"))
            let get = try EndToEndTests.object(await Tool.run("get", "q", "--format", "json", store: store))
            #expect(get["attempt"] as? Int == 1)
        }
    }

    @Test("A paused queue gives nothing out until it is resumed, and stats say so")
    func pause() async throws {
        try await EndToEndTests.withStore { store in
            _ = try await Tool.run("put", "q", store: store, input: Array("a".utf8))
            #expect(try await Tool.run("pause", "q", store: store).status == .exited(0))
            #expect(try await Tool.run("get", "q", store: store).text == "")
            #expect(try await Tool.run("stats", store: store).lines[1].hasSuffix("paused"))
            #expect(try await Tool.run("stats", "--json", store: store).text.contains(#""paused":true"#))
            #expect(try await Tool.run("resume", "q", store: store).status == .exited(0))
            #expect(try await Tool.run("get", "q", store: store).text == "a\n")
            #expect(try await Tool.run("pause", "nobody", store: store).status == .exited(3))
        }
    }

    @Test("Addresses and tokens without sense are wrong usage")
    func usage() async throws {
        try await EndToEndTests.withStore { store in
            _ = try await Tool.run("put", "q", store: store, input: Array("a".utf8))
            for arguments in [
                ["serve", "--http", "host:port"], ["serve", "--http", "0.0.0.0:0"], ["top", "--interval", "1ms"],
                ["top", "--count", "0"], ["serve", "--token-file", store + ".nothing"],
                ["work", "q", "--http", "0.0.0.0:0", "--", "true"],
            ] {
                let outcome = try await Tool.run(arguments, store: store)
                #expect(outcome.status == .exited(2), "\(arguments): \(outcome.errors)")
            }
        }
    }

    @Test("Rates are told from two looks, and names can't move the cursor")
    func screen() throws {
        func look(_ ready: Int, _ finished: Int) throws -> AdminOverview {
            let json = """
                {"queues":[{"name":"q","ready":\(ready),"delayed":0,"leased":0,"dead":7,"bytes":9,"paused":true,
                "finished":\(finished),"oldestAgeMs":61000}],"collectors":[{"id":"x\\u001b[2J","queue":"q","backend":"local",
                "sleeping":true,"concurrency":4,"inFlight":2,"backendReachable":true}],"failovers":[]}
                """
            return try JSONDecoder().decode(AdminOverview.self, from: Data(json.utf8))
        }
        let alone = TopScreen(try look(100, 50), earlier: nil)
        #expect(alone.text.contains("asleep") && alone.text.contains(#"x\u{1b}[2J"#))
        let screen = TopScreen(
            try look(100, 50),
            earlier: TopScreen.Earlier(overview: try look(90, 10), elapsed: .seconds(2))
        )
        let queue = try #require(try look(100, 50).queues.first)
        let rates = try #require(screen.rates(of: queue))
        #expect(rates.incoming == 25 && rates.outgoing == 20)
        #expect(alone.rates(of: queue) == nil)
    }
}
