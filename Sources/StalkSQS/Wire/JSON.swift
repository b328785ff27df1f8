// JSON as the SQS protocol needs it: RFC 8259, bytes in, bytes out.

internal import StalkCore

/// A JSON value; numbers stay text, since the protocol's large ones are text too.
enum JSON: Hashable, Sendable {
    case null
    case bool(Bool)
    case number(String)
    case string(String)
    case array([JSON])
    case object([String: JSON])

    /// What stands under a key of an object; `nil` for everything else.
    subscript(key: String) -> JSON? {
        guard case .object(let members) = self else { return nil }
        return members[key]
    }

    /// The text of a string.
    var text: String? {
        guard case .string(let text) = self else { return nil }
        return text
    }

    /// The elements of an array; none for everything else.
    var elements: [JSON] {
        guard case .array(let elements) = self else { return [] }
        return elements
    }

    /// The members of an object; none for everything else.
    var members: [String: JSON] {
        guard case .object(let members) = self else { return [:] }
        return members
    }

    /// The whole number of a number or of a string that spells one.
    var integer: Int? {
        switch self {
        case .number(let text), .string(let text): Int(text)
        default: nil
        }
    }

    /// Whether this is `true`.
    var isTrue: Bool { self == .bool(true) }
}

extension JSON {
    /// Reads one value that fills the input.
    ///
    /// - Parameter bytes: UTF-8 text.
    /// - Throws: ``StalkError`` with `corruptValue`, naming the place.
    init(_ bytes: [UInt8]) throws(StalkError) {
        self = try bytes.withUnsafeBufferPointer { bytes throws(StalkError) in
            var parser = JSONParser(bytes: bytes)
            return try parser.document()
        }
    }
}

/// A recursive descent over bytes that outlive it.
private struct JSONParser {
    /// Answers nest three deep; more is an attack on the stack.
    private static let maxDepth = 64

    let bytes: UnsafeBufferPointer<UInt8>
    private var position = 0

    init(bytes: UnsafeBufferPointer<UInt8>) {
        self.bytes = bytes
    }

    mutating func document() throws(StalkError) -> JSON {
        let value = try self.value(depth: 0)
        self.skipSpace()
        guard self.position == self.bytes.count else { throw self.failure("more text behind the value") }
        return value
    }

    private func failure(_ what: String) -> StalkError {
        StalkError(.corruptValue, "It is not JSON: \(what) at byte \(self.position).")
    }

    private mutating func skipSpace() {
        while self.position < self.bytes.count {
            switch self.bytes[self.position] {
            case 0x20, 0x09, 0x0A, 0x0D: self.position += 1
            default: return
            }
        }
    }

    /// The next byte that is no space, without going past it.
    private mutating func peek() throws(StalkError) -> UInt8 {
        self.skipSpace()
        guard self.position < self.bytes.count else { throw self.failure("the end") }
        return self.bytes[self.position]
    }

    private mutating func take(_ byte: UInt8) throws(StalkError) -> Bool {
        guard try self.peek() == byte else { return false }
        self.position += 1
        return true
    }

    private mutating func value(depth: Int) throws(StalkError) -> JSON {
        guard depth < Self.maxDepth else { throw self.failure("too deep a nesting") }
        switch try self.peek() {
        case UInt8(ascii: "{"): return try self.object(depth: depth)
        case UInt8(ascii: "["): return try self.array(depth: depth)
        case UInt8(ascii: "\""): return .string(try self.string())
        case UInt8(ascii: "t"): return try self.word("true", .bool(true))
        case UInt8(ascii: "f"): return try self.word("false", .bool(false))
        case UInt8(ascii: "n"): return try self.word("null", .null)
        default: return try self.number()
        }
    }

    private mutating func word(_ word: StaticString, _ value: JSON) throws(StalkError) -> JSON {
        let end = self.position + word.utf8CodeUnitCount
        let isHere =
            end <= self.bytes.count
            && (self.position..<end).allSatisfy { self.bytes[$0] == word.utf8Start[$0 - self.position] }
        guard isHere else { throw self.failure("an unknown word") }
        self.position = end
        return value
    }

    private mutating func number() throws(StalkError) -> JSON {
        let start = self.position
        while self.position < self.bytes.count {
            switch self.bytes[self.position] {
            case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "+"), UInt8(ascii: "."),
                UInt8(ascii: "e"), UInt8(ascii: "E"):
                self.position += 1
                continue
            default:
                break
            }
            break
        }
        let text = String(decoding: self.bytes[start..<self.position], as: UTF8.self)
        guard Double(text) != nil else { throw self.failure("an unexpected character") }
        return .number(text)
    }

    private mutating func array(depth: Int) throws(StalkError) -> JSON {
        self.position += 1
        var elements: [JSON] = []
        if try self.take(UInt8(ascii: "]")) { return .array(elements) }
        repeat {
            elements.append(try self.value(depth: depth + 1))
        } while try self.take(UInt8(ascii: ","))
        guard try self.take(UInt8(ascii: "]")) else { throw self.failure("no end of the array") }
        return .array(elements)
    }

    private mutating func object(depth: Int) throws(StalkError) -> JSON {
        self.position += 1
        var members: [String: JSON] = [:]
        if try self.take(UInt8(ascii: "}")) { return .object(members) }
        repeat {
            guard try self.peek() == UInt8(ascii: "\"") else { throw self.failure("a key that is no string") }
            let key = try self.string()
            guard try self.take(UInt8(ascii: ":")) else { throw self.failure("no colon behind a key") }
            members[key] = try self.value(depth: depth + 1)
        } while try self.take(UInt8(ascii: ","))
        guard try self.take(UInt8(ascii: "}")) else { throw self.failure("no end of the object") }
        return .object(members)
    }

    private mutating func string() throws(StalkError) -> String {
        self.position += 1
        let start = self.position
        while self.position < self.bytes.count {
            switch self.bytes[self.position] {
            case UInt8(ascii: "\""):
                guard let text = String(validating: self.bytes[start..<self.position], as: UTF8.self) else {
                    throw self.failure("bytes that are not UTF-8 before the end of a string")
                }
                self.position += 1
                return text
            case UInt8(ascii: "\\"):
                return try self.escapedString(from: start)
            case 0..<0x20:
                throw self.failure("a control character in a string")
            default:
                self.position += 1
            }
        }
        throw self.failure("no end of a string")
    }

    /// A string that has escapes; the first stands at the present place.
    private mutating func escapedString(from start: Int) throws(StalkError) -> String {
        var text = Array(self.bytes[start..<self.position])
        while self.position < self.bytes.count {
            let byte = self.bytes[self.position]
            self.position += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let text = String(validating: text, as: UTF8.self) else {
                    throw self.failure("bytes that are not UTF-8 before the end of a string")
                }
                return text
            case UInt8(ascii: "\\"): try self.escape(into: &text)
            case 0..<0x20: throw self.failure("a control character in a string")
            default: text.append(byte)
            }
        }
        throw self.failure("no end of a string")
    }

    private mutating func escape(into text: inout [UInt8]) throws(StalkError) {
        guard self.position < self.bytes.count else { throw self.failure("the end") }
        let byte = self.bytes[self.position]
        self.position += 1
        switch byte {
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
        case UInt8(ascii: "u"):
            var unit = try self.fourDigits()
            if (0xD800..<0xDC00).contains(unit), self.position + 1 < self.bytes.count,
                self.bytes[self.position] == UInt8(ascii: "\\"), self.bytes[self.position + 1] == UInt8(ascii: "u")
            {
                self.position += 2
                let low = try self.fourDigits()
                guard (0xDC00..<0xE000).contains(low) else { throw self.failure("half of a surrogate pair") }
                unit = 0x10000 + (unit - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(unit) else { throw self.failure("half of a surrogate pair") }
            text += String(Character(scalar)).utf8
        default:
            throw self.failure("an unknown escape")
        }
    }

    private mutating func fourDigits() throws(StalkError) -> UInt32 {
        let end = self.position + 4
        guard end <= self.bytes.count,
            let unit = UInt32(String(decoding: self.bytes[self.position..<end], as: UTF8.self), radix: 16),
            self.bytes[self.position] != UInt8(ascii: "+")
        else { throw self.failure("an incomplete escape") }
        self.position = end
        return unit
    }
}
