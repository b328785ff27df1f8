// The last words of a command, which are the reason of its failure.

internal import StalkCore

/// Keeps the end of what a command wrote to its standard error.
final class StderrTail: Sendable {
    /// The longest reason, in bytes.
    static let maxBytes = 1024

    private let bytes = Locked<[UInt8]>([])

    /// Takes more.
    func append(_ chunk: [UInt8]) {
        self.bytes.withLock { bytes in
            bytes += chunk
            // One more byte tells whether the text begins in the middle of a line.
            let surplus = bytes.count - (Self.maxBytes + 1)
            if surplus > 0 { bytes.removeFirst(surplus) }
        }
    }

    /// The last lines, whole ones where they fit, without the newline at their end.
    var text: String {
        let kept = self.bytes.withLock { $0 }
        var lines = kept[...]
        while let last = lines.last, Self.isSpace(last) { lines.removeLast() }
        if kept.count > Self.maxBytes {
            if let newline = lines.firstIndex(of: UInt8(ascii: "\n")) {
                lines = lines[(newline + 1)...]
            } else {
                lines = lines.dropFirst().drop { $0 & 0xC0 == 0x80 }
            }
        }
        return String(decoding: lines, as: UTF8.self)
    }

    private static func isSpace(_ byte: UInt8) -> Bool {
        byte == 0x20 || (0x09...0x0D).contains(byte)
    }
}
