// The naming rule of queues, shared by every collector and by the command line.

/// The name of a queue: 1 to 200 bytes of `[A-Za-z0-9._-]`, with no leading `.` or `-`.
public struct QueueName: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The longest name, in bytes.
    public static var maxBytes: Int { 200 }

    /// The name as text.
    public let rawValue: String

    /// Checks and takes a name.
    ///
    /// - Parameter name: The name to check.
    /// - Throws: ``StalkError`` with ``StalkError/Code/invalidQueueName``, naming the byte that is not allowed.
    public init(_ name: String) throws(StalkError) {
        guard !name.isEmpty else {
            throw StalkError(.invalidQueueName, "A queue name can't be empty: give 1 to 200 bytes of [A-Za-z0-9._-].")
        }
        for (position, byte) in name.utf8.enumerated() {
            let isAllowed = Self.isAllowed(byte) && !(position == 0 && Self.isRefusedFirst(byte))
            guard isAllowed else {
                let why = position == 0 && Self.isRefusedFirst(byte) ? "can't stand first" : "is not allowed"
                throw StalkError(
                    .invalidQueueName,
                    "The queue name \(quoted(name)) has the byte \(describe(byte)) at position \(position), which \(why): "
                        + "use [A-Za-z0-9._-], not starting with '.' or '-'."
                )
            }
        }
        guard name.utf8.count <= Self.maxBytes else {
            throw StalkError(
                .invalidQueueName,
                "The queue name is \(name.utf8.count) bytes long: at most \(Self.maxBytes) are allowed."
            )
        }
        self.rawValue = name
    }

    /// Takes a name that was checked when it was stored.
    package init(stored name: String) {
        self.rawValue = name
    }

    /// The name as text.
    public var description: String { self.rawValue }

    /// Orders names by their bytes.
    public static func < (left: QueueName, right: QueueName) -> Bool {
        left.rawValue < right.rawValue
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
            true
        default:
            false
        }
    }

    private static func isRefusedFirst(_ byte: UInt8) -> Bool {
        byte == UInt8(ascii: ".") || byte == UInt8(ascii: "-")
    }
}

/// A byte as a person can read it: its hexadecimal value, and the character where it is printable.
package func describe(_ byte: UInt8) -> String {
    let hex = "0x" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
    guard (0x21...0x7E).contains(byte) else { return hex }
    return "\(hex) ('\(Character(UnicodeScalar(byte)))')"
}

/// A text in quotes, without control characters, cut at 80 characters.
package func quoted(_ text: String) -> String {
    let shown = text.prefix(80).unicodeScalars.map { scalar in
        scalar.value < 0x20 || scalar.value == 0x7F ? "\\u{\(String(scalar.value, radix: 16))}" : String(scalar)
    }
    return "\"\(shown.joined())\(text.count > 80 ? "…" : "")\""
}
