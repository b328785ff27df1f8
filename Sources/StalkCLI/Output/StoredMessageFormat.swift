// Stored messages, for people and for scripts.

internal import StalkCore
internal import StalkLocal

/// How `peek` and `show` print messages.
enum StoredMessageFormat {
    /// Everything that is known of a message.
    static func json(_ message: StoredMessage) -> JSONValue {
        .object([
            .init("id", .string(message.id.rawValue)),
            .init("queue", .string(message.queue.rawValue)),
            .init("state", .string(message.state.rawValue)),
            .init("attempts", .number(message.attempts)),
            .init("headers", .headers(message.headers)),
            .body(message.body),
            .init("publishedAt", .time(message.publishedAt)),
            .init("dueAt", .time(message.dueAt)),
            .init("diedIn", message.diedIn.map { .string($0.rawValue) } ?? .null),
            .init("failures", .array(message.failures.map(Self.json))),
        ])
    }

    private static func json(_ failure: Failure) -> JSONValue {
        .object([
            .init("attempt", .number(failure.attempt)),
            .init("at", .time(failure.at)),
            .init("reason", .string(failure.reason)),
        ])
    }

    /// Messages as a table, each on one line, its last failure on a second one.
    ///
    /// - Parameters:
    ///   - messages: The messages.
    ///   - now: What the wall clock shows.
    ///   - width: How many characters a line may have.
    static func table(_ messages: [StoredMessage], now: Timestamp, width: Int) -> String {
        var table = TextTable([
            ("ID", .left), ("STATE", .left), ("ATTEMPTS", .right), ("DUE", .right), ("SIZE", .right), ("BODY", .left),
        ])
        for message in messages {
            table.add([
                message.id.rawValue, message.state.rawValue, "\(message.attempts)",
                message.state == .dead ? "-" : relativeText(message.dueAt, now: now), sizeText(message.body.count),
                shownText(message.body, width: 40),
            ])
        }
        let lines = table.text.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
        var text = ""
        for (index, line) in lines.enumerated() {
            text += line.prefix(width) + "\n"
            guard index > 0, let failure = messages[index - 1].failures.last else { continue }
            text +=
                shownText(Array("    attempt \(failure.attempt) failed: \(failure.reason)".utf8), width: width) + "\n"
        }
        return text
    }

    /// One message with its history and its body.
    static func text(_ message: StoredMessage, now: Timestamp) -> String {
        var facts: [(String, String)] = [
            ("id", message.id.rawValue),
            ("queue", message.queue.rawValue),
            ("state", message.state.rawValue),
            ("attempts", "\(message.attempts)"),
            ("published", "\(message.publishedAt) (\(relativeText(message.publishedAt, now: now)))"),
            ("due", "\(message.dueAt) (\(relativeText(message.dueAt, now: now)))"),
        ]
        if let queue = message.diedIn { facts.append(("died in", queue.rawValue)) }
        for header in message.headers {
            facts.append(("header", "\(header.name): \(printable(header.value, keepingNewlines: false))"))
        }
        for failure in message.failures {
            let reason = printable(failure.reason, keepingNewlines: false)
            facts.append(("failed", "attempt \(failure.attempt), \(relativeText(failure.at, now: now)): \(reason)"))
        }
        let lines = facts.map { name, value in
            name + String(repeating: " ", count: 11 - name.count) + value + "\n"
        }
        return lines.joined() + Self.body(message.body)
    }

    private static func body(_ bytes: [UInt8]) -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else {
            return "body       \(sizeText(bytes.count)), not text: --json gives it as base64\n"
        }
        guard !text.isEmpty else { return "body       empty\n" }
        let shown = printable(text, keepingNewlines: true)
        return "body       \(sizeText(bytes.count))\n\n\(shown)\(shown.hasSuffix("\n") ? "" : "\n")"
    }
}
