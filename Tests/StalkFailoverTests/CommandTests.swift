import Foundation
import StalkCore
import Subprocess
import Testing

@testable import StalkFailover

/// `stalk put --spool` and `stalk forward`, as they were built beside the tests.
@Suite struct CommandTests {
    static let tool: String = {
        let tests = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return URL(fileURLWithPath: tests).deletingLastPathComponent().appendingPathComponent("stalk").path
    }()

    /// Runs a script with `$STALK` and an empty directory `$DIR`, under a time limit.
    private func shell(_ script: String) async throws -> (status: Int32, output: String, errors: String) {
        let path = FileManager.default.temporaryDirectory.path + "/stalk-forward-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: path) }
        // Not Process of Foundation: it would block one of the few threads that all tests share.
        let result = try await Subprocess.run(
            .name("timeout"),
            arguments: ["60", "/bin/bash", "-euc", script],
            environment: .inherit.updating(["STALK": Self.tool, "DIR": path, "STALK_STORE": path + "/store"]),
            output: .string(limit: 16 << 20),
            error: .string(limit: 1 << 20)
        )
        let status: Int32 = if case .exited(let code) = result.terminationStatus { code } else { -1 }
        return (status, result.standardOutput, result.standardError)
    }

    /// A port where nobody listens stands for a remote that is away.
    private static let away = "nsq://127.0.0.1:9/orders"

    @Test func putStoresWhatTheRemoteCannotTake() async throws {
        let outcome = try await self.shell(
            """
            seq 1 5 | $STALK put '\(Self.away)' --lines --spool $DIR/spool
            seq 6 9 | $STALK put '\(Self.away)' --lines --spool $DIR/spool
            $STALK --store $DIR/spool get orders --max 0 --ack
            """
        )
        #expect(outcome.status == 0, "\(outcome)")
        #expect(outcome.output == (1...9).map { "\($0)\n" }.joined())
        #expect(outcome.errors.contains("5 messages of orders wait in"))
    }

    @Test func putWithoutARemoteIsWrongUsage() async throws {
        let outcome = try await self.shell("echo x | $STALK put here --spool $DIR/spool")
        #expect(outcome.status == 2 && outcome.errors.contains("in front of a remote queue"))
    }

    @Test func forwardMovesAllInOrderAndEnds() async throws {
        let outcome = try await self.shell(
            """
            seq 1 1000 | $STALK put a --lines
            $STALK forward a b --drain --json
            $STALK get b --max 0 --ack
            $STALK stats a --json
            """
        )
        let lines = outcome.output.split(separator: "\n").map(String.init)
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(lines.first?.contains("\"forwarded\":1000") == true)
        #expect(Array(lines.dropFirst().dropLast()) == (1...1000).map { "\($0)" })
        #expect(lines.last?.contains("\"ready\":0") == true)
    }

    @Test func forwardIsRefusedWhereItHasNoMeaning() async throws {
        let same = try await self.shell("seq 1 3 | $STALK put a --lines; $STALK forward a a --drain")
        #expect(same.status == 2)
        let missing = try await self.shell("seq 1 3 | $STALK put a --lines; $STALK forward nothing b --drain")
        #expect(missing.status == 3)
        let endless = try await self.shell("$STALK forward \(Self.away) b --drain")
        #expect(endless.status == 2)
    }

    @Test func aKilledForwardGoesOnWhereItWas() async throws {
        let outcome = try await self.shell(
            """
            seq 1 3000 | $STALK put a --lines
            for try in 1 2 3 4 5 6; do
                $STALK forward a b --rate 2000 --drain > $DIR/log 2>&1 & child=$!
                sleep 0.$try
                kill -9 $child || true
                wait $child || true
            done
            $STALK forward a b --drain --json
            $STALK get b --max 0 --ack --format json
            """
        )
        #expect(outcome.status == 0, "\(outcome.errors)")
        let lines = outcome.output.split(separator: "\n")
        var firsts: [String] = []
        var seen: Set<String> = []
        for line in lines.dropFirst() {
            let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
            let body = object?["body"] as? String ?? ""
            if seen.insert(body).inserted { firsts.append(body) }
            // Copies can be told by it.
            let headers = object?["headers"] as? [String: String]
            #expect(headers?["Stalk-Id"]?.hasPrefix("a/") == true)
        }
        #expect(firsts.elementsEqual((1...3000).map { "\($0)" }), "\(firsts.count)")
    }

    @Test func forwardShowsItselfOverHTTP() async throws {
        let outcome = try await self.shell(
            """
            port=$((RANDOM % 10000 + 20000))
            seq 1 3 | $STALK put orders --lines
            $STALK forward orders '\(Self.away)' --http $port 2> $DIR/log & child=$!
            until grep -q 'messages wait' $DIR/log; do sleep 0.05; done
            $STALK top --http $port --count 1 --json
            $STALK top --http $port --count 1
            kill -TERM $child
            wait $child || true
            """
        )
        #expect(outcome.status == 0, "\(outcome)")
        #expect(outcome.output.contains(#""breaker":"open""#) || outcome.output.contains(#""breaker":"halfOpen""#))
        #expect(outcome.output.contains(#""waiting":3"#) && outcome.output.contains("EMPTY IN"), "\(outcome.output)")
    }

    @Test func statsShowsHowTheForwardingGoes() async throws {
        let outcome = try await self.shell(
            """
            seq 1 3 | $STALK put orders --lines
            $STALK forward orders '\(Self.away)' 2> $DIR/log & child=$!
            trap 'kill -9 $child 2> $DIR/none || true' EXIT
            until grep -q 'messages wait' $DIR/log; do sleep 0.05; done
            until $STALK stats --json | grep -q '"alive":true,"breaker":"open","triedInMs":[0-9]'; do sleep 0.05; done
            $STALK stats orders
            $STALK doctor > $DIR/doctor
            $STALK backup $DIR/backup > $DIR/none
            test ! -e $DIR/backup/forwarding
            kill -9 $child
            wait $child || true
            $STALK stats --json
            $STALK stats
            $STALK verify
            $STALK repair
            $STALK compact > $DIR/none
            $STALK stats | grep nobody
            """
        )
        #expect(outcome.status == 0, "\(outcome)")
        let shown = outcome.output
        #expect(shown.contains("BREAKER") && shown.contains("EMPTY IN"), "\(outcome)")
        #expect(shown.contains("open, tried in ") || shown.contains("trying"), "\(outcome)")
        // It was killed, and nobody asked it: the system says that its lock is gone.
        #expect(shown.contains(#""alive":false,"breaker":null,"triedInMs":null,"rate":null"#), "\(outcome)")
        #expect(shown.ranges(of: "nobody forwards").count == 2 && shown.contains("intact: "), "\(outcome)")
    }

    @Test func anInterruptedDrainSaysHowFarItCame() async throws {
        let outcome = try await self.shell(
            """
            seq 1 3 | $STALK put orders --lines
            $STALK forward orders '\(Self.away)' --drain & child=$!
            sleep 2
            kill -TERM $child
            status=0; wait $child || status=$?
            echo $status
            $STALK get orders --max 0 --ack
            """
        )
        #expect(outcome.output == "1\n1\n2\n3\n", "\(outcome)")
        #expect(outcome.errors.contains("messages wait"))
        #expect(outcome.errors.contains("Interrupted: 0 messages forwarded"))
    }
}
