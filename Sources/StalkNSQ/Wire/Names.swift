// The naming rule of topics and channels, checked here because nsqd cuts a bad name at its first space in silence.

internal import StalkCore

/// What nsqd calls a topic or a channel: 1 to 64 bytes of `[.a-zA-Z0-9_-]`, with `#ephemeral` behind it at most.
struct NSQName {
    static let maxBytes = 64
    static let ephemeralSuffix = "#ephemeral"

    /// Checks a name.
    ///
    /// - Parameters:
    ///   - name: The name.
    ///   - what: What it names, for the error's sentence.
    /// - Throws: ``StalkError`` with `invalidQueueName`.
    static func validate(_ name: String, _ what: String) throws(StalkError) {
        guard (1...Self.maxBytes).contains(name.utf8.count) else {
            throw StalkError(
                .invalidQueueName,
                "The \(what) \(quoted(name)) has \(name.utf8.count) bytes: NSQ allows 1 to \(Self.maxBytes)."
            )
        }
        for (position, byte) in Self.stem(of: name).utf8.enumerated() where !Self.isAllowed(byte) {
            throw StalkError(
                .invalidQueueName,
                "The \(what) \(quoted(name)) has the byte \(describe(byte)) at position \(position): "
                    + "NSQ allows [.a-zA-Z0-9_-], and #ephemeral at the end."
            )
        }
        guard !Self.stem(of: name).isEmpty else {
            throw StalkError(.invalidQueueName, "The \(what) \(quoted(name)) has nothing before #ephemeral.")
        }
    }

    /// The name without `#ephemeral`.
    static func stem(of name: String) -> String {
        name.hasSuffix(Self.ephemeralSuffix) ? String(name.dropLast(Self.ephemeralSuffix.count)) : name
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
}
