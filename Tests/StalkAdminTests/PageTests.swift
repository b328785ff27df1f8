import Foundation
import StalkAdmin
import StalkCore
import StalkLocal
import StalkTesting
import StalkWorker
import Subprocess
import Testing

/// The page in a real browser: Debian's Chromium, driven by tools/browse.py.
@Suite(
    .timeLimit(.minutes(10)),
    .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/chromium"), "there is no /usr/bin/chromium")
)
struct PageTests {
    static let token = "0123456789abcdef"
    private static let repository = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

    /// What every script needs: waiting for something to be so, and text of the page.
    private static let helpers = """
        const until = async (what, test) => {
          for (let tries = 0; tries < 600; tries++) {
            const found = test();
            if (found) return found;
            await new Promise((done) => setTimeout(done, 50));
          }
          throw new Error("never: " + what + " in " + document.body.innerText);
        };
        const row = (name) => [...document.querySelectorAll("#queues tbody tr")].find((one) =>
          one.dataset.queue === name);
        const press = (place, text) => [...place.querySelectorAll("button")].find((one) =>
          one.textContent === text).click();
        const enter = (selector, value) => {
          const field = document.querySelector(selector);
          field.value = value;
          field.dispatchEvent(new Event("change"));
        };

        """

    private struct ScriptFailed: Error {
        var errors: String
    }

    static func browse(_ address: AdminAddress, picture: String? = nil, _ script: String) async throws -> String {
        let more = picture.map { ["--screenshot", $0] } ?? []
        let result = try await Subprocess.run(
            .name("python3"),
            arguments: Arguments([Self.repository + "/tools/browse.py", "http://\(address)/"] + more),
            input: .string(Self.helpers + script),
            output: .string(limit: 1 << 20),
            error: .string(limit: 1 << 20)
        )
        guard result.terminationStatus == .exited(0) else { throw ScriptFailed(errors: result.standardError) }
        return result.standardOutput.trimmingCharacters(in: .newlines)
    }

    @Test func livePipelineIsShown() async throws {
        let slow: @Sendable (Delivery) async throws -> Void = { delivery in
            if delivery.text.contains("unpaid"), delivery.attempt < 2 { throw DeadLetter("the invoice is not paid") }
            try await Task.sleep(for: .milliseconds(20))
        }
        try await withPipeline(token: Self.token, handler: slow) { pipeline in
            let mail = try pipeline.store.queue("mail")
            try await mail.publish(Message("<img src=x onerror=alert(1)>", headers: ["kind": "welcome"]))
            try await mail.publish(Message("much later", delay: .seconds(3600)))
            for number in 0..<3 { try await pipeline.local.publish(Message(#"{"order":\#(number),"state":"unpaid"}"#)) }
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    var number = 0
                    while !Task.isCancelled {
                        number += 1
                        try await pipeline.local.publish(Message(#"{"order":\#(number)}"#))
                        try await pipeline.memory.publish(Message("\(number)"))
                        try await Task.sleep(for: .milliseconds(25))
                    }
                }
                defer { group.cancelAll() }
                let picture = ProcessInfo.processInfo.environment["STALK_SCREENSHOT"]
                let shown = try await Self.browse(
                    pipeline.address,
                    picture: picture,
                    """
                    await until("asking for the token", () => document.querySelector("#state").textContent
                      .includes("Authorization"));
                    enter("#token", "\(Self.token)");
                    await until("three dead", () => row("work") && row("work").cells[4].textContent === "3");
                    const rate = await until("a rate", () => {
                      const value = parseFloat(row("work").cells[6].textContent);
                      return value > 0 ? value : null;
                    });
                    press(row("work"), "work");
                    await until("the messages", () => !document.querySelector("#messages").hidden);
                    enter("#filter", "dead");
                    const dead = await until("the dead", () => {
                      const rows = [...document.querySelectorAll("#messages tbody tr")];
                      return rows.length === 3 && rows[0].innerText.includes("not paid") ? rows : null;
                    });
                    const collectors = [...document.querySelectorAll("#collectors tbody tr")];
                    return { mail: [...row("mail").cells].slice(0, 5).map((one) => one.textContent), rate: rate > 0,
                      dead: dead.map((one) => [one.cells[1].textContent, one.cells[4].textContent,
                        one.cells[5].textContent]),
                      collectors: collectors.map((one) => [one.cells[0].textContent, one.cells[2].textContent]),
                      outside: performance.getEntriesByType("resource").filter((one) =>
                        !one.name.startsWith(location.origin)).length };
                    """
                )
                #expect(shown.contains(#""mail": ["mail", "1", "1", "0", "0"], "rate": true"#), "\(shown)")
                #expect(shown.contains(#"["1", "1: the invoice is not paid", "{\"order\":0,\"state\":\"unpaid\"}"]"#))
                #expect(shown.contains(#""collectors": [["one", "local"], ["two", "memory"]], "outside": 0"#))
            }
        }
    }

    @Test func tokenPausesResumesAndRedrives() async throws {
        let handler: @Sendable (Delivery) async throws -> Void = { delivery in
            if delivery.text == "bad", delivery.attempt == 1 { throw DeadLetter("it is bad") }
        }
        try await withPipeline(token: Self.token, handler: handler) { pipeline in
            try await pipeline.local.publish(Message("bad"))
            try await pipeline.local.drained()
            let steps = try await Self.browse(
                pipeline.address,
                """
                enter("#token", "\(Self.token)");
                await until("one dead", () => row("work") && row("work").cells[4].textContent === "1");
                press(row("work"), "Pause");
                await until("paused", () => row("work").cells[9].textContent.includes("paused"));
                press(row("work"), "Redrive");
                await until("waiting", () => row("work").cells[1].textContent === "1");
                const collector = () => document.querySelector("#collectors tbody tr");
                press(collector(), "+");
                await until("three", () => collector().cells[5].textContent === "3");
                press(collector(), "Sleep");
                await until("asleep", () => collector().cells[3].textContent === "asleep");
                press(collector(), "Wake");
                await until("awake", () => collector().cells[3].textContent === "awake");
                return "done";
                """
            )
            #expect(steps == #""done""#)
            var queue = try #require(try await pipeline.store.stats().queues.first)
            #expect(queue.isPaused && queue.ready == 1 && queue.dead == 0)
            #expect(pipeline.workers[0].status.concurrency == 3)
            let resumed = try await Self.browse(
                pipeline.address,
                """
                enter("#token", "\(Self.token)");
                await until("a button", () => row("work") && row("work").innerText.includes("Resume"));
                press(row("work"), "Resume");
                await until("resumed", () => !row("work").cells[9].textContent.includes("paused"));
                return "done";
                """
            )
            #expect(resumed == #""done""#)
            queue = try #require(try await pipeline.store.stats().queues.first)
            #expect(!queue.isPaused)
        }
    }

    @Test func tokenChangesMessages() async throws {
        let handler: @Sendable (Delivery) async throws -> Void = { delivery in
            if delivery.text == "bad", delivery.attempt == 1 { throw DeadLetter("it is bad") }
        }
        try await withPipeline(token: Self.token, handler: handler) { pipeline in
            let mail = try pipeline.store.queue("mail")
            let later = Duration.seconds(3600)
            try await mail.publish(["retried", "moved", "deleted"].map { Message($0, delay: later) })
            try await pipeline.store.queue("old").publish([Message("a"), Message("b", delay: later)])
            try await pipeline.store.queue("waiting").publish(Message("c", delay: later))
            try await pipeline.store.pause(pipeline.local.queue)
            let steps = try await Self.browse(
                pipeline.address,
                """
                enter("#token", "\(Self.token)");
                await until("the queue", () => row("mail") && row("mail").cells[2].textContent === "3");
                press(row("mail"), "mail");
                const message = (text) => [...document.querySelectorAll("#messages tbody tr")].find((one) =>
                  one.cells[5].textContent === text);
                enter("#filter", "delayed");
                await until("the delayed", () => message("deleted"));
                press(message("retried"), "Retry");
                await until("it is ready", () => row("mail").cells[1].textContent === "1");
                press(message("moved"), "Move");
                await until("asking where to", () => document.querySelector("#state").textContent.includes("Name the queue"));
                enter("#target", "work");
                press(message("moved"), "Move");
                await until("it is there", () => row("work").cells[1].textContent === "1");
                press(message("deleted"), "Delete");
                await until("asking", () => message("deleted").textContent.includes("Really delete?"));
                press(message("deleted"), "Really delete?");
                await until("it is gone", () => row("mail").cells[2].textContent === "0");
                press(row("waiting"), "Kick");
                await until("kicked", () => row("waiting").cells[1].textContent === "1");
                press(row("old"), "Purge");
                await until("asking", () => row("old").textContent.includes("Really purge?"));
                press(row("old"), "Really purge?");
                await until("purged", () => row("old").cells[1].textContent === "0");
                return [...row("old").cells].slice(0, 5).map((one) => one.textContent);
                """
            )
            #expect(steps == #"["old", "0", "0", "0", "0"]"#)
            let moved = try await pipeline.store.peek(pipeline.local.queue)
            #expect(moved.map { String(decoding: $0.body, as: UTF8.self) } == ["moved"])
            let left = try await pipeline.store.peek(mail.queue)
            #expect(left.map { String(decoding: $0.body, as: UTF8.self) } == ["retried"])
            try await pipeline.store.resume(pipeline.local.queue)
            try await pipeline.local.drained()
        }
    }

    @Test func textOfMessagesIsNoMarkup() async throws {
        try await withPipeline { pipeline in
            try await pipeline.store.queue("mail").publish(
                Message("<img src=x onerror=\"document.title='taken'\"><b>b</b>")
            )
            let shown = try await Self.browse(
                pipeline.address,
                """
                await until("the queue", () => row("mail"));
                press(row("mail"), "mail");
                const cell = await until("the body", () =>
                  document.querySelector("#messages tbody tr td:nth-child(6)"));
                await new Promise((done) => setTimeout(done, 300));
                return [document.title, cell.querySelectorAll("img, b").length, cell.textContent,
                  row("mail").querySelectorAll("button").length];
                """
            )
            #expect(shown == #"["Stalk", 0, "<img src=x onerror=\"document.title='taken'\"><b>b</b>", 1]"#)
        }
    }

    @Test func brokenScriptFailsTheTest() async throws {
        // The control: a script that throws, and one that waits for what never comes, are not taken for a success.
        try await withPipeline { pipeline in
            await #expect(throws: ScriptFailed.self) {
                _ = try await Self.browse(pipeline.address, "throw new Error('no');")
            }
        }
    }
}
