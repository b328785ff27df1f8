import Foundation
import StalkAdmin
import StalkCore
import StalkLocal
import StalkTesting
import StalkWorker
import Testing

/// The server over real sockets.
@Suite(.timeLimit(.minutes(10))) struct ServerTests {
    private static let token = "0123456789abcdef"

    // MARK: Seeing

    @Test func twoBackendsShareOneServer() async throws {
        try await withPipeline { pipeline in
            for _ in 0..<20 { try await pipeline.local.publish(Message("local")) }
            for _ in 0..<30 { try await pipeline.memory.publish(Message("memory")) }
            try await pipeline.local.drained()
            try await pipeline.memory.drained()

            #expect(try await pipeline.get("/live").text == "ok\n")
            #expect(try await pipeline.get("/ready").text == "ready\n")
            let health = try await pipeline.get("/health").json
            let collectors = try #require(health["collectors"] as? [[String: Any]])
            #expect(collectors.map { $0["id"] as? String } == ["one", "two"])
            #expect(collectors.map { $0["backend"] as? String } == ["local", "memory"])
            #expect(collectors.map { $0["processed"] as? Int } == [21, 30])
            #expect(collectors.allSatisfy { $0["backendReachable"] as? Bool == true })
            #expect(collectors.allSatisfy { $0["lastSuccessMs"] is Int })

            let metrics = try await pipeline.get("/metrics")
            #expect(metrics.type?.hasPrefix("text/plain; version=0.0.4") == true)
            let lines = Set(metrics.text.split(separator: "\n").map(String.init))
            for line in [
                #"stalk_messages_processed_total{collector="one",queue="work",backend="local"} 21"#,
                #"stalk_messages_processed_total{collector="two",queue="jobs",backend="memory"} 30"#,
                #"stalk_handler_duration_seconds_count{collector="one",queue="work",backend="local"} 21"#,
                #"stalk_backend_up{collector="two",queue="jobs",backend="memory"} 1"#,
                #"stalk_queue_messages{queue="work",state="ready"} 0"#,
            ] {
                #expect(lines.contains(line), "\(line)")
            }
            for name in [
                "stalk_group_commits_total", #"stalk_group_commit_size_bucket{le="8"} "#, "stalk_group_commit_size_sum",
                "stalk_fsync_seconds_count", #"stalk_fsync_seconds_bucket{le="0.005"} "#,
                #"stalk_fsync_seconds_bucket{le="+Inf"} "#,
                "stalk_schedule_lag_seconds", "stalk_queue_oldest_age_seconds",
            ] {
                #expect(metrics.text.contains("\n\(name)"), "\(name)")
            }
            Self.checkForm(of: metrics.text)
        }
    }

    /// Every sample stands below a TYPE of its family, and every line is of a known form.
    static func checkForm(of text: String) {
        var types: [Substring: Substring] = [:]
        for line in text.split(separator: "\n") {
            if line.hasPrefix("# TYPE ") {
                let words = line.split(separator: " ")
                #expect(types.updateValue(words[3], forKey: words[2]) == nil, "twice: \(line)")
            } else if !line.hasPrefix("# HELP ") {
                let name = line.prefix { $0 != "{" && $0 != " " }
                let family = ["_bucket", "_sum", "_count"].lazy.filter { name.hasSuffix($0) }
                    .map { name.dropLast($0.count) }.first { types[$0] != nil }
                #expect(types[name] != nil || family != nil, "\(line)")
                #expect(line.split(separator: " ").last.flatMap { Double($0) } != nil, "\(line)")
            }
        }
        #expect(types.count > 20)
    }

    @Test func queuesAndMessagesAreShown() async throws {
        try await withPipeline { pipeline in
            let other = try pipeline.store.queue("other")
            try await other.publish(Message("<b>bold</b> & more", headers: ["kind": "test"]))
            try await other.publish(Message([0xFF, 0x00]))
            try await other.publish(Message(String(repeating: "ä", count: 5000)))
            let overview = try await pipeline.get("/api/queues").json
            let queues = try #require(overview["queues"] as? [[String: Any]])
            let found = try #require(queues.first { $0["name"] as? String == "other" })
            #expect(found["ready"] as? Int == 3 && found["paused"] as? Bool == false)
            let page = try await pipeline.get("/api/queues/other/messages?state=ready").json
            let messages = try #require(page["messages"] as? [[String: Any]])
            try #require(messages.count == 3)
            #expect(messages[0]["body"] as? String == "<b>bold</b> & more")
            #expect(messages[0]["headers"] as? [String: String] == ["kind": "test"])
            #expect(messages[1]["bodyBase64"] as? String == "/wA=")
            #expect(messages[2]["size"] as? Int == 10_000 && messages[2]["isCut"] as? Bool == true)
            #expect((messages[2]["body"] as? String)?.count == 2048)
            #expect(try await pipeline.get("/api/queues/nobody/messages").status == 404)
        }
    }

    @Test func pageHasNoOutsideAssets() async throws {
        try await withPipeline { pipeline in
            let page = try await pipeline.get("/")
            #expect(page.status == 200 && page.type == "text/html; charset=utf-8")
            #expect(!page.text.contains("http://") && !page.text.contains("https://") && !page.text.contains("src="))
            #expect(!page.text.contains("NONCE") && !page.text.contains("innerHTML"))
            #expect(page.headers["Content-Security-Policy"]?.contains("default-src 'none'") == true)
            #expect(try await pipeline.get("/").text != page.text, "the script's number is a new one each time")
        }
    }

    // MARK: Controlling

    @Test func sleepWakeAndScale() async throws {
        try await withPipeline { pipeline in
            let asleep = try await pipeline.post("/sleep", #"{"collector": "one"}"#)
            #expect(asleep.status == 200)
            #expect(try await pipeline.local.status.isAsleep)
            #expect(try await !pipeline.memory.status.isAsleep)
            #expect(try await pipeline.post("/sleep").status == 200)
            #expect(try await pipeline.memory.status.isAsleep)
            // Scaling never wakes a sleeper.
            #expect(try await pipeline.post("/scale?to=5&collector=one").status == 200)
            #expect(pipeline.workers[0].status.concurrency == 5)
            #expect(pipeline.workers[1].status.concurrency == 2)
            #expect(try await pipeline.local.status.isAsleep)
            #expect(try await pipeline.post("/scale", #"{"to": 3}"#).status == 200)
            #expect(pipeline.workers.map(\.status.concurrency) == [3, 3])
            #expect(try await pipeline.post("/wake").status == 200)
            #expect(try await pipeline.post("/wake").status == 200)
            #expect(try await !pipeline.local.status.isAsleep)
        }
    }

    @Test func badOrdersHaveClearAnswers() async throws {
        try await withPipeline { pipeline in
            let cases: [(String, String, Int, String)] = [
                ("/scale", #"{"to": -1}"#, 400, "Can't scale to -1"),
                ("/scale?to=-3", "", 400, "Can't scale to -3"),
                ("/scale?to=many", "", 400, "give a whole number"),
                ("/scale?to=99999999999999999999", "", 400, "give a whole number"),
                ("/scale", #"{"to": 1.5}"#, 400, "not understood"),
                ("/scale", #"{"to": "4"}"#, 400, "not understood"),
                ("/scale", "{", 400, "not understood"),
                ("/scale", "[]", 400, "not understood"),
                ("/scale", "", 400, "Scale to how many?"),
                ("/scale", #"{"to": 2000000}"#, 400, "up to 1000000"),
                ("/sleep", #"{"collector": "three"}"#, 404, "no collector"),
                ("/wake?collector=three", "", 404, "no collector"),
                ("/sleep", String(repeating: "x", count: 70_000), 413, "over 65536 bytes"),
                ("/api/queues/work/pause", "", 403, "needs a token"),
            ]
            for (path, body, status, message) in cases {
                let answer = try await pipeline.post(path, body)
                #expect(answer.status == status, "\(path) \(body.prefix(40)): \(answer.status) \(answer.text)")
                #expect((answer.json["error"] as? String ?? "").contains(message), "\(path): \(answer.text)")
            }
            // Nothing else stopped, and nothing changed.
            #expect(pipeline.workers.map(\.status.concurrency) == [2, 2])
            try await pipeline.local.publish(Message("after"))
            try await pipeline.local.drained()
            #expect(try await pipeline.get("/ready").status == 200)
        }
    }

    @Test func tokenOpensWhatChangesTheStore() async throws {
        try await withPipeline(token: Self.token) { pipeline in
            #expect(try await pipeline.get("/live").status == 200)
            #expect(try await pipeline.get("/health").status == 401)
            #expect(try await pipeline.post("/api/queues/work/pause", token: "0123456789abcdeX").status == 401)
            #expect(try await pipeline.post("/api/queues/work/pause", token: Self.token).status == 200)
            try await pipeline.local.publish(Message("held"))
            var queue = try #require(try await pipeline.store.stats().queues.first)
            #expect(queue.isPaused && queue.ready == 1)
            #expect(try await pipeline.post("/api/queues/work/resume", token: Self.token).status == 200)
            try await pipeline.local.drained()
            queue = try #require(try await pipeline.store.stats().queues.first)
            #expect(!queue.isPaused)
            try await pipeline.local.publish(Message("bad"))
            try await pipeline.local.drained()
            let redriven = try await pipeline.post("/api/queues/work/redrive", token: Self.token)
            #expect(redriven.json["redriven"] as? Int == 1)
            #expect(try await pipeline.post("/api/queues/nobody/pause", token: Self.token).status == 404)
        }
    }

    @Test func messagesAreKickedMovedAndDeleted() async throws {
        try await withPipeline(token: Self.token) { pipeline in
            let mail = try pipeline.store.queue("mail")
            func send(_ path: String, _ body: String = "") async throws -> (status: Int, json: [String: Int]) {
                let answer = try await pipeline.post(path, body, token: Self.token)
                return (answer.status, answer.json.compactMapValues { $0 as? Int })
            }
            let texts = ["kicked", "moved", "deleted", "rest", "more"]
            let messages = texts.map { Message($0, delay: .seconds(3600)) }
            let ids = try await mail.publish(messages).map { try $0.get().rawValue }
            #expect(try await send("/api/messages/\(ids[0])/kick") == (200, ["kicked": 1]))
            #expect(try await send("/api/messages/\(ids[0])/kick") == (200, ["kicked": 0]))
            #expect(try await send("/api/messages/\(ids[1])/move", #"{"to": "other"}"#) == (200, ["moved": 1]))
            #expect(try await send("/api/messages/\(ids[2])/delete") == (200, ["deleted": 1]))
            #expect(try await send("/api/queues/mail/kick?max=1") == (200, ["kicked": 1]))
            try await mail.wake()
            let held = try #require(try await mail.take(TakeRequest()).first)
            for (path, body, status) in [
                ("/api/messages/\(ids[2])/kick", "", 404), ("/api/messages/x/delete", "", 404),
                ("/api/messages/\(held.id)/delete", "", 409), ("/api/messages/\(ids[4])/move", "", 400),
                ("/api/messages/\(ids[4])/move", "{", 400), ("/api/messages/\(ids[4])/move", #"{"to": "a b"}"#, 400),
                ("/api/queues/nobody/purge", "", 404), ("/api/queues/nobody/kick", "", 404),
            ] { #expect(try await send(path, body).status == status, "\(path) \(body)") }
            #expect(try await send("/api/queues/mail/purge?state=delayed") == (200, ["purged": 1]))
            #expect(try await send("/api/queues/mail/purge") == (200, ["purged": 1]))
            try await mail.acknowledge(held)
            let left = try await pipeline.store.stats().queues.filter { $0.name != pipeline.local.queue }
            #expect(left.map { [$0.ready, $0.delayed, $0.leased, $0.dead] } == [[0, 0, 0, 0], [1, 0, 0, 0]])
        }
    }

    // MARK: Listening

    @Test func takenPortIsATypedErrorAndStopsNobody() async throws {
        try await withPipeline { pipeline in
            let second = AdminServer(options: AdminOptions(address: pipeline.address))
            let error = await #expect(throws: StalkError.self) { try await second.run() }
            #expect(error?.code == .addressInUse)
            #expect(error?.message.contains(pipeline.address.description) == true)
            let ready = try await pipeline.get("/ready")
            #expect(ready.status == 200)
        }
    }

    @Test func optionsWithoutSenseAreRefused() async throws {
        let collector = AdminCollector(
            id: "same",
            backend: "memory",
            collector: InMemoryCollector(queue: try QueueName("q"), clock: ManualClock())
        )
        for server in [
            AdminServer(options: AdminOptions(address: AdminAddress(host: "0.0.0.0", port: 0))),
            AdminServer(options: AdminOptions(address: AdminAddress(port: 0), token: "short")),
            AdminServer(options: AdminOptions(address: AdminAddress(port: 0), token: "with a space in it")),
            AdminServer(options: AdminOptions(address: AdminAddress(port: 0), maxConnections: 0)),
            AdminServer(options: AdminOptions(address: AdminAddress(port: 0)), collectors: [collector, collector]),
        ] {
            let error = await #expect(throws: StalkError.self) { try await server.run() }
            #expect(error?.code == .invalidArgument)
        }
        let nowhere = AdminServer(options: AdminOptions(address: AdminAddress(host: "192.0.2.1"), token: Self.token))
        let error = await #expect(throws: StalkError.self) { try await nowhere.run() }
        #expect(error?.code == .unavailable)
    }

    @Test func slowClientsAreLetGo() async throws {
        try await withPipeline(patience: .milliseconds(500)) { pipeline in
            // One that says nothing, one that stops in its head, one that stops in its body.
            for text in ["", "GET /he", "POST /sleep HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc"] {
                let answer = try await rawExchange(text, at: pipeline.address)
                #expect(answer.isEmpty || answer.contains(" 408 "), "\(text.debugDescription): \(answer)")
                #expect(try await pipeline.get("/live").status == 200)
            }
        }
    }

    @Test func nonsenseOnTheWireHarmsNobody() async throws {
        try await withPipeline(patience: .seconds(1)) { pipeline in
            for text in [
                "nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\u{0}\u{1}\u{2}\r\n\r\n",
                "GET /\(String(repeating: "a", count: 100_000)) HTTP/1.1\r\nHost: localhost\r\n\r\n",
                "GET /live HTTP/1.1\r\nHost: localhost\r\nX: \(String(repeating: "a", count: 100_000))\r\n\r\n",
                "POST /scale HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
            ] {
                let answer = try await rawExchange(text, at: pipeline.address)
                #expect(answer.isEmpty || answer.contains(" 4") || answer.contains(" 5"), "\(answer.prefix(200))")
                #expect(try await pipeline.get("/live").status == 200)
            }
        }
    }
}
