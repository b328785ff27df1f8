// One line of `put --jsonl`.

internal import FoundationEssentials
internal import StalkCore

/// A message as one JSON object: `body` or `bodyBase64`, and perhaps `headers` and `delay`.
struct JSONMessage: Decodable {
    private static let allowedKeys = ["body", "bodyBase64", "headers", "delay"]

    private let body: [UInt8]
    private let headers: [String: String]
    private let delay: Duration?

    private struct Key: CodingKey {
        var stringValue: String
        var intValue: Int? { nil }
        init(_ name: String) { self.stringValue = name }
        init?(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }

    /// Reads a line.
    ///
    /// - Parameters:
    ///   - line: The bytes of one JSON object.
    ///   - template: What holds where the object says nothing: headers are merged, a delay is replaced.
    /// - Throws: ``StalkError`` with `invalidArgument`, saying what is not understood.
    static func message(_ line: [UInt8], template: Message) throws(StalkError) -> Message {
        let parsed: JSONMessage
        do {
            parsed = try JSONDecoder().decode(JSONMessage.self, from: Data(line))
        } catch let error as StalkError {
            throw error
        } catch let error as DecodingError {
            throw StalkError(.invalidArgument, Self.explain(error))
        } catch {
            throw StalkError(.invalidArgument, "It is not JSON.")
        }
        var message = template
        message.body = parsed.body
        message.delay = parsed.delay ?? template.delay
        for (name, value) in parsed.headers.sorted(by: { $0.key < $1.key }) { message.headers[name] = value }
        return message
    }

    init(from decoder: any Decoder) throws {
        let object = try decoder.container(keyedBy: Key.self)
        let unknown = object.allKeys.map(\.stringValue).filter { !Self.allowedKeys.contains($0) }.sorted()
        if let name = unknown.first {
            throw StalkError(
                .invalidArgument,
                "The key \(quoted(name)) is unknown: a message has body or bodyBase64, headers and delay."
            )
        }
        let text = try object.decodeIfPresent(String.self, forKey: Key("body"))
        let base64 = try object.decodeIfPresent(String.self, forKey: Key("bodyBase64"))
        switch (text, base64) {
        case (let text?, nil): self.body = Array(text.utf8)
        case (nil, let base64?): self.body = try Self.decode(base64: base64)
        case (nil, nil): throw StalkError(.invalidArgument, "It has neither body nor bodyBase64.")
        case (_?, _?): throw StalkError(.invalidArgument, "It has both body and bodyBase64: give one.")
        }
        self.headers = try object.decodeIfPresent([String: String].self, forKey: Key("headers")) ?? [:]
        self.delay = try object.decodeIfPresent(String.self, forKey: Key("delay")).map { try Duration(stalk: $0) }
    }

    private static func decode(base64: String) throws(StalkError) -> [UInt8] {
        guard let data = Data(base64Encoded: base64) else {
            throw StalkError(.invalidArgument, "Its bodyBase64 is not base64.")
        }
        return Array(data)
    }

    private static func explain(_ error: DecodingError) -> String {
        switch error {
        case .typeMismatch(_, let context), .valueNotFound(_, let context):
            let path = context.codingPath.map(\.stringValue).joined(separator: ".")
            return path.isEmpty
                ? "It is JSON, but not an object."
                : "The value of \(quoted(path)) has the wrong type: body, bodyBase64, delay and each header are strings."
        default:
            return "It is not JSON."
        }
    }
}
