// Handlers and messages whose payload is a Codable value, as JSON. A module of its own, since it needs Foundation.

internal import FoundationEssentials
public import Logging
public import StalkCore
public import StalkWorker

extension Message {
    /// Makes a message whose body is a value as JSON, with the header `content-type: application/json`.
    ///
    /// - Parameters:
    ///   - value: The payload.
    ///   - headers: Named text that travels with it.
    ///   - delay: How long it stays invisible, from zero to ten years.
    /// - Throws: ``StalkCore/StalkError`` with `invalidArgument` for a value that JSON can't hold.
    public init(
        json value: some Encodable,
        headers: Headers = [:],
        delay: Duration = .zero
    ) throws(StalkError) {
        var headers = headers
        headers["content-type"] = headers["content-type"] ?? "application/json"
        do {
            let encoder = JSONEncoder()
            encoder.outputFormatting = .sortedKeys
            self.init([UInt8](try encoder.encode(value)), headers: headers, delay: delay)
        } catch {
            throw StalkError(
                .invalidArgument,
                "A \(type(of: value)) can't be written as JSON: \(describe(error))",
                cause: error
            )
        }
    }
}

extension Delivery {
    /// The body as a value.
    ///
    /// - Parameter type: What the body should be, as JSON.
    /// - Throws: ``StalkWorker/DeadLetter`` that says what does not fit, and where: another attempt would read the same.
    public func decode<Payload: Decodable>(_ type: Payload.Type) throws(DeadLetter) -> Payload {
        do {
            return try JSONDecoder().decode(type, from: Data(self.body))
        } catch {
            throw DeadLetter("the body is no \(type): \(describe(error))")
        }
    }
}

extension Worker {
    /// Makes a worker for a queue whose bodies are one type of value, as JSON.
    ///
    /// A message is acknowledged when the handler returns. A body that can't be decoded goes to the error queue with the
    /// reason, and its handler does not run.
    ///
    /// - Parameters:
    ///   - type: What bodies are.
    ///   - collector: Where messages come from.
    ///   - options: How to work.
    ///   - clock: What leases, timeouts and waits are counted by.
    ///   - logger: What the worker tells about failures, at levels up to info; `nil` for nothing.
    ///   - middleware: What stands around the handler, the first one outermost.
    ///   - until: The worker stops as in a graceful shutdown once this returns.
    ///   - handler: What to do with a payload. It should end soon after its task is cancelled.
    public convenience init<Payload: Decodable & Sendable>(
        decoding type: Payload.Type,
        from collector: any Collector,
        options: WorkerOptions = WorkerOptions(),
        clock: any Clock<Duration> = ContinuousClock(),
        logger: Logger? = nil,
        middleware: [Middleware] = [],
        until: (@Sendable () async throws -> Void)? = nil,
        handler: @escaping @Sendable (Payload, Delivery) async throws -> Void
    ) {
        self.init(
            acknowledging: collector,
            options: options,
            clock: clock,
            logger: logger,
            middleware: middleware,
            until: until
        ) { delivery in
            try await handler(delivery.decode(type), delivery)
        }
    }
}

/// What went wrong and where, without the dump that Swift makes of such errors; never a part of the body.
private func describe(_ error: any Error) -> String {
    func place(_ path: [any CodingKey], _ last: (any CodingKey)? = nil) -> String {
        let keys = (path + [last].compactMap(\.self)).map { key in key.intValue.map { "[\($0)]" } ?? key.stringValue }
        return keys.isEmpty ? "the whole" : keys.joined(separator: ".")
    }
    return switch error {
    case DecodingError.keyNotFound(let key, let context): "\(place(context.codingPath, key)) is missing"
    case DecodingError.valueNotFound(let type, let context): "\(place(context.codingPath)) is null instead of \(type)"
    case DecodingError.typeMismatch(let type, let context): "\(place(context.codingPath)) is no \(type)"
    case DecodingError.dataCorrupted(let context) where context.codingPath.isEmpty: "it is not JSON"
    case DecodingError.dataCorrupted(let context): "\(place(context.codingPath)) has no sense"
    case EncodingError.invalidValue(_, let context): "\(place(context.codingPath)) has no form in JSON"
    default: String(describing: type(of: error))
    }
}
