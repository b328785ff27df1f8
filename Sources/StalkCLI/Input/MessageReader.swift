// From a file or standard input to messages, a bounded piece at a time.

internal import StalkCore

/// How messages stand in the input of `put`.
enum Framing: Hashable {
    /// All of it is one message.
    case whole
    /// One message per line, without its newline.
    case lines
    /// One message before each NUL.
    case nul
    /// One JSON object per line.
    case jsonLines

    /// What to call one record in an error message.
    var noun: String {
        switch self {
        case .whole, .nul: "message"
        case .lines, .jsonLines: "line"
        }
    }
}

/// Reads messages in order and keeps no more than one piece of the input in memory.
actor MessageReader {
    /// A message that can't be published, and where it stands.
    struct BadRecord: Error {
        /// Its number in the input, from 1.
        var number: Int
        var reason: StalkError
    }

    /// How much is read at once, at most.
    static let chunkBytes = 1 << 20

    /// How many bytes of the input were read.
    private(set) var bytesRead = 0
    private var first: [UInt8]?
    private let input: InputStream
    private let framing: Framing
    private let template: Message
    private let capabilities: CollectorCapabilities
    private var splitter: RecordSplitter
    private var recordsRead = 0
    private var failure: BadRecord?
    private var isAtEnd = false

    /// Begins to read.
    ///
    /// - Parameters:
    ///   - input: Where the bytes come from.
    ///   - first: What was read from it already, where something was; empty bytes are its end.
    ///   - framing: How messages stand in it.
    ///   - template: The headers and the delay of every message.
    ///   - capabilities: The limits that each message is held against before it is handed out.
    init(
        input: InputStream,
        first: [UInt8]?,
        framing: Framing,
        template: Message,
        capabilities: CollectorCapabilities
    ) {
        self.input = input
        self.first = first
        self.framing = framing
        self.template = template
        self.capabilities = capabilities
        let body = capabilities.maxBodyBytes
        self.splitter = RecordSplitter(
            separator: framing == .nul ? 0 : UInt8(ascii: "\n"),
            // JSON writes a byte with up to six characters, in the body as in the headers.
            maxBytes: framing == .jsonLines ? 6 * (body + Headers.maxBytes) + 4096 : body
        )
    }

    /// The messages in the next piece of the input; what follows a bad one is not handed out.
    ///
    /// - Returns: At least one message, or none at the end.
    /// - Throws: ``BadRecord`` once everything before it was handed out; what reading throws.
    func next() async throws -> [Message] {
        while true {
            if let failure = self.failure { throw failure }
            if self.isAtEnd { return [] }
            let messages = self.framing == .whole ? try await self.readWhole() : try await self.readPiece()
            if !messages.isEmpty { return messages }
        }
    }

    private func readWhole() async throws -> [Message] {
        var body: [UInt8] = []
        // One byte over the limit is enough to know.
        while body.count <= self.capabilities.maxBodyBytes {
            let chunk = try await self.read()
            if chunk.isEmpty { break }
            body += chunk
        }
        self.isAtEnd = true
        guard body.count <= self.capabilities.maxBodyBytes else {
            self.failure = BadRecord(number: 1, reason: self.tooLong)
            return []
        }
        return self.messages([body])
    }

    private func readPiece() async throws -> [Message] {
        let chunk = try await self.read()
        guard !chunk.isEmpty else {
            self.isAtEnd = true
            return self.messages(self.splitter.finish().map { [$0] } ?? [])
        }
        do {
            return self.messages(try self.splitter.append(chunk))
        } catch {
            let messages = self.messages(error.records)
            self.failure = self.failure ?? BadRecord(number: self.recordsRead + 1, reason: self.tooLong)
            return messages
        }
    }

    private func read() async throws -> [UInt8] {
        let chunk: [UInt8]
        if let first = self.first.take() {
            chunk = first
        } else {
            chunk = try await self.input.read(upTo: Self.chunkBytes)
        }
        self.bytesRead += chunk.count
        return chunk
    }

    private func messages(_ records: [[UInt8]]) -> [Message] {
        var messages: [Message] = []
        messages.reserveCapacity(records.count)
        for record in records {
            self.recordsRead += 1
            do {
                let message = try self.message(record)
                try message.validate(for: self.capabilities)
                messages.append(message)
            } catch {
                self.failure = BadRecord(number: self.recordsRead, reason: error)
                break
            }
        }
        return messages
    }

    private func message(_ record: [UInt8]) throws(StalkError) -> Message {
        if self.framing == .jsonLines { return try JSONMessage.message(record, template: self.template) }
        var message = self.template
        message.body = record
        return message
    }

    private var tooLong: StalkError {
        let limit = sizeText(self.capabilities.maxBodyBytes)
        return StalkError(
            .bodyTooLarge,
            "The \(self.framing.noun) is longer than the limit of \(limit): store large data elsewhere and publish a reference."
        )
    }
}
