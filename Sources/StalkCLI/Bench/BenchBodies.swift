// What is published: bytes that nothing can compress, and real records.

internal import Subprocess

/// Bodies to publish, as many different ones as fit into little memory.
struct BenchBodies: Sendable {
    /// What the report calls them.
    let name: String
    /// Where they come from.
    let origin: String
    private let bytes: [UInt8]
    private let ranges: [Range<Int>]

    var count: Int { self.ranges.count }
    /// The mean size in bytes.
    var meanBytes: Double { Double(self.bytes.count) / Double(self.ranges.count) }

    private init(name: String, origin: String, bodies: [some Collection<UInt8>]) {
        self.name = name
        self.origin = origin
        var bytes: [UInt8] = []
        self.ranges = bodies.map { body in
            bytes += body
            return bytes.count - body.count..<bytes.count
        }
        self.bytes = bytes
    }

    /// Memory of its own for each, as a publisher's would have.
    subscript(number: Int) -> [UInt8] {
        Array(self.bytes[self.ranges[number % self.ranges.count]])
    }

    /// Random bytes, 1 KiB each.
    static func random() -> BenchBodies {
        var generator = SystemRandomNumberGenerator()
        let bodies = (0..<4096).map { _ in
            (0..<128).flatMap { _ in withUnsafeBytes(of: generator.next()) { Array($0) } }
        }
        return BenchBodies(name: "random", origin: "random bytes, 1,024 each", bodies: bodies)
    }

    /// Package records of this machine, about 800 bytes of text each.
    static func records() async -> BenchBodies {
        let atMost = 16_384
        for (origin, text) in [
            ("package records from apt-cache dumpavail", await Self.availablePackages()),
            ("package records from /var/lib/dpkg/status", readText("/var/lib/dpkg/status")),
        ] {
            let records = Self.split(text ?? "")
            guard records.count >= 256 else { continue }
            // Spread over all, since neighbours resemble each other more than messages do.
            let step = max(1, records.count / atMost)
            let kept = stride(from: 0, to: records.count, by: step).prefix(atMost).map { records[$0] }
            return BenchBodies(name: "records", origin: origin, bodies: kept)
        }
        return .madeUp()
    }

    static func madeUp() -> BenchBodies {
        BenchBodies(
            name: "records",
            origin: "made-up package records: no package database was found here",
            bodies: Self.madeUpRecords(4096)
        )
    }

    private static func availablePackages() async -> String? {
        let outcome = try? await Subprocess.run(
            .name("apt-cache"),
            arguments: ["dumpavail"],
            output: .bytes(limit: 256 << 20),
            error: .discarded
        )
        guard let outcome, outcome.terminationStatus.isSuccess else { return nil }
        return String(decoding: outcome.standardOutput, as: UTF8.self)
    }

    /// Splits text at blank lines.
    private static func split(_ text: String) -> [Substring.UTF8View] {
        let bytes = text.utf8
        var records: [Substring.UTF8View] = []
        var start = bytes.startIndex
        var index = start
        var last: UInt8 = 0
        while index < bytes.endIndex {
            let byte = bytes[index]
            let next = bytes.index(after: index)
            if byte == 0x0A, last == 0x0A {
                if start < index { records.append(bytes[start..<index]) }
                start = next
            }
            last = byte
            index = next
        }
        return records
    }

    static func madeUpRecords(_ count: Int) -> [[UInt8]] {
        var generator = Xorshift()
        let words = [
            "library", "development", "files", "common", "documentation", "python", "perl", "tools", "daemon", "client",
            "server", "runtime", "headers", "plugin", "font", "theme", "parser", "network", "kernel", "module",
            "interface", "utilities", "graphical", "terminal", "protocol", "secure", "fast", "shared", "static",
            "debug",
        ]
        func word() -> String { words[Int.random(in: 0..<words.count, using: &generator)] }
        func number(_ most: Int) -> Int { Int.random(in: 0..<most, using: &generator) }
        func digest() -> String {
            (0..<4).map { _ in String(generator.next() | 1 << 63, radix: 16) }.joined()
        }
        func version() -> String { "\(number(9)).\(number(40)).\(number(20))-\(1 + number(5))" }
        return (0..<count).map { _ in
            let name = "\(word())-\(word())\(number(30))"
            let depends = (0..<2 + number(5)).map { _ in "lib\(word())\(number(9)) (>= \(version()))" }
            let description = (0..<20 + number(30)).map { _ in word() }.joined(separator: " ")
            return Array(
                """
                Package: \(name)
                Version: \(version())
                Installed-Size: \(number(90_000))
                Maintainer: \(word()) maintainers <\(word())-team@lists.example.org>
                Architecture: amd64
                Depends: \(depends.joined(separator: ", "))
                Description: \(description)
                Homepage: https://\(word()).example.org/\(name)
                Tag: implemented-in::\(word()), role::\(word()), use::\(word())
                Section: \(word())
                Priority: optional
                Filename: pool/main/\(name.prefix(1))/\(name)/\(name)_\(version())_amd64.deb
                Size: \(number(9_000_000))
                SHA256: \(digest())
                """.utf8
            )
        }
    }
}

/// Marsaglia's xorshift64: the same text in every run.
private struct Xorshift: RandomNumberGenerator {
    private var state: UInt64 = 88_172_645_463_325_252

    mutating func next() -> UInt64 {
        self.state ^= self.state << 13
        self.state ^= self.state >> 7
        self.state ^= self.state << 17
        return self.state
    }
}
