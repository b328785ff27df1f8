// Flipped bits of data.mdb, and what LMDB makes of them.

import Foundation
import StalkCore
import StalkIndex
import StalkTesting

@testable import StalkLocal

/// Everything that LMDB gives of a store that nobody has open.
struct IndexContents {
    private struct Place: Hashable {
        var queue: UInt32
        var key: OrderKey
        var isScheduled: Bool
        var isDead: Bool
    }

    private var meta: StoreMeta?
    private var queues: [SettledQueue] = []
    private var messages: [UInt64: SettledMessage] = [:]
    private var places: Set<Place> = []
    private var scheduled: Set<ScheduleKey> = []
    /// Whether something was refused, or was passed over because it fails its checksum.
    private var hasNotice = false

    /// How many messages there are.
    var count: Int { self.messages.count }

    /// Reads it all, message by message and line by line, as a serving process does.
    ///
    /// - Parameters:
    ///   - path: The store.
    ///   - known: What there was before; `nil` for the messages of a sound store.
    static func read(_ path: String, known: IndexContents? = nil) throws(StalkError) -> IndexContents {
        let tables = try SettledTables(readOnly: path)
        defer { tables.index.close() }
        var contents = IndexContents()
        contents.meta = try tables.readMeta()
        contents.queues = try tables.readQueues()
        for sequence in known.map({ $0.messages.keys.sorted() }) ?? Array(1..<(contents.meta?.nextSequence ?? 1)) {
            let (message, isRotten) = try tables.soundMessage(sequence)
            contents.messages[sequence] = message
            if isRotten { contents.hasNotice = true }
        }
        for queue in (known ?? contents).queues {
            for isDead in [false, true] {
                try tables.forEachPlace(of: queue.number, isDead: isDead) { key, isScheduled in
                    let place = Place(queue: queue.number, key: key, isScheduled: isScheduled, isDead: isDead)
                    // LMDB may lead in a circle.
                    return contents.places.insert(place).inserted
                }
            }
        }
        contents.scheduled = Set(
            try tables.scheduleRun(ScheduleFeed(after: .first, through: .max, limit: 10_000, epoch: 0)).keys.map(\.key)
        )
        return contents
    }

    /// How it differs from what there was before the damage.
    func outcome(comparedTo sound: IndexContents) -> FlipOutcome {
        if let meta = self.meta, let now = sound.meta, meta.settledFrame < now.settledFrame { return .older }
        if self.wrongThing(comparedTo: sound) != nil { return .wrong }
        if self.hasNotice { return .noticed }
        let isWhole =
            self.meta == sound.meta && self.queues == sound.queues && self.messages.count == sound.messages.count
            && self.places == sound.places && self.scheduled == sound.scheduled
        return isWhole ? .right : .missed
    }

    /// What came out that was never put in, on one line.
    func wrongThing(comparedTo sound: IndexContents) -> String? {
        if let meta = self.meta, meta != sound.meta { return "\(meta)" }
        for queue in self.queues where !sound.queues.contains(queue) { return "\(queue)" }
        for (sequence, message) in self.messages {
            guard let other = sound.messages[sequence] else { return "message \(sequence)" }
            if message.standing != other.standing {
                return "\(message.standing), which was \(other.standing)"
            }
            let (content, before) = (message.content, other.content)
            if content.body != before.body || content.headers != before.headers
                || content.publishedAt != before.publishedAt
            {
                return "the content of message \(sequence)"
            }
        }
        if let place = self.places.subtracting(sound.places).first { return "\(place)" }
        return self.scheduled.subtracting(sound.scheduled).first.map { "\($0)" }
    }
}

/// What a flipped bit did.
enum FlipOutcome: String, CaseIterable {
    /// Nothing: it hit what nobody reads.
    case right
    /// An error, or a value that is known to be damaged.
    case noticed
    /// Rows were not found, and nothing said so.
    case missed
    /// LMDB went by the commit before the last one: then the log must have what is missing, or say that it lacks it.
    case older
    /// Something came out that was never put in.
    case wrong
    /// LMDB ended the process, or did not end by itself.
    case crashed
}

/// Bits of data.mdb, one at a time, each chosen by its number.
struct IndexFlips {
    /// A store that nobody has open.
    let path: String
    private let size: Int

    private var file: String { "\(self.path)/index/data.mdb" }

    init(path: String) {
        self.path = path
        var info = stat()
        self.size = stat("\(path)/index/data.mdb", &info) == 0 ? Int(info.st_size) : 0
    }

    /// Flips a bit; flipping it again mends it.
    func flip(_ number: Int) {
        var generator = SeededGenerator(seed: UInt64(number))
        let bit = generator.below(self.size * 8)
        let descriptor = open(self.file, O_RDWR | O_CLOEXEC)
        var byte: UInt8 = 0
        pread(descriptor, &byte, 1, off_t(bit / 8))
        byte ^= 1 << UInt8(bit % 8)
        pwrite(descriptor, &byte, 1, off_t(bit / 8))
        close(descriptor)
    }

    /// Tries bits in a process of its own, until the last one or until LMDB crashes, and writes a line for each.
    func tryAll(_ numbers: Range<Int>, writingTo output: String) throws {
        let sound = try IndexContents.read(self.path)
        let descriptor = open(output, O_WRONLY | O_APPEND | O_CREAT, 0o600)
        // The last line says which bit it was. A trap of Swift's own is none of these: that is for the test to report.
        for number in [SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGALRM] { signal(number) { _ in _exit(0) } }
        for number in numbers {
            Self.write("\(number)", to: descriptor)
            self.flip(number)
            alarm(20)
            var outcome = FlipOutcome.noticed
            var what: String?
            do throws(StalkError) {
                let contents = try IndexContents.read(self.path, known: sound)
                outcome = contents.outcome(comparedTo: sound)
                what = contents.wrongThing(comparedTo: sound)
            } catch {}
            alarm(0)
            self.flip(number)
            Self.write(" \(outcome.rawValue) \(what ?? "")\n", to: descriptor)
        }
        close(descriptor)
    }

    private static func write(_ text: String, to descriptor: CInt) {
        let bytes = Array(text.utf8)
        _ = Glibc.write(descriptor, bytes, bytes.count)
    }

    /// What the lines say of each bit, the one at which the process ended included.
    static func outcomes(in output: String) throws -> [Int: (outcome: FlipOutcome, what: String)] {
        var outcomes: [Int: (FlipOutcome, String)] = [:]
        for line in try String(contentsOfFile: output, encoding: .utf8).split(separator: "\n") {
            let words = line.split(separator: " ", maxSplits: 2)
            guard let number = words.first.flatMap({ Int($0) }) else { continue }
            let outcome = words.count == 1 ? .crashed : FlipOutcome(rawValue: String(words[1]))
            outcomes[number] = outcome.map { ($0, words.count > 2 ? String(words[2]) : "") }
        }
        return outcomes
    }
}
