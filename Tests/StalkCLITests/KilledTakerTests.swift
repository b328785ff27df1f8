import Foundation
import Subprocess
import Testing

/// The promise of `get --ack`, kept under kill -9.
@Suite(.timeLimit(.minutes(10))) struct KilledTakerTests {
    @Test("A file comes back byte for byte, although its taker is killed again and again")
    func everyLineComesBack() async throws {
        try await EndToEndTests.withStore { store in
            let count = 60_000
            let lines = (1...count).map { "line \($0) of a file" }
            let put = try await Tool.run(
                "put",
                "q",
                "--lines",
                store: store,
                input: Array(lines.joined(separator: "\n").utf8)
            )
            #expect(put.status == .exited(0))
            // Each taker writes into a file of its own and is killed once that has grown a little.
            let outcome = try await Tool.shell(
                """
                kills=0
                for run in $(seq 1 40); do
                    : > "$STALK_STORE.out.$run"
                    "$STALK" get q --ack --max 0 >> "$STALK_STORE.out.$run" 2> /dev/null & taker=$!
                    [ "$run" -gt 5 ] && { wait "$taker"; break; }
                    until [ "$(stat -c %s "$STALK_STORE.out.$run")" -gt 60000 ] || ! kill -0 "$taker" 2> /dev/null
                    do :; done
                    kill -9 "$taker" 2> /dev/null && kills=$((kills + 1))
                    wait "$taker" 2> /dev/null
                done
                echo "$kills"
                cat "$STALK_STORE".out.* > "$STALK_STORE.all"
                rm -f "$STALK_STORE".out.*
                """,
                store: store
            )
            #expect(outcome.text == "5\n")
            let all = try String(contentsOfFile: "\(store).all", encoding: .utf8)
            try FileManager.default.removeItem(atPath: "\(store).all")
            let seen = Set(all.split(separator: "\n").map(String.init))
            // A line that was being written when its taker was killed is cut short there, and comes again as a whole.
            #expect(Set(lines).subtracting(seen).isEmpty, "lines were lost")
            let rest = try await Tool.run("get", "q", "--ack", "--max", "0", store: store)
            #expect(rest.output.isEmpty)
            // Only what was leased to a killed taker may come twice.
            let repeated = all.split(separator: "\n").count - count
            #expect(repeated <= 5 * (1024 + 1))
        }
    }

    @Test("Every id that a killed publisher printed is there")
    func printedIDsAreThere() async throws {
        try await EndToEndTests.withStore { store in
            let outcome = try await Tool.shell(
                """
                : > "$STALK_STORE.ids"
                for run in 1 2 3 4 5; do
                    size=$(stat -c %s "$STALK_STORE.ids")
                    seq 1 1000000 | "$STALK" put q --lines --ids >> "$STALK_STORE.ids" 2> /dev/null & publisher=$!
                    until [ "$(stat -c %s "$STALK_STORE.ids")" -gt $((size + 50000)) ]; do :; done
                    kill -9 "$publisher"
                    wait "$publisher" 2> /dev/null
                done
                "$STALK" get q --ack --max 0 --format json | sed 's/.*"id":"\\([^"]*\\)".*/\\1/' | sort > "$STALK_STORE.got"
                # The last line of a run may be cut short: it was not printed as a whole.
                grep -E '^[0-9A-Z]{13}$' "$STALK_STORE.ids" | sort > "$STALK_STORE.printed"
                wc -l < "$STALK_STORE.printed"
                comm -23 "$STALK_STORE.printed" "$STALK_STORE.got" | wc -l
                uniq -d "$STALK_STORE.got" | wc -l
                rm -f "$STALK_STORE".*
                """,
                store: store
            )
            let counts = outcome.lines.compactMap { Int($0) }
            #expect(counts.count == 3 && counts[0] > 15_000, "\(outcome.text) \(outcome.errors)")
            #expect(counts.last == 0 && counts.dropLast().last == 0, "lost or doubled: \(outcome.text)")
        }
    }

    @Test("A message that kills its worker ends in the error queue after its attempts")
    func poison() async throws {
        try await EndToEndTests.withStore { store in
            _ = try await Tool.run("put", "q", store: store, input: Array("poison".utf8))
            // The handler kills stalk itself.
            let work = """
                for run in 1 2 3 4 5; do
                    "$STALK" work q --drain --max-attempts 3 -- bash -c 'kill -9 $PPID; sleep 5' > /dev/null 2>&1
                    code=$?
                    [ "$code" -eq 0 ] && break
                done
                echo "$run"
                """
            #expect(try await Tool.shell(work, store: store).text == "4\n")
            let dead = try EndToEndTests.objects(
                await Tool.run("peek", "q", "--state", "dead", "--json", store: store)
            )
            #expect(dead.count == 1)
        }
    }
}
