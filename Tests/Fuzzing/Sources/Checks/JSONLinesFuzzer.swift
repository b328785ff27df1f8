// Input of `put`: lines, and JSON objects in them, however the bytes arrive.

import Dispatch
import FoundationEssentials
import Glibc
import Synchronization

@testable import StalkCLI
@testable import StalkCore

/// Reads JSON lines in one piece and in pieces; a message must come out of its own JSON again.
struct JSONLinesFuzzer: Fuzzer {
    private static let template = Message([], headers: ["Lang": "en"], delay: .seconds(5))
    private static let capabilities = CollectorCapabilities(
        maxBodyBytes: 1000,
        maxDelay: Message.maxDelay,
        maxLease: .seconds(60),
        maxBatch: 10,
        ordering: .firstInFirstOut,
        leaseExtension: true,
        atomicPublish: true,
        uncountedRelease: true,
        durableDelay: true
    )
    /// Pipes take that much without a reader.
    private static let pipeBytes = 32 << 10

    var name: String { "json-lines" }

    func complaint(about input: [UInt8], isPlanted: Bool) -> String? {
        var choices = Choices(Array(input.prefix(Self.pipeBytes)))
        let pieceBytes = choices.next() + 1
        let choice = choices.next()
        let limit = choice & 1 == 0 ? 4000 : 40
        let bytes = choices.remaining
        let atOnce = Self.split(bytes, pieceBytes: max(bytes.count, 1), limit: limit)
        // The planted bug lets a record end where a piece ends.
        let inPieces = Self.split(bytes, pieceBytes: pieceBytes, limit: limit, endsRecords: isPlanted)
        guard atOnce == inPieces else { return "pieces of \(pieceBytes) bytes make other records" }
        for record in atOnce.records {
            guard record.count <= limit else { return "a record of \(record.count) bytes is over \(limit)" }
            guard !record.contains(UInt8(ascii: "\n")) else { return "a record has a newline" }
            if let complaint = Self.message(record) { return complaint }
        }
        return choice & 2 == 0 ? nil : Self.reader(bytes, pieceBytes: pieceBytes)
    }

    // MARK: Records

    private struct Split: Equatable {
        var records: [[UInt8]] = []
        var isTooLong = false
    }

    private static func split(
        _ bytes: [UInt8],
        pieceBytes: Int,
        limit: Int,
        endsRecords: Bool = false
    ) -> Split {
        var split = Split()
        var splitter = RecordSplitter(separator: UInt8(ascii: "\n"), maxBytes: limit)
        var rest = bytes[...]
        do throws(RecordSplitter.TooLong) {
            while !rest.isEmpty {
                split.records += try splitter.append(Array(rest.prefix(pieceBytes)))
                rest = rest.dropFirst(pieceBytes)
                if endsRecords, let record = splitter.finish() { split.records.append(record) }
            }
            if let record = splitter.finish() { split.records.append(record) }
        } catch {
            split.records += error.records
            split.isTooLong = true
        }
        return split
    }

    // MARK: Messages

    private static func message(_ line: [UInt8]) -> String? {
        guard let message = try? JSONMessage.message(line, template: Self.template) else { return nil }
        let object = JSONValue.object([
            .init("bodyBase64", .string(Data(message.body).base64EncodedString())),
            .init("headers", .object(message.headers.map { .init($0.name, .string($0.value)) })),
            .init("delay", .string(message.delay.stalkText)),
        ])
        do throws(StalkError) {
            let again = try JSONMessage.message(object.line, template: Self.template)
            return again == message ? nil : "\(message) came back as \(again)"
        } catch {
            return "\(message) can't be read back: \(error)"
        }
    }

    // MARK: The reader

    /// What the reader gave: messages, and the number of the first bad one.
    private struct Reading: Equatable {
        var messages: [Message] = []
        var bad: Int?
    }

    /// Reads the same bytes as two reads and as one.
    private static func reader(_ bytes: [UInt8], pieceBytes: Int) -> String? {
        let atOnce = Self.read([bytes])
        let cut = min(pieceBytes, bytes.count)
        let inTwo = cut == 0 ? atOnce : Self.read([Array(bytes[..<cut]), Array(bytes[cut...])])
        guard let atOnce, atOnce == inTwo else { return "a read that ends at \(cut) makes other messages" }
        return atOnce.messages.allSatisfy({ $0.body.count <= 1000 }) ? nil : "a body is over the limit"
    }

    private static func read(_ pieces: [[UInt8]]) -> Reading? {
        let outcome = Outcome()
        Task.detached { outcome.set(await Self.readMessages(pieces)) }
        return outcome.wait()
    }

    /// The first piece was read before the reader began; the others wait in a pipe.
    private static func readMessages(_ pieces: [[UInt8]]) async -> Reading? {
        var ends: [CInt] = [-1, -1]
        guard pipe(&ends) == 0 else { return nil }
        for piece in pieces.dropFirst() { _ = write(ends[1], piece, piece.count) }
        close(ends[1])
        guard let input = try? InputStream(descriptor: ends[0], closing: true) else { return nil }
        let reader = MessageReader(
            input: input,
            first: pieces[0],
            framing: .jsonLines,
            template: Self.template,
            capabilities: Self.capabilities
        )
        var reading = Reading()
        do {
            while true {
                let messages = try await reader.next()
                if messages.isEmpty { return reading }
                reading.messages += messages
            }
        } catch let bad as MessageReader.BadRecord {
            reading.bad = bad.number
            return reading
        } catch {
            return nil
        }
    }

    /// What a task found out, for a thread that waits for it: libFuzzer calls without a task.
    private final class Outcome: Sendable {
        private let reading = Mutex<Reading?>(nil)
        private let done = DispatchSemaphore(value: 0)

        func set(_ reading: Reading?) {
            self.reading.withLock { $0 = reading }
            self.done.signal()
        }

        func wait() -> Reading? {
            self.done.wait()
            return self.reading.withLock { $0 }
        }
    }
}
