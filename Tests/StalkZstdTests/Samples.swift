import StalkCore
import StalkTesting
import StalkZstd
import Testing

enum Samples {
    /// Bytes that nothing can compress.
    static func random(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
        var generator = SeededGenerator(seed: seed)
        let words = (0..<(count + 7) / 8).map { _ in generator.next() }
        return words.withUnsafeBytes { bytes in Array(bytes.prefix(count)) }
    }

    /// Words in random order.
    static func text(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
        let words = ["queue", "message", "deliver", "lease", "retry", "attempt", "store", "wheel", "log", "index"]
        var generator = SeededGenerator(seed: seed)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count {
            bytes.append(contentsOf: words[Int.random(in: words.indices, using: &generator)].utf8)
            bytes.append(UInt8(ascii: " "))
        }
        return Array(bytes.prefix(count))
    }

    /// Something like a record of a package index: the same fields each time, other values.
    static func record(_ seed: UInt64) -> [UInt8] {
        let topics = ["network", "parser", "graphics", "database", "logging", "testing", "crypto", "editor"]
        var generator = SeededGenerator(seed: seed)
        func number(_ limit: Int) -> Int { Int.random(in: 0..<limit, using: &generator) }
        func word() -> String {
            String((0..<4 + number(6)).map { _ in Character(UnicodeScalar(97 + UInt8(number(26)))) })
        }
        let name = "\(word())-\(word())"
        let topic = topics[number(topics.count)]
        let text = """
            {"type":"package","name":"\(name)","version":"\(number(9)).\(number(30)).\(number(99))",\
            "summary":"A small library for \(topic) in Swift: \(word()) \(word()) \(word())",\
            "repository":{"type":"git","url":"https://github.com/\(word())/\(name).git"},\
            "keywords":["swift","\(topic)","\(word())"],"license":"\(number(2) == 0 ? "MIT" : "Apache-2.0")",\
            "maintainers":[{"name":"\(word())","email":"\(word())@example.com"}],\
            "dependencies":{"swift-nio":">= 2.\(number(90)).0","swift-log":">= 1.\(number(9)).0"},\
            "published":"20\(10 + number(16))-0\(1 + number(9))-\(10 + number(18))T12:\(10 + number(49)):00Z",\
            "downloads":\(number(1_000_000)),"archive":{"bytes":\(number(9_999_999)),"sha256":"\(word())\(word())"}}
            """
        return Array(text.utf8)
    }
}

/// Takes the body out of an envelope that needs no dictionary.
func body(of envelope: [UInt8], maxBytes: Int = 2 << 20) throws -> [UInt8] {
    try Decompressor().body(of: envelope, maxBytes: maxBytes) { id throws(StalkError) in
        throw StalkError(.noSuchMessage, "dictionary \(id)")
    }
}

extension Decompressor {
    func body(
        of envelope: [UInt8],
        maxBytes: Int,
        dictionary: (UInt32) throws(StalkError) -> DecompressionDictionary
    ) throws(StalkError) -> [UInt8] {
        try envelope.withUnsafeBufferPointer { bytes throws(StalkError) in
            try self.body(of: UnsafeRawBufferPointer(bytes), maxBytes: maxBytes, dictionary: dictionary)
        }
    }
}

/// The code of the ``StalkError`` that `body` throws, or nil if it throws none.
func code(_ body: () throws -> Void) -> StalkError.Code? {
    do {
        try body()
        return nil
    } catch let error as StalkError {
        return error.code
    } catch {
        Issue.record("Not a StalkError: \(error)")
        return nil
    }
}
