// Publishing a stream of messages: the next piece is read while the last one becomes durable.

internal import StalkCore

/// Publishes what a reader gives, in order, and counts what is safe.
struct Publication {
    /// How ids are printed.
    enum IDs {
        case none
        case plain
        case json
    }

    /// The most messages of one call; their bytes are bounded by the piece that they were read in.
    private static let maxBatch = 1000

    private let queue: any Collector
    private let durability: PutCommand.DurabilityOption
    private let framing: Framing
    private let ids: IDs
    private let inputSize: Int?
    private let output: OutputStream
    private var progress: ProgressLine
    /// How many messages were handed to the queue.
    private var offered = 0
    /// How many of them are safe.
    private var published = 0

    init(
        queue: any Collector,
        durability: PutCommand.DurabilityOption,
        framing: Framing,
        ids: IDs,
        inputSize: Int?,
        output: OutputStream = .standardOutput
    ) {
        self.queue = queue
        self.durability = durability
        self.framing = framing
        self.ids = ids
        self.inputSize = inputSize
        self.output = output
        self.progress = ProgressLine("published", quiet: ids != .none && Terminal.isTerminal(1))
    }

    /// Publishes everything.
    ///
    /// Order is kept, so only one call is on its way at a time; the next piece is read meanwhile, and where the input is
    /// faster than the disk, it fills the next call.
    ///
    /// - Parameter reader: Where the messages come from.
    /// - Returns: How many were published.
    /// - Throws: ``StalkError`` whose sentence says which message failed and how many are safe.
    mutating func publishAll(from reader: MessageReader) async throws -> Int {
        defer { self.progress.end() }
        do {
            var piece = try await reader.next()
            while !piece.isEmpty {
                async let following = reader.next()
                try await self.publish(piece)
                let bytes = await reader.bytesRead
                self.progress.update(
                    counted(self.published, "message"),
                    fraction: self.inputSize.map { Double(bytes) / Double(max($0, 1)) }
                )
                piece = try await following
            }
            return self.published
        } catch {
            throw self.explain(error)
        }
    }

    private mutating func publish(_ messages: [Message]) async throws {
        let size = min(Self.maxBatch, max(self.queue.capabilities.maxBatch, 1))
        var rest = messages[...]
        while !rest.isEmpty {
            try Task.checkCancellation()
            let batch = rest.prefix(size)
            let results = try await self.queue.publish(Array(batch), durability: self.durability.durability)
            try await self.account(for: results)
            rest = rest.dropFirst(batch.count)
        }
    }

    private mutating func account(for results: [Result<MessageID, StalkError>]) async throws {
        var lines: [UInt8] = []
        var refused: MessageReader.BadRecord?
        for result in results {
            self.offered += 1
            switch result {
            case .success(let id):
                self.published += 1
                // Behind a refused message, ids would no longer line up with the input.
                if refused == nil { self.append(id, to: &lines) }
            case .failure(let reason):
                refused = refused ?? MessageReader.BadRecord(number: self.offered, reason: reason)
            }
        }
        try await self.output.write(lines)
        if let refused { throw refused }
    }

    private func append(_ id: MessageID, to lines: inout [UInt8]) {
        switch self.ids {
        case .none: break
        case .plain: lines += "\(id)\n".utf8
        case .json: lines += JSONValue.object([.init("id", .string(id.rawValue))]).line
        }
    }

    private func explain(_ error: any Error) -> any Error {
        let count =
            "\(counted(self.published, "message")) \(self.published == 1 ? "is" : "are") \(self.durability.adjective)."
        switch error {
        case let bad as MessageReader.BadRecord where self.framing == .whole:
            return bad.reason
        case let bad as MessageReader.BadRecord:
            return Self.extended(bad.reason, "\(self.framing.noun) \(bad.number): \(bad.reason.message) \(count)")
        case let error as StalkError:
            return Self.extended(error, self.framing == .whole ? error.message : "\(error.message) \(count)")
        case is OutputClosed:
            return StalkError(.interrupted, "Nobody reads the ids any more, so publishing stopped: \(count)")
        case is CancellationError:
            return StalkError(.interrupted, "Interrupted: \(count)")
        default:
            return error
        }
    }

    private static func extended(_ error: StalkError, _ message: String) -> StalkError {
        var error = error
        error.message = message
        return error
    }
}
