import Foundation
import Testing

/// Pages of docs/ name tests; a test that was renamed or removed must not stay there.
@Suite struct DurabilityTests {
    @Test(
        arguments: [
            "docs/durability.md": 30, "docs/operations.md": 5, "docs/adapters.md": 15, "docs/worker.md": 14,
            "docs/failover.md": 40, "docs/sharing.md": 15,
        ]
    )
    func namedTestsExist(page: String, atLeast count: Int) throws {
        let tests = try Self.sources(below: "Tests")
        let checks = try Repository.text("Sources/StalkTesting/Conformance/CollectorCheck.swift")
        let names = try Self.namedTests(in: Repository.text(page))
        #expect(names.count > count)
        for (name, file) in names {
            let files = tests.filter { path, _ in path.hasSuffix("/\(file).swift") }
            let isThere =
                name == file
                ? !files.isEmpty
                : (file.isEmpty ? tests : files).values.contains { $0.contains("func \(name)(") }
                    || file.hasSuffix("ConformanceTests") && checks.contains("case \(name)\n")
            #expect(isThere, "\(page) names \(name), which is not there")
        }
    }

    /// A test that stands in another file than the page says is noticed.
    @Test func testsBelongToTheirFiles() throws {
        let table = """
            | promise | test |
            | --- | --- |
            | a | `StalkLogTests/DamageTests` `bitFlips`, `truncation` |
            | b | the same, `lostSectors`; `WorkTests` `killed`; `tools/quickstart` |
            | c | `somewhere` |

            | a table | of `something` else |
            """
        let named = Self.namedTests(in: table).map { "\($0.name) in \($0.file)" }
        #expect(
            named == [
                "StalkLogTests/DamageTests in StalkLogTests/DamageTests", "bitFlips in StalkLogTests/DamageTests",
                "truncation in StalkLogTests/DamageTests", "lostSectors in StalkLogTests/DamageTests",
                "WorkTests in WorkTests", "killed in WorkTests", "somewhere in ",
            ]
        )
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

    /// What stands in backquotes in the second column of each table of promises, but for scripts: files of tests, and tests
    /// with the file that was named before them, in their line or, behind "the same", in one above.
    private static func namedTests(in page: String) -> [(name: String, file: String)] {
        var isInTable = false
        var file = ""
        var names: [(name: String, file: String)] = []
        for line in page.components(separatedBy: "\n") {
            isInTable = line == "| promise | test |" || isInTable && line.hasPrefix("|")
            guard isInTable, let cell = line.components(separatedBy: " | ").last else { continue }
            if !cell.hasPrefix("the same") { file = "" }
            let quoted = cell.components(separatedBy: "`").enumerated().filter { $0.offset % 2 == 1 }.map(\.element)
            for name in quoted where !name.hasPrefix("tools/") {
                if name.contains("/") || name.first?.isUppercase == true { file = name }
                names.append((name, file))
            }
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
