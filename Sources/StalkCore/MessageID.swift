// What names a message, and what proves that one holds a lease on it.

/// The identity of a message, unique within its collector and stable over its retries.
///
/// To everybody but the collector that issued it, an id is opaque text.
public struct MessageID: Hashable, Sendable, CustomStringConvertible {
    /// The id as text, without spaces.
    public let rawValue: String

    /// Takes an id as the collector printed it.
    public init(_ rawValue: String) {
        self.rawValue = rawValue
    }

    /// The id as text.
    public var description: String { self.rawValue }
}

/// The fencing token of one delivery: only the receipt of the current lease can finish or extend it.
///
/// A receipt of an expired lease is refused as stale. To everybody but the collector that issued it, a receipt
/// is opaque; ``description`` gives it as text, and ``init(_:)`` takes it back.
public struct Receipt: Hashable, Sendable, CustomStringConvertible {
    /// The local engine's receipts stay three numbers, since making a string for each delivery costs more than the
    /// delivery; a broker's receipt is its own string.
    package enum Token: Hashable, Sendable {
        case local(store: UInt64, sequence: UInt64, lease: UInt64)
        case opaque(String)
    }

    package let token: Token

    package init(token: Token) {
        self.token = token
    }

    /// Takes a receipt as ``description`` printed it, or as a broker issued it.
    public init(_ text: String) {
        // Only what `description` prints is a local receipt: "stalk-01-2-3" would come out as another text than it went in.
        if let token = Self.parse(text), Receipt(token: token).description == text {
            self.token = token
        } else {
            self.token = .opaque(text)
        }
    }

    /// The receipt as text, without spaces.
    public var description: String {
        switch self.token {
        case .local(let store, let sequence, let lease):
            "stalk-\(String(store, radix: 16))-\(String(sequence, radix: 16))-\(String(lease, radix: 16))"
        case .opaque(let text):
            text
        }
    }

    private static func parse(_ text: String) -> Token? {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 4, parts[0] == "stalk",
            let store = UInt64(parts[1], radix: 16),
            let sequence = UInt64(parts[2], radix: 16),
            let lease = UInt64(parts[3], radix: 16)
        else { return nil }
        return .local(store: store, sequence: sequence, lease: lease)
    }
}
