// What a loader reports while it runs, one event a line: the journal that is compared with the store afterwards.

/// One line of the journal.
enum TortureEvent: Hashable {
    /// How a delivery ends.
    enum Ending: String {
        case acknowledge
        case publish
        case retry
        case dead
        case release
    }

    /// A message that a finish publishes.
    struct Outgoing: Hashable {
        var number: UInt64
        var queue: String
    }

    /// A message that was found in the store when everything before this line was compared with it.
    struct Settled: Hashable {
        var number: UInt64
        var id: String
        var queue: String
        /// Where it goes back to when it is redriven.
        var home: String
        var isDead: Bool
        var attempts: Int
    }

    /// A process begins; what was under way in the one before is over, or never happened. With `isSingle`, one call
    /// follows the other.
    case life(seed: UInt64, isSingle: Bool)
    /// Which of several processes says what follows; lines of a journal that several write begin with it.
    case speaker(UInt64)
    /// The store was opened.
    case opened(replayedFrames: Int, tornBytes: Int)
    /// A message is about to be published.
    case publishing(UInt64, queue: String)
    /// It was published.
    case published(UInt64, id: String)
    /// It was refused.
    case unpublished(UInt64, code: String)
    /// A message was delivered.
    case taken(id: String, attempt: Int, number: UInt64, queue: String)
    /// A delivery is about to end.
    case finishing(id: String, Ending, [Outgoing])
    /// It ended.
    case finished(id: String, Ending)
    /// The store refused to end it.
    case unfinished(id: String, Ending, code: String)
    /// What is dead in a queue is about to be sent back.
    case redriving(queue: String)
    /// It was sent back.
    case redriven(queue: String, count: Int)
    /// A checkpoint was forced.
    case checkpointed
    /// A call failed as a whole.
    case failed(code: String, message: String)
    /// Somebody got bytes that nobody had published under this number.
    case wrong(id: String, number: UInt64)
    /// A message came before its time, or while somebody else held it.
    case early(id: String, number: UInt64, what: String)
    /// The store was closed.
    case closed
    /// All that is known from before this line.
    case settled(Settled)
}

extension TortureEvent: CustomStringConvertible {
    /// The line, without its newline.
    var description: String {
        switch self {
        case .life(let seed, let isSingle): "life \(seed) \(isSingle ? "single" : "many")"
        case .speaker(let number): "@\(number)"
        case .opened(let frames, let torn): "opened \(frames) \(torn)"
        case .publishing(let number, let queue): "publishing \(number) \(queue)"
        case .published(let number, let id): "published \(number) \(id)"
        case .unpublished(let number, let code): "unpublished \(number) \(code)"
        case .taken(let id, let attempt, let number, let queue): "taken \(id) \(attempt) \(number) \(queue)"
        case .finishing(let id, let ending, let outgoing):
            "finishing \(id) \(ending.rawValue)" + outgoing.map { " \($0.number):\($0.queue)" }.joined()
        case .finished(let id, let ending): "finished \(id) \(ending.rawValue)"
        case .unfinished(let id, let ending, let code): "unfinished \(id) \(ending.rawValue) \(code)"
        case .redriving(let queue): "redriving \(queue)"
        case .redriven(let queue, let count): "redriven \(queue) \(count)"
        case .checkpointed: "checkpointed"
        case .failed(let code, let message): "failed \(code) \(printable(message, keepingNewlines: false))"
        case .wrong(let id, let number): "wrong \(id) \(number)"
        case .early(let id, let number, let what): "early \(id) \(number) \(what)"
        case .closed: "closed"
        case .settled(let message):
            "settled \(message.number) \(message.id) \(message.queue) \(message.home) "
                + "\(message.isDead ? "dead" : "alive") \(message.attempts)"
        }
    }
}

extension TortureEvent {
    /// Reads a line.
    ///
    /// - Parameter line: The line, without its newline.
    /// - Returns: The event; `nil` when it is none.
    init?(_ line: Substring) {
        let words = line.split(separator: " ").map(String.init)
        guard let verb = words.first, let event = Self.read(verb, words) else { return nil }
        self = event
    }

    private static func read(_ verb: String, _ words: [String]) -> Self? {
        func number(_ index: Int) -> UInt64? { index < words.count ? UInt64(words[index]) : nil }
        func whole(_ index: Int) -> Int? { index < words.count ? Int(words[index]) : nil }
        switch (verb, words.count) {
        case ("life", 3): return number(1).map { .life(seed: $0, isSingle: words[2] == "single") }
        case ("publishing", 3): return number(1).map { .publishing($0, queue: words[2]) }
        case ("published", 3): return number(1).map { .published($0, id: words[2]) }
        case ("unpublished", 3): return number(1).map { .unpublished($0, code: words[2]) }
        case ("redriving", 2): return .redriving(queue: words[1])
        case ("redriven", 3): return whole(2).map { .redriven(queue: words[1], count: $0) }
        case ("checkpointed", 1): return .checkpointed
        case ("closed", 1): return .closed
        case ("failed", 2...): return .failed(code: words[1], message: words[2...].joined(separator: " "))
        case ("wrong", 3): return number(2).map { .wrong(id: words[1], number: $0) }
        case ("early", 4...):
            return number(2).map { .early(id: words[1], number: $0, what: words[3...].joined(separator: " ")) }
        case ("opened", 3):
            guard let frames = whole(1), let torn = whole(2) else { return nil }
            return .opened(replayedFrames: frames, tornBytes: torn)
        case ("taken", 5):
            guard let attempt = whole(2), let number = number(3) else { return nil }
            return .taken(id: words[1], attempt: attempt, number: number, queue: words[4])
        case ("finishing", 3...), ("finished", 3), ("unfinished", 4): return Self.readFinish(verb, words)
        case ("settled", 7):
            guard let number = number(1), let attempts = whole(6) else { return nil }
            return .settled(
                Settled(
                    number: number,
                    id: words[2],
                    queue: words[3],
                    home: words[4],
                    isDead: words[5] == "dead",
                    attempts: attempts
                )
            )
        default: return nil
        }
    }

    private static func readFinish(_ verb: String, _ words: [String]) -> Self? {
        guard let ending = Ending(rawValue: words[2]) else { return nil }
        switch verb {
        case "finished": return .finished(id: words[1], ending)
        case "unfinished": return .unfinished(id: words[1], ending, code: words[3])
        default:
            var outgoing: [Outgoing] = []
            for word in words[3...] {
                let parts = word.split(separator: ":")
                guard parts.count == 2, let number = UInt64(parts[0]) else { return nil }
                outgoing.append(Outgoing(number: number, queue: String(parts[1])))
            }
            return .finishing(id: words[1], ending, outgoing)
        }
    }
}

extension TortureEvent {
    /// Who says a line of a journal that several processes write, and what it says.
    ///
    /// A process that is killed can leave a piece of a line, without its end, in front of another's.
    private static func speaker(of line: Substring) -> (UInt64, Substring)? {
        guard let mark = line.lastIndex(of: "@") else { return nil }
        let words = line[line.index(after: mark)...].split(separator: " ", maxSplits: 1)
        guard words.count == 2, let speaker = UInt64(words[0]) else { return nil }
        return (speaker, words[1])
    }

    /// Reads a journal of one or more lives.
    ///
    /// A process that is killed can leave its last line cut short. Such a line is passed over: the next life begins with
    /// an empty line, so that one that ends right before "life" was cut.
    ///
    /// - Parameter text: The journal.
    /// - Returns: The events, and the lines that are none.
    static func journal(_ text: String) -> (events: [TortureEvent], unreadable: [String]) {
        var events: [TortureEvent] = []
        var unreadable: [String] = []
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        // Behind the last newline: nothing, or a line that was cut.
        _ = lines.popLast()
        for (index, whole) in lines.enumerated() where !whole.isEmpty {
            let next = index + 1 < lines.count ? lines[index + 1] : ""
            if next.hasPrefix("life ") { continue }
            var line = whole
            if let (speaker, rest) = Self.speaker(of: whole) {
                events.append(.speaker(speaker))
                line = rest
            }
            if let event = TortureEvent(line) {
                events.append(event)
            } else {
                unreadable.append(String(line))
            }
        }
        return (events, unreadable)
    }
}
