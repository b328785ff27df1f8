import Foundation
import Testing

/// Pages of docs/ name tests; a test that was renamed or removed must not stay there.
@Suite struct DurabilityTests {
    @Test(
        arguments: [
            "docs/durability.md": 30, "docs/operations.md": 5, "docs/adapters.md": 15, "docs/worker.md": 14,
            "docs/failover.md": 40,
        ]
    )
    func namedTestsExist(page: String, atLeast count: Int) throws {
        let tests = try Self.sources(below: "Tests")
        let checks = try Repository.text("Sources/StalkTesting/Conformance/CollectorCheck.swift")
        let names = try Self.namedTests(in: page)
        #expect(names.count > count)
        for name in names {
            let isThere =
                switch name.first {
                case _ where name.contains("/"): tests.keys.contains { $0.hasSuffix("/\(name).swift") }
                case let letter? where letter.isUppercase: tests.keys.contains { $0.hasSuffix("/\(name).swift") }
                default: tests.values.contains { $0.contains("func \(name)(") } || checks.contains("case \(name)\n")
                }
            #expect(isThere, "\(page) names \(name), which is not there")
        }
    }

    /// Every attack is a line of docs/torture.md, and pages that send a reader to one name one that is there.
    @Test func namedAttacksExist() throws {
        let directory = "tools/attacks"
        let path = Repository.root.appendingPathComponent(directory).path
        var attacks: Set<String> = []
        for file in try FileManager.default.contentsOfDirectory(atPath: path) where file.hasSuffix(".py") {
            let text = try Repository.text("\(directory)/\(file)")
            attacks.formUnion(text.matches(of: /\n    name="([a-z]+)"/).map { String($0.1) })
        }
        #expect(attacks.count > 8)
        let page = try Repository.text("docs/torture.md")
        let described = Set(page.matches(of: /\n\| `([a-z]+)` \| [0-9]/).map { String($0.1) })
        #expect(described == attacks)
        for page in ["docs/torture.md", "docs/durability.md", "docs/operations.md"] {
            for match in try Repository.text(page).matches(of: /tools\/torture --only ([a-z]+)/) {
                #expect(attacks.contains(String(match.1)), "\(page) names the attack \(match.1), which is not there")
            }
        }
    }

    /// What stands in backquotes in the second column of each table of promises, but for scripts.
    private static func namedTests(in page: String) throws -> [String] {
        var isInTable = false
        var names: [String] = []
        for line in try Repository.text(page).components(separatedBy: "\n") {
            isInTable = line == "| promise | test |" || isInTable && line.hasPrefix("|")
            guard isInTable, let cell = line.components(separatedBy: " | ").last else { continue }
            let quoted = cell.components(separatedBy: "`").enumerated().filter { $0.offset % 2 == 1 }.map(\.element)
            names += quoted.filter { !$0.hasPrefix("tools/") }
        }
        return names
    }

    /// The Swift files below a directory by their paths.
    private static func sources(below directory: String) throws -> [String: String] {
        let root = Repository.root.appendingPathComponent(directory)
        let paths = try FileManager.default.subpathsOfDirectory(atPath: root.path).filter { $0.hasSuffix(".swift") }
        return try Dictionary(uniqueKeysWithValues: paths.map { ("/" + $0, try Repository.text("\(directory)/\($0)")) })
    }
}
