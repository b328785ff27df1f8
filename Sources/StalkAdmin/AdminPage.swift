// The page: one document without outside assets. It asks /api/queues every second and shows what comes.

/// The page and how it is served.
enum AdminPage {
    static var response: AdminResponse {
        // The one script runs because it bears the number of this answer; text of messages never becomes markup.
        let nonce = (0..<2).map { _ in String(UInt64.random(in: .min ... .max), radix: 36) }.joined()
        let policy =
            "default-src 'none'; script-src 'nonce-\(nonce)'; style-src 'nonce-\(nonce)'; connect-src 'self'; "
            + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        return AdminResponse(
            status: 200,
            contentType: "text/html; charset=utf-8",
            body: Array(Self.document.replacing("NONCE", with: nonce).utf8)
        ).with("Content-Security-Policy", policy)
    }

    private static let document = """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>Stalk</title>
        <style nonce="NONCE">\(Self.style)</style>
        </head>
        <body>
        <header>
        <h1>Stalk</h1>
        <p id="state" role="status">loading</p>
        <label>Token <input id="token" type="password" autocomplete="off" size="24"></label>
        </header>
        <main>
        <section>
        <h2>Queues</h2>
        <table id="queues"><thead><tr>
        <th>Queue</th><th>Ready</th><th>Delayed</th><th>Leased</th><th>Dead</th><th>In/s</th><th>Out/s</th>
        <th>Oldest</th><th>Bodies</th><th></th>
        </tr></thead><tbody></tbody></table>
        </section>
        <section>
        <h2>Collectors</h2>
        <table id="collectors"><thead><tr>
        <th>Collector</th><th>Queue</th><th>Backend</th><th>State</th><th>In flight</th><th>Concurrency</th>
        <th>Done</th><th>Retried</th><th>Failed</th><th></th>
        </tr></thead><tbody></tbody></table>
        </section>
        <section id="failover" hidden>
        <h2>Failover</h2>
        <table id="failovers"><thead><tr>
        <th>Name</th><th>To</th><th>Breaker</th><th>Waiting</th><th>Delayed</th><th>Set aside</th><th>Bodies</th>
        <th>Oldest</th><th>Out/s</th><th>Empty in</th><th>Direct</th><th>Stored</th><th>Forwarded</th>
        <th>Ambiguous</th>
        </tr></thead><tbody></tbody></table>
        </section>
        <section id="messages" hidden>
        <h2><span id="chosen"></span>
        <select id="filter" aria-label="State">
        <option>ready</option><option>delayed</option><option>leased</option><option>dead</option>
        </select></h2>
        <p id="moving" hidden><label>Move to <input id="target" list="names" size="20"></label>
        <datalist id="names"></datalist></p>
        <table><thead><tr>
        <th>Id</th><th>Attempts</th><th>Published</th><th>Due</th><th>Errors</th><th>Body</th><th></th>
        </tr></thead><tbody></tbody></table>
        </section>
        </main>
        <script nonce="NONCE">\(Self.script)</script>
        </body>
        </html>
        """

    private static let style = """
        :root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
        body { margin: 0 auto; max-width: 76rem; padding: 1rem; }
        header { display: flex; gap: 1.5rem; align-items: baseline; flex-wrap: wrap; }
        h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
        #state { margin: 0; flex: 1; opacity: .75; } #state.bad { color: #c00; opacity: 1; }
        table { border-collapse: collapse; width: 100%; }
        th, td { text-align: right; padding: .28rem .6rem; border-bottom: 1px solid #8884; vertical-align: top;
          font-variant-numeric: tabular-nums; }
        th:first-child, td:first-child, #messages td, #messages th, #collectors td:nth-child(-n+4), #failovers td:nth-child(-n+3), #failovers th:nth-child(-n+3),
        #collectors th:nth-child(-n+4) { text-align: left; }
        td:last-child { white-space: nowrap; }
        th { font-weight: 600; opacity: .75; } .bad { color: #c00; } .off { opacity: .55; }
        button { font: inherit; padding: .05rem .5rem; margin-left: .3rem; }
        button.name { border: 0; background: none; padding: 0; margin: 0; color: LinkText; text-decoration: underline;
          cursor: pointer; }
        pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 9rem; overflow: auto; }
        """

    private static let script = #"""
        "use strict";
        const $ = (selector) => document.querySelector(selector);
        const token = $("#token");
        token.value = sessionStorage.getItem("token") || "";
        token.addEventListener("change", () => { sessionStorage.setItem("token", token.value); refresh(); });
        let before = null, chosen = null, failure = "", armed = null;

        async function ask(path, method = "GET", body = undefined) {
          const headers = {};
          if (token.value) headers.Authorization = "Bearer " + token.value;
          const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
          const value = await answer.json().catch(() => ({}));
          if (!answer.ok) throw new Error(value.error || answer.status + " " + answer.statusText);
          return value;
        }
        function cell(row, content, className) {
          const td = row.insertCell();
          if (content instanceof Node) td.append(content); else td.textContent = content ?? "";
          if (className) td.className = className;
          return td;
        }
        function button(text, action, className) {
          const made = document.createElement("button");
          made.textContent = text;
          if (className) made.className = className;
          made.addEventListener("click", async () => {
            const wasArmed = armed;
            armed = null;
            try { failure = ""; await action(wasArmed); } catch (error) { failure = error.message; }
            await refresh();
          });
          return made;
        }
        // For what can't be undone: the first press only asks.
        function sureButton(text, key, action) {
          return button(armed === key ? "Really " + text.toLowerCase() + "?" : text, async (wasArmed) => {
            if (wasArmed === key) return action();
            armed = key;
            setTimeout(() => { if (armed === key) armed = null; }, 5000);
          }, armed === key ? "bad" : "");
        }
        function size(bytes) {
          for (const unit of ["B", "KiB", "MiB", "GiB"]) {
            if (bytes < 1024) return (unit === "B" ? bytes : bytes.toFixed(1)) + " " + unit;
            bytes /= 1024;
          }
          return bytes.toFixed(1) + " TiB";
        }
        function age(ms) {
          if (ms == null) return "–";
          if (ms < 1000) return ms + " ms";
          const s = ms / 1000;
          return s < 120 ? s.toFixed(1) + " s" : s < 7200 ? (s / 60).toFixed(1) + " min" : (s / 3600).toFixed(1) + " h";
        }
        const rate = (value) => value == null ? "–" : value.toFixed(1);
        const held = (queue) => queue.ready + queue.delayed + queue.leased;

        function showQueues(value, now) {
          const body = document.createElement("tbody");
          for (const queue of value.queues) {
            const old = before && before.queues.find((one) => one.name === queue.name);
            const seconds = old ? (now - before.at) / 1000 : 0;
            const out = old && seconds > 0 ? (queue.finished - old.finished) / seconds : null;
            const more = out == null ? null : Math.max(0, (held(queue) - held(old)) / seconds + out);
            const row = body.insertRow();
            row.dataset.queue = queue.name;
            cell(row, button(queue.name, async () => { chosen = queue.name; }, "name"));
            for (const state of ["ready", "delayed", "leased"]) cell(row, queue[state]);
            cell(row, queue.dead, queue.dead ? "bad" : "");
            cell(row, rate(more));
            cell(row, rate(out));
            cell(row, age(queue.oldestAgeMs));
            cell(row, size(queue.bytes));
            const last = cell(row, queue.paused ? "paused " : "");
            const path = "/api/queues/" + encodeURIComponent(queue.name);
            if (token.value) {
              last.append(button(queue.paused ? "Resume" : "Pause",
                () => ask(path + (queue.paused ? "/resume" : "/pause"), "POST")));
              if (queue.dead) last.append(button("Redrive", () => ask(path + "/redrive", "POST")));
              if (queue.delayed) last.append(button("Kick", () => ask(path + "/kick", "POST")));
              if (queue.ready + queue.delayed + queue.dead)
                last.append(sureButton("Purge", path, () => ask(path + "/purge", "POST")));
            }
          }
          $("#queues tbody").replaceWith(body);
          $("#names").replaceChildren(...value.queues.map((queue) => {
            const option = document.createElement("option");
            option.value = queue.name;
            return option;
          }));
          before = { at: now, queues: value.queues };
        }
        function showCollectors(value) {
          const body = document.createElement("tbody");
          for (const one of value.collectors) {
            const row = body.insertRow();
            const state = !one.backendReachable ? "backend away" : one.sleeping ? "asleep" :
              one.stopping ? "stopping" : one.running === false ? "not running" : "awake";
            cell(row, one.id); cell(row, one.queue); cell(row, one.backend);
            cell(row, state, one.backendReachable ? (one.sleeping ? "off" : "") : "bad");
            cell(row, (one.inFlight ?? "–") + (one.stuck ? " (" + one.stuck + " stuck)" : ""), one.stuck ? "bad" : "");
            cell(row, one.concurrency ?? "–"); cell(row, one.processed ?? "–");
            cell(row, one.retried ?? "–"); cell(row, one.failed ?? "–", one.failed ? "bad" : "");
            const last = cell(row, "");
            const order = (path, more) => ask(path, "POST", { collector: one.id, ...more });
            last.append(button(one.sleeping ? "Wake" : "Sleep", () => order(one.sleeping ? "/wake" : "/sleep")));
            if (one.concurrency != null) {
              last.append(button("−", () => order("/scale", { to: Math.max(0, one.concurrency - 1) })));
              last.append(button("+", () => order("/scale", { to: one.concurrency + 1 })));
            }
          }
          $("#collectors tbody").replaceWith(body);
        }
        function showFailovers(value) {
          $("#failover").hidden = value.failovers.length === 0;
          const body = document.createElement("tbody");
          for (const one of value.failovers) {
            const row = body.insertRow();
            row.dataset.failover = one.id;
            const breaker = { closed: "closed", open: "open", halfOpen: "trying" }[one.breaker];
            cell(row, one.id); cell(row, one.destination);
            cell(row, breaker, one.breaker === "closed" ? "" : "bad");
            cell(row, one.waiting ?? "–"); cell(row, one.delayed ?? "–");
            cell(row, one.setAside ?? "–", one.setAside ? "bad" : "");
            cell(row, one.bytes == null ? "–" : size(one.bytes)); cell(row, age(one.oldestAgeMs));
            cell(row, one.rate + (one.rateLimit == null ? "" : " of " + Math.round(one.rateLimit)));
            cell(row, one.waiting === 0 ? "–" : age(one.timeToEmptyMs));
            cell(row, one.direct ?? "–"); cell(row, one.stored ?? "–"); cell(row, one.forwarded);
            cell(row, one.ambiguous, one.ambiguous ? "bad" : "");
          }
          $("#failovers tbody").replaceWith(body);
        }
        function messageButtons(message) {
          const path = "/api/messages/" + message.id;
          const made = [];
          if (message.state === "delayed") made.push(button("Retry", () => ask(path + "/kick", "POST")));
          else if (message.state === "dead" || message.diedIn)
            made.push(button("Redrive", () => ask(path + "/kick", "POST")));
          made.push(button("Move", () => {
            if (!$("#target").value) throw new Error("Name the queue to move it to.");
            return ask(path + "/move", "POST", { to: $("#target").value });
          }));
          made.push(sureButton("Delete", path, () => ask(path + "/delete", "POST")));
          return made;
        }
        async function showMessages() {
          $("#messages").hidden = chosen == null;
          $("#moving").hidden = !token.value;
          if (chosen == null) return;
          $("#chosen").textContent = chosen;
          const path = "/api/queues/" + encodeURIComponent(chosen) + "/messages?max=50&state=" + $("#filter").value;
          const value = await ask(path);
          const body = document.createElement("tbody");
          for (const message of value.messages) {
            const row = body.insertRow();
            cell(row, message.id); cell(row, message.attempts);
            cell(row, message.publishedAt); cell(row, message.dueAt);
            const errors = document.createElement("pre");
            errors.textContent = message.failures.map((one) => one.attempt + ": " + one.reason).join("\n");
            cell(row, errors);
            const text = document.createElement("pre");
            text.textContent = (message.body ?? "base64: " + message.bodyBase64) +
              (message.isCut ? "\n… of " + size(message.size) : "");
            cell(row, text);
            const last = cell(row, "");
            if (token.value && message.state !== "leased") last.append(...messageButtons(message));
          }
          $("#messages tbody").replaceWith(body);
        }
        let running = false;
        async function refresh() {
          if (running) return;
          running = true;
          try {
            const now = performance.now();
            const value = await ask("/api/queues");
            showQueues(value, now);
            showCollectors(value);
            showFailovers(value);
            await showMessages();
            const name = value.store ? value.store.path.split("/").filter(Boolean).pop() || "/" : "";
            $("#state").title = value.store ? value.store.path : "";
            $("#state").textContent = failure || (value.store ? name + " · log " + size(value.store.logBytes) +
              " · LMDB " + size(value.store.lmdbBytes) + " · schedule lag " + age(value.store.scheduleLagMs) : "no store");
            $("#state").className = failure ? "bad" : "";
          } catch (error) {
            $("#state").textContent = error.message;
            $("#state").className = "bad";
          } finally {
            running = false;
          }
        }
        $("#filter").addEventListener("change", refresh);
        refresh();
        setInterval(refresh, 1000);
        """#
}
