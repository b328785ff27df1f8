// The little JSON that NSQ needs: the answers of IDENTIFY and nsqlookupd, and what IDENTIFY sends. No Foundation for it.

/// A JSON value.
package indirect enum JSON: Hashable, Sendable {
    case null
    case bool(Bool)
    case number(Double)
    case string(String)
    case array([JSON])
    case object([String: JSON])

    /// Text that is no JSON.
    package struct Malformed: Error {}

    package subscript(key: String) -> JSON? {
        guard case .object(let members) = self else { return nil }
        return members[key]
    }

    package var string: String? {
        guard case .string(let text) = self else { return nil }
        return text
    }

    package var integer: Int? {
        guard case .number(let number) = self else { return nil }
        return Int(exactly: number.rounded(.towardZero))
    }

    package var bool: Bool? {
        guard case .bool(let value) = self else { return nil }
        return value
    }

    package var array: [JSON]? {
        guard case .array(let elements) = self else { return nil }
        return elements
    }

    /// Reads a document, at most 64 levels deep.
    package init(parsing bytes: some Collection<UInt8>) throws(Malformed) {
        var parser = Parser(bytes: Array(bytes))
        self = try parser.document()
    }

    /// The value as text; the members of an object by name.
    package var text: String {
        switch self {
        case .null: "null"
        case .bool(let value): value ? "true" : "false"
        case .number(let number): Int(exactly: number).map(String.init) ?? String(number)
        case .string(let text): Self.quoted(text)
        case .array(let elements): "[" + elements.map(\.text).joined(separator: ",") + "]"
        case .object(let members):
            "{"
                + members.sorted { $0.key < $1.key }.map { "\(Self.quoted($0.key)):\($0.value.text)" }
                .joined(separator: ",") + "}"
        }
    }

    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": result += "\\\(scalar)"
            case _ where scalar.value < 0x20:
                let hex = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }

    private struct Parser {
        private static let maxDepth = 64

        let bytes: [UInt8]
        var position = 0
        var depth = 0

        init(bytes: [UInt8]) {
            self.bytes = bytes
        }

        mutating func document() throws(Malformed) -> JSON {
            let value = try self.value()
            self.skipSpace()
            guard self.position == self.bytes.count else { throw Malformed() }
            return value
        }

        private var next: UInt8? { self.position < self.bytes.count ? self.bytes[self.position] : nil }

        private mutating func skipSpace() {
            while let byte = self.next, [0x20, 0x09, 0x0A, 0x0D].contains(byte) { self.position += 1 }
        }

        private mutating func take(_ text: StaticString) -> Bool {
            let wanted = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
            guard self.bytes[self.position...].starts(with: wanted) else { return false }
            self.position += wanted.count
            return true
        }

        private mutating func value() throws(Malformed) -> JSON {
            self.skipSpace()
            self.depth += 1
            defer { self.depth -= 1 }
            guard self.depth <= Self.maxDepth, let byte = self.next else { throw Malformed() }
            switch byte {
            case UInt8(ascii: "{"): return try self.object()
            case UInt8(ascii: "["): return try self.array()
            case UInt8(ascii: "\""): return .string(try self.string())
            default:
                if self.take("true") { return .bool(true) }
                if self.take("false") { return .bool(false) }
                if self.take("null") { return .null }
                return try self.number()
            }
        }

        private mutating func object() throws(Malformed) -> JSON {
            self.position += 1
            var members: [String: JSON] = [:]
            self.skipSpace()
            if self.take("}") { return .object(members) }
            while true {
                self.skipSpace()
                guard self.next == UInt8(ascii: "\"") else { throw Malformed() }
                let name = try self.string()
                self.skipSpace()
                guard self.take(":") else { throw Malformed() }
                members[name] = try self.value()
                self.skipSpace()
                if self.take("}") { return .object(members) }
                guard self.take(",") else { throw Malformed() }
            }
        }

        private mutating func array() throws(Malformed) -> JSON {
            self.position += 1
            var elements: [JSON] = []
            self.skipSpace()
            if self.take("]") { return .array(elements) }
            while true {
                elements.append(try self.value())
                self.skipSpace()
                if self.take("]") { return .array(elements) }
                guard self.take(",") else { throw Malformed() }
            }
        }

        private mutating func number() throws(Malformed) -> JSON {
            let digits = self.bytes[self.position...].prefix {
                (0x30...0x39).contains($0) || [0x2B, 0x2D, 0x2E, 0x45, 0x65].contains($0)
            }
            guard let number = Double(String(decoding: digits, as: UTF8.self)) else { throw Malformed() }
            self.position += digits.count
            return .number(number)
        }

        private mutating func string() throws(Malformed) -> String {
            self.position += 1
            var text: [UInt8] = []
            while let byte = self.next {
                self.position += 1
                switch byte {
                case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
                case UInt8(ascii: "\\"): text += try self.escape()
                default: text.append(byte)
                }
            }
            throw Malformed()
        }

        private mutating func escape() throws(Malformed) -> [UInt8] {
            guard let byte = self.next else { throw Malformed() }
            self.position += 1
            switch byte {
            case UInt8(ascii: "n"): return [0x0A]
            case UInt8(ascii: "t"): return [0x09]
            case UInt8(ascii: "r"): return [0x0D]
            case UInt8(ascii: "b"): return [0x08]
            case UInt8(ascii: "f"): return [0x0C]
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
            case UInt8(ascii: "u"):
                var units = [try self.codeUnit()]
                if UTF16.isLeadSurrogate(units[0]), self.take("\\u") { units.append(try self.codeUnit()) }
                return Array(String(decoding: units, as: UTF16.self).utf8)
            default: throw Malformed()
            }
        }

        private mutating func codeUnit() throws(Malformed) -> UInt16 {
            let digits = self.bytes[self.position...].prefix(4)
            guard digits.count == 4, let unit = UInt16(String(decoding: digits, as: UTF8.self), radix: 16) else {
                throw Malformed()
            }
            self.position += 4
            return unit
        }
    }
}
