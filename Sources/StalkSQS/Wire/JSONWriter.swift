// JSON out, straight into the bytes of a request.

/// Writes JSON member by member; commas come by themselves.
struct JSONWriter {
    private(set) var bytes: [UInt8] = []
    /// Whether the next value or key needs a comma in front.
    private var needsComma = false

    mutating func object(_ body: (inout JSONWriter) -> Void) {
        self.bracketed(UInt8(ascii: "{"), UInt8(ascii: "}"), body)
    }

    mutating func array(_ body: (inout JSONWriter) -> Void) {
        self.bracketed(UInt8(ascii: "["), UInt8(ascii: "]"), body)
    }

    mutating func key(_ key: String) {
        self.comma()
        self.quote(key)
        self.bytes.append(UInt8(ascii: ":"))
        self.needsComma = false
    }

    mutating func string(_ text: String, asciiOnly: Bool = false) {
        self.comma()
        if asciiOnly { self.quoteAsASCII(text) } else { self.quote(text) }
        self.needsComma = true
    }

    mutating func integer(_ value: Int) { self.literal(String(value)) }

    /// Text that is JSON already, such as a number.
    mutating func literal(_ text: String) {
        self.comma()
        self.bytes += text.utf8
        self.needsComma = true
    }

    /// A member whose value is text; nothing for `nil`.
    mutating func member(_ key: String, _ text: String?) {
        guard let text else { return }
        self.key(key)
        self.string(text)
    }

    /// A member whose value is a number; nothing for `nil`.
    mutating func member(_ key: String, _ value: Int?) {
        guard let value else { return }
        self.key(key)
        self.integer(value)
    }

    /// A member whose value is a list of texts.
    mutating func member(_ key: String, _ texts: [String]) {
        self.key(key)
        self.array { for text in texts { $0.string(text) } }
    }

    private mutating func bracketed(_ open: UInt8, _ close: UInt8, _ body: (inout JSONWriter) -> Void) {
        self.comma()
        self.bytes.append(open)
        self.needsComma = false
        body(&self)
        self.bytes.append(close)
        self.needsComma = true
    }

    private mutating func comma() {
        if self.needsComma { self.bytes.append(UInt8(ascii: ",")) }
    }

    private mutating func quote(_ text: String) {
        self.bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                self.bytes.append(UInt8(ascii: "\\"))
                self.bytes.append(byte)
            case 0..<0x20: self.escape(UInt16(byte))
            default: self.bytes.append(byte)
            }
        }
        self.bytes.append(UInt8(ascii: "\""))
    }

    /// Everything but printable ASCII is escaped, so that the text itself may stand where control characters may not.
    private mutating func quoteAsASCII(_ text: String) {
        self.bytes.append(UInt8(ascii: "\""))
        for unit in text.utf16 {
            switch unit {
            case 0x22, 0x5C:
                self.bytes.append(UInt8(ascii: "\\"))
                self.bytes.append(UInt8(unit))
            case 0x20..<0x7F: self.bytes.append(UInt8(unit))
            default: self.escape(unit)
            }
        }
        self.bytes.append(UInt8(ascii: "\""))
    }

    private mutating func escape(_ unit: UInt16) {
        let digits = String(unit, radix: 16)
        self.bytes += "\\u\(String(repeating: "0", count: 4 - digits.count))\(digits)".utf8
    }
}
