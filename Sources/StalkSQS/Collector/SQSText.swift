// What SQS takes as text, base64 for the rest, and the checksums it answers with.

internal import Crypto

/// The rules for text.
enum SQSText {
    /// Whether the bytes are UTF-8 of characters that XML 1.0 allows: only those may stand in a body.
    static func isLegal(_ bytes: [UInt8]) -> Bool {
        var hasHigh = false
        for byte in bytes {
            if byte < 0x20, byte != 0x09, byte != 0x0A, byte != 0x0D { return false }
            if byte >= 0x80 { hasHigh = true }
        }
        guard hasHigh else { return true }
        guard let text = String(validating: bytes, as: UTF8.self) else { return false }
        return text.unicodeScalars.allSatisfy { $0.value != 0xFFFE && $0.value != 0xFFFF }
    }

    /// Whether a header's name may be an attribute's: some beginnings are reserved, and periods may not stand anywhere.
    static func isAttributeName(_ name: String) -> Bool {
        let lower = name.lowercased()
        return !lower.hasPrefix("aws.") && !lower.hasPrefix("amazon.") && !lower.hasPrefix("stalk-encoding")
            && !lower.hasPrefix("stalk-headers") && !name.hasSuffix(".") && !name.contains("..") && lower != "retries"
    }

    /// Whether a text may be a group's or deduplication's id, or a trace header: printable ASCII, 1 to 128.
    static func isToken(_ text: String) -> Bool {
        (1...128).contains(text.utf8.count) && text.utf8.allSatisfy { (0x21...0x7E).contains($0) }
    }
}

/// Base64 of RFC 4648, with padding.
enum Base64 {
    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    private static let values: [UInt8] = {
        var values = [UInt8](repeating: 0xFF, count: 256)
        for (value, byte) in Self.alphabet.enumerated() { values[Int(byte)] = UInt8(value) }
        return values
    }()

    static func encode(_ bytes: [UInt8]) -> String {
        String(unsafeUninitializedCapacity: (bytes.count + 2) / 3 * 4) { text in
            var place = 0
            for start in stride(from: 0, to: bytes.count, by: 3) {
                let count = min(3, bytes.count - start)
                var group: UInt32 = 0
                for offset in 0..<3 { group = group << 8 | (offset < count ? UInt32(bytes[start + offset]) : 0) }
                for offset in 0..<4 {
                    let digit = Self.alphabet[Int(group >> UInt32(18 - 6 * offset) & 63)]
                    text[place] = offset <= count ? digit : UInt8(ascii: "=")
                    place += 1
                }
            }
            return place
        }
    }

    /// The bytes; `nil` for what is no base64.
    static func decode(_ text: String) -> [UInt8]? {
        let digits = Array(text.utf8)
        guard digits.count % 4 == 0 else { return nil }
        let padding = digits.suffix(2).filter { $0 == UInt8(ascii: "=") }.count
        guard padding < 2 || digits.last == UInt8(ascii: "=") else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(digits.count / 4 * 3)
        for start in stride(from: 0, to: digits.count, by: 4) {
            var group: UInt32 = 0
            let isLast = start + 4 == digits.count
            for offset in 0..<4 {
                let isPadding = isLast && offset >= 4 - padding
                let value = isPadding ? 0 : Self.values[Int(digits[start + offset])]
                guard value < 64 else { return nil }
                group = group << 6 | UInt32(value)
            }
            for offset in 0..<(isLast ? 3 - padding : 3) {
                bytes.append(UInt8(truncatingIfNeeded: group >> UInt32(16 - 8 * offset)))
            }
        }
        return bytes
    }
}

/// The MD5 sums by which SQS says what it stored.
enum MessageSum {
    static func ofBody(_ body: String) -> String { Signer.hex(Insecure.MD5.hash(data: Array(body.utf8))) }

    /// The sum of attributes as they are sent, all of them strings.
    static func ofAttributes(_ attributes: [EncodedMessage.Attribute]) -> String {
        var bytes: [UInt8] = []
        for attribute in attributes.sorted(by: { $0.name < $1.name }) {
            self.append(attribute.name.utf8, to: &bytes)
            self.append("String".utf8, to: &bytes)
            bytes.append(1)
            self.append(attribute.value.utf8, to: &bytes)
        }
        return Signer.hex(Insecure.MD5.hash(data: bytes))
    }

    /// The sum of attributes as they were received; `nil` where one has neither text nor bytes.
    static func ofAttributes(_ attributes: [String: JSON]) -> String? {
        var bytes: [UInt8] = []
        for (name, attribute) in attributes.sorted(by: { $0.key < $1.key }) {
            self.append(name.utf8, to: &bytes)
            self.append((attribute["DataType"]?.text ?? "").utf8, to: &bytes)
            if let text = attribute["StringValue"]?.text {
                bytes.append(1)
                self.append(text.utf8, to: &bytes)
            } else if let value = attribute["BinaryValue"]?.text.flatMap({ Base64.decode($0) }) {
                bytes.append(2)
                self.append(value, to: &bytes)
            } else {
                return nil
            }
        }
        return Signer.hex(Insecure.MD5.hash(data: bytes))
    }

    private static func append(_ part: some Collection<UInt8>, to bytes: inout [UInt8]) {
        for shift in [24, 16, 8, 0] { bytes.append(UInt8(truncatingIfNeeded: part.count >> shift)) }
        bytes += part
    }
}
