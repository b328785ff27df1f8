// Bodies to write and to compress, the same in every run.

/// Bodies of two kinds: text that is alike from one to the next, and bytes that nothing can compress.
public enum Records {
    private static let words = [
        "library", "development", "files", "common", "documentation", "python", "perl", "tools", "daemon", "client",
        "server", "runtime", "headers", "plugin", "font", "theme", "parser", "network", "kernel", "module",
        "interface", "utilities", "graphical", "terminal", "protocol", "secure", "fast", "shared", "static", "debug",
    ]

    /// Made-up package records, about 790 bytes each.
    ///
    /// - Parameters:
    ///   - count: How many.
    ///   - seed: Which ones.
    public static func text(_ count: Int, seed: UInt64 = 1) -> [[UInt8]] {
        var generator = SeededGenerator(seed: seed)
        func number(_ most: Int) -> Int { Int.random(in: 0..<most, using: &generator) }
        func word() -> String { Self.words[number(Self.words.count)] }
        func version() -> String { "\(number(9)).\(number(40)).\(number(20))-\(1 + number(5))" }
        func digest() -> String { (0..<4).map { _ in String(generator.next() | 1 << 63, radix: 16) }.joined() }
        return (0..<count).map { _ in
            let name = "\(word())-\(word())\(number(30))"
            let depends = (0..<2 + number(5)).map { _ in "lib\(word())\(number(9)) (>= \(version()))" }
            let description = (0..<22 + number(30)).map { _ in word() }
            return Array(
                """
                Package: \(name)
                Version: \(version())
                Installed-Size: \(number(90_000))
                Maintainer: \(word()) maintainers <\(word())-team@lists.example.org>
                Architecture: amd64
                Depends: \(depends.joined(separator: ", "))
                Description: \(description.joined(separator: " "))
                Homepage: https://\(word()).example.org/\(name)
                Section: \(word())
                Filename: pool/main/\(name.prefix(1))/\(name)/\(name)_\(version())_amd64.deb
                Size: \(number(9_000_000))
                SHA256: \(digest())
                """.utf8
            )
        }
    }

    /// Random bytes.
    ///
    /// - Parameters:
    ///   - count: How many bodies.
    ///   - bytes: The size of each, a multiple of eight.
    public static func random(_ count: Int, bytes: Int) -> [[UInt8]] {
        var generator = SeededGenerator(seed: 2)
        return (0..<count).map { _ in
            (0..<bytes / 8).flatMap { _ in withUnsafeBytes(of: generator.next().littleEndian) { Array($0) } }
        }
    }
}
