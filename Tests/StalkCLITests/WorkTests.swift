import Foundation
import Subprocess
import Testing

@testable import StalkCLI

/// `stalk work` against a real store.
@Suite("Work, end to end", .timeLimit(.minutes(10)))
struct WorkTests {
    @Test("Each message runs the command once; outcomes are counted")
    func outcomes() async throws {
        try await EndToEndTests.withStore { store in
            _ = try await Tool.run("put", "q", "--lines", store: store, input: Array("ok\ndead\nbad\nok\n".utf8))
            let script = """
                read -r line || true
                case $line in
                dead) echo "no such address" >&2; exit 65 ;;
                bad) exit 1 ;;
                *) echo "did $line" ;;
                esac
                """
            let work = try await Tool.run(
                "work",
                "q",
                "-j",
                "2",
                "--drain",
                "--json",
                "--max-attempts",
                "2",
                "--retry-interval",
                "10ms",
                "--",
                "bash",
                "-c",
                script,
                store: store
            )
            #expect(work.status == .exited(0), "\(work.errors)")
            #expect(work.text == "did ok\ndid ok\n")
            #expect(work.errors.contains("no such address\n"))
            #expect(work.errors.contains(#""acknowledged":2,"retried":1,"deadLettered":2,"#))

            let dead = try EndToEndTests.objects(
                await Tool.run("peek", "q", "--state", "dead", "--json", store: store)
            )
            let reasons = Dictionary(
                uniqueKeysWithValues: dead.compactMap { message -> (String, String)? in
                    let failures = message["failures"] as? [[String: Any]]
                    guard let body = message["body"] as? String, let reason = failures?.last?["reason"] as? String
                    else {
                        return nil
                    }
                    return (body, reason)
                }
            )
            #expect(reasons["dead"] == "no such address")
            #expect(reasons["bad"]?.contains("exit 1") == true)

            let count = try await Tool.run("redrive", "q", "--dry-run", "--json", store: store)
            #expect(count.text == "{\"wouldRedrive\":2}\n")
            #expect(try await Tool.run("redrive", "q", store: store).text == "2\n")
            #expect(
                try await Tool.run("get", "q", "--max", "0", "--ack", store: store).lines.sorted() == ["bad", "dead"]
            )
        }
    }

    @Test("What fails for good goes to the error queue, and back from there")
    func errorQueue() async throws {
        try await EndToEndTests.withStore { store in
            _ = try await Tool.run("put", "q", store: store, input: Array("x".utf8))
            let work = try await Tool.run(
                "work",
                "q",
                "--drain",
                "--error-queue",
                "broken",
                "--",
                "bash",
                "-c",
                "exit 100",
                store: store
            )
            #expect(work.status == .exited(0))
            let stats = try EndToEndTests.object(await Tool.run("stats", "--json", store: store))
            let queues = stats["queues"] as? [[String: Any]] ?? []
            #expect(queues.first { $0["name"] as? String == "q" }?["dead"] as? Int == 0)
            let count = try await Tool.run("redrive", "broken", "--dry-run", store: store)
            #expect(count.text == "1\n")
            #expect(try await Tool.run("redrive", "broken", store: store).text == "1\n")
            #expect(try await Tool.run("get", "q", "--ack", store: store).text == "x\n")
        }
    }

    @Test("A worker that is killed loses nothing, and its attempt counts")
    func killed() async throws {
        try await EndToEndTests.withStore { store in
            _ = try await Tool.run("put", "q", store: store, input: Array("x".utf8))
            _ = try await Tool.shell(
                """
                "$STALK" work q -- bash -c 'touch "$STALK_STORE.started"; sleep 10' & worker=$!
                until [ -e "$STALK_STORE.started" ]; do sleep 0.05; done
                kill -9 $worker
                wait $worker
                """,
                store: store
            )
            let get = try EndToEndTests.object(
                await Tool.run("get", "q", "--format", "json", "--wait", "5s", store: store)
            )
            #expect(get["attempt"] as? Int == 2)
        }
    }

    @Test("The first SIGTERM lets a running command finish and takes nothing new")
    func graceful() async throws {
        try await EndToEndTests.withStore { store in
            _ = try await Tool.run("put", "q", "--lines", store: store, input: Array("a\nb\n".utf8))
            let work = try await Tool.shell(
                """
                "$STALK" work q -- bash -c 'touch "$STALK_STORE.started"; sleep 1; echo done' & worker=$!
                until [ -e "$STALK_STORE.started" ]; do sleep 0.05; done
                kill -TERM $worker
                wait $worker
                """,
                store: store
            )
            #expect(work.status == .exited(0), "\(work.errors)")
            #expect(work.text == "done\n")
            #expect(try await Tool.run("get", "q", "--max", "0", store: store).text == "b\n")
        }
    }

    @Test("The second SIGTERM stops the command, whose message comes again")
    func impatient() async throws {
        try await EndToEndTests.withStore { store in
            _ = try await Tool.run("put", "q", store: store, input: Array("a".utf8))
            let work = try await Tool.shell(
                """
                "$STALK" work q -- bash -c 'touch "$STALK_STORE.started"; sleep 60' 2> "$STALK_STORE.notes" & worker=$!
                until [ -e "$STALK_STORE.started" ]; do sleep 0.05; done
                kill -TERM $worker
                until grep -q Letting "$STALK_STORE.notes"; do sleep 0.05; done
                kill -TERM $worker
                wait $worker
                """,
                store: store
            )
            #expect(work.status == .exited(1), "\(work.errors)")
            #expect(try await Tool.run("get", "q", "--max", "0", store: store).text == "a\n")
        }
    }

    @Test("A time-out kills the command and tries again")
    func timeout() async throws {
        try await EndToEndTests.withStore { store in
            _ = try await Tool.run("put", "q", store: store, input: Array("a".utf8))
            let work = try await Tool.run(
                "work",
                "q",
                "--drain",
                "--json",
                "--timeout",
                "300ms",
                "--retry-interval",
                "1ms",
                "--",
                "bash",
                "-c",
                "[ $STALK_ATTEMPT = 2 ] || sleep 60",
                store: store
            )
            #expect(work.errors.contains(#""acknowledged":1,"retried":1,"deadLettered":0,"#))
        }
    }
}
