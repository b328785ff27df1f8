import Foundation
import Testing

/// Several processes on one store, end to end.
@Suite("Shared stores, end to end", .timeLimit(.minutes(5)))
struct SharedStoreTests {
    /// Shell that lets a process own the store, with one message in a queue, until it is killed.
    private static func owner(_ queue: String) -> String {
        """
        coproc OWNER { exec "$STALK" put \(queue) --lines --ids; }
        echo a >&"${OWNER[1]}"; read -r id <&"${OWNER[0]}"
        """
    }

    @Test("A worker takes over from an owner that is killed, and nothing is done twice or lost")
    func takeover() async throws {
        try await EndToEndTests.withStore { store in
            let outcome = try await Tool.shell(
                """
                seq 200 | "$STALK" put q --lines
                \(Self.owner("other"))
                : > "$STALK_STORE.done"
                for worker in 1 2; do
                    "$STALK" work q -j 2 -- bash -c 'read -r n; sleep 0.02; echo "$n" >> "$STALK_STORE.done"' &
                    workers="$workers $!"
                done
                until [ "$(wc -l < "$STALK_STORE.done")" -gt 20 ]; do sleep 0.02; done
                kill -9 "$OWNER_PID"
                until [ "$(wc -l < "$STALK_STORE.done")" -ge 200 ]; do sleep 0.05; done
                "$STALK" stats --json
                kill -TERM $workers
                wait $workers
                "$STALK" stats q --json | grep -o '"ready":0,"delayed":0,"leased":0'
                """,
                store: store
            )
            let done = try String(contentsOfFile: store + ".done", encoding: .utf8).split(separator: "\n")
            #expect(done.count == 200 && Set(done).count == 200, "\(outcome.errors)")
            #expect(outcome.lines.last == #""ready":0,"delayed":0,"leased":0"#, "\(outcome.text) \(outcome.errors)")
        }
    }

    @Test("What a killed worker held goes to another one at once, not when its lease ends")
    func death() async throws {
        try await EndToEndTests.withStore { store in
            let outcome = try await Tool.shell(
                """
                "$STALK" put other < /dev/null > /dev/null
                \(Self.owner("other"))
                echo held | "$STALK" put q > /dev/null
                "$STALK" work q -- bash -c 'echo $$ > "$STALK_STORE.started"; exec sleep 600' & worker=$!
                until [ -s "$STALK_STORE.started" ]; do sleep 0.02; done
                "$STALK" get q | wc -l
                kill -9 $worker
                kill "$(cat "$STALK_STORE.started")"
                "$STALK" get q --wait 60s --format json | grep -o '"attempt":2'
                kill "$OWNER_PID"
                """,
                store: store
            )
            #expect(outcome.lines.map { $0.trimmingCharacters(in: .whitespaces) } == ["0", #""attempt":2"#])
        }
    }

    @Test("A stopped owner is reported, and left alone")
    func stopped() async throws {
        try await EndToEndTests.withStore { store in
            let outcome = try await Tool.shell(
                """
                \(Self.owner("q"))
                kill -STOP "$OWNER_PID"
                "$STALK" stats; echo "status $?"
                kill -CONT "$OWNER_PID"
                "$STALK" stats q --json | grep -o '"ready":1'
                kill "$OWNER_PID"
                """,
                store: store
            )
            #expect(outcome.lines == ["status 4", #""ready":1"#])
            #expect(outcome.errors.contains("is stopped: continue it (kill -CONT"), "\(outcome.errors)")
        }
    }

    @Test("A store whose path is longer than a socket's address may be is shared too")
    func longPath() async throws {
        try await EndToEndTests.withStore { store in
            let outcome = try await Tool.shell(
                """
                export STALK_STORE="$STALK_STORE/$(printf 'x%.0s' {1..150})"
                mkdir -p -m 700 "$STALK_STORE"
                \(Self.owner("q"))
                "$STALK" get q --ack
                stat -c %a "$STALK_STORE/sharing" "$STALK_STORE/sharing/socket"
                kill "$OWNER_PID"
                """,
                store: store
            )
            #expect(outcome.lines == ["a", "700", "600"], "\(outcome.errors)")
        }
    }

    @Test("Two names and two mounts of a directory are one store")
    func names() async throws {
        try await EndToEndTests.withStore { store in
            let outcome = try await Tool.shell(
                """
                \(Self.owner("q"))
                ln -s "$STALK_STORE" "$STALK_STORE.link"
                STALK_STORE="$STALK_STORE.link" "$STALK" get q --ack
                if mkdir "$STALK_STORE.mount" && mount --bind "$STALK_STORE" "$STALK_STORE.mount" 2> /dev/null; then
                    echo b | STALK_STORE="$STALK_STORE.mount" "$STALK" put q > /dev/null
                    "$STALK" get q --ack
                    umount "$STALK_STORE.mount"
                else
                    echo "nothing can be mounted here: the second mount is skipped" >&2
                    echo b
                fi
                kill "$OWNER_PID"
                """,
                store: store
            )
            #expect(outcome.lines == ["a", "b"], "\(outcome.errors)")
            if outcome.errors.contains("skipped") { print(outcome.errors) }
        }
    }

    @Test(
        "Another user is refused; root uses a store of anybody",
        .enabled(if: geteuid() == 0, "only root can be somebody else")
    )
    func users() async throws {
        try await EndToEndTests.withStore { store in
            let outcome = try await Tool.shell(
                """
                \(Self.owner("q"))
                # Where others may go and read.
                place=$(mktemp -d); chmod 755 "$place"; cp "$STALK" "$place/stalk"
                somebody() { setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/nonexistent "$place/stalk" "$@"; }
                somebody stats; echo "stats $?"
                echo b | somebody put q; echo "put $?"
                "$STALK" get q
                mkdir -m 700 "$place/store"; chown 65534:65534 "$place/store"
                echo theirs | STALK_STORE="$place/store" somebody put q > /dev/null
                STALK_STORE="$place/store" "$STALK" get q --ack
                echo more | STALK_STORE="$place/store" somebody put q > /dev/null; echo "put $?"
                rm -r "$place"
                kill "$OWNER_PID"
                """,
                store: store
            )
            #expect(outcome.lines == ["stats 1", "put 1", "a", "theirs", "put 0"], "\(outcome.text) \(outcome.errors)")
            #expect(outcome.errors.contains("Run as the owner of the store"), "\(outcome.errors)")
        }
    }

    @Test("Backup and compaction work while another process owns the store")
    func care() async throws {
        try await EndToEndTests.withStore { store in
            let outcome = try await Tool.shell(
                """
                \(Self.owner("q"))
                "$STALK" backup "$STALK_STORE.copy" > /dev/null; echo "backup $?"
                "$STALK" compact > /dev/null; echo "compact $?"
                "$STALK" verify; echo "verify $?"
                STALK_STORE="$STALK_STORE.copy" "$STALK" get q --ack
                kill "$OWNER_PID"
                """,
                store: store
            )
            #expect(outcome.lines == ["backup 0", "compact 0", "verify 4", "a"], "\(outcome.text) \(outcome.errors)")
        }
    }
}
