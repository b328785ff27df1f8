// JSON as scripts want it: one line, keys in a fixed order, numbers exact.

internal import FoundationEssentials
internal import StalkCore

/// A JSON value whose objects keep the order of their keys.
enum JSONValue: Hashable, Sendable {
    case null
    case bool(Bool)
    case integer(Int64)
    /// A number with so many decimals.
    case decimal(Double, places: Int)
    case string(String)
    case array([JSONValue])
    case object([Member])

    /// One key of an object with its value.
    struct Member: Hashable, Sendable {
        var key: String
        var value: JSONValue

        init(_ key: String, _ value: JSONValue) {
            self.key = key
            self.value = value
        }
    }

    /// The value on one line, with a newline at the end.
    var line: [UInt8] {
        var bytes: [UInt8] = []
        self.append(to: &bytes)
        bytes.append(UInt8(ascii: "\n"))
        return bytes
    }

    /// Appends the value's text, without any newline.
    func append(to bytes: inout [UInt8]) {
        switch self {
        case .null: bytes += "null".utf8
        case .bool(let value): bytes += (value ? "true" : "false").utf8
        case .integer(let value): bytes += String(value).utf8
        case .decimal(let value, let places): bytes += decimalText(value, places: places).utf8
        case .string(let text): Self.append(text, to: &bytes)
        case .array(let values):
            Self.append(values, between: ("[", "]"), to: &bytes) { value, bytes in value.append(to: &bytes) }
        case .object(let members):
            Self.append(members, between: ("{", "}"), to: &bytes) { member, bytes in
                Self.append(member.key, to: &bytes)
                bytes.append(UInt8(ascii: ":"))
                member.value.append(to: &bytes)
            }
        }
    }

    private static func append<Element>(
        _ elements: [Element],
        between brackets: (open: Unicode.Scalar, close: Unicode.Scalar),
        to bytes: inout [UInt8],
        _ write: (Element, inout [UInt8]) -> Void
    ) {
        bytes.append(UInt8(ascii: brackets.open))
        for (index, element) in elements.enumerated() {
            if index > 0 { bytes.append(UInt8(ascii: ",")) }
            write(element, &bytes)
        }
        bytes.append(UInt8(ascii: brackets.close))
    }

    /// RFC 8259 section 7: quotes, backslashes and control characters are escaped, everything else stands as UTF-8.
    private static func append(_ text: String, to bytes: inout [UInt8]) {
        bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""): bytes += "\\\"".utf8
            case UInt8(ascii: "\\"): bytes += "\\\\".utf8
            case UInt8(ascii: "\n"): bytes += "\\n".utf8
            case UInt8(ascii: "\r"): bytes += "\\r".utf8
            case UInt8(ascii: "\t"): bytes += "\\t".utf8
            case 0..<0x20: bytes += "\\u00\(byte < 0x10 ? "0" : "1")\(String(byte & 0xF, radix: 16))".utf8
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }
}

extension JSONValue {
    /// A number.
    static func number(_ value: Int) -> JSONValue { .integer(Int64(value)) }

    /// A moment, as RFC 3339 text.
    static func time(_ value: Timestamp) -> JSONValue { .string(value.description) }

    /// Headers as an object, in their order.
    static func headers(_ headers: Headers) -> JSONValue {
        .object(headers.map { Member($0.name, .string($0.value)) })
    }
}

extension JSONValue.Member {
    /// A body: `body` with text, or `bodyBase64` where the bytes are not UTF-8.
    static func body(_ bytes: [UInt8]) -> Self {
        if let text = String(validating: bytes, as: UTF8.self) {
            return Self("body", .string(text))
        }
        return Self("bodyBase64", .string(Data(bytes).base64EncodedString()))
    }
}
