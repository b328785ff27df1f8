// The id that a message keeps on its whole way, whoever carries it.

internal import StalkCore

/// The headers that forwarding uses.
enum FailoverHeader {
    /// The id that a message keeps over all its copies.
    static let id = "Stalk-Id"
    /// What SQS FIFO queues take for the same message.
    static let deduplicationID = "Stalk-Deduplication-Id"
    /// What must stay in order.
    static let group = "Stalk-Group"
    /// In the spool alone: which process counts the message among those that wait.
    static let spool = "Stalk-Spool"
    /// In the spool alone: when the message is due, in milliseconds since 1970.
    static let due = "Stalk-Due"
    /// In the spool alone: when a send of it was lost without an answer, in milliseconds since 1970.
    static let doubt = "Stalk-Doubt"
}

/// An identifier in the form of RFC 9562, version 7: by time, then random.
func stableID(at wall: Timestamp, using generator: inout some RandomNumberGenerator) -> String {
    let time = UInt64(max(wall.millisecondsSince1970, 0)) & 0xFFFF_FFFF_FFFF
    let high = time << 16 | 0x7000 | UInt64.random(in: 0...0x0FFF, using: &generator)
    let low = 0x8000_0000_0000_0000 | UInt64.random(in: 0...0x3FFF_FFFF_FFFF_FFFF, using: &generator)
    let digits = Array(hexadecimal(high) + hexadecimal(low))
    return [0..<8, 8..<12, 12..<16, 16..<20, 20..<32].map { String(digits[$0]) }.joined(separator: "-")
}

private func hexadecimal(_ number: UInt64) -> String {
    let digits = String(number, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}
