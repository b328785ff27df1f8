// What the tests of the documents share: where they are, and how to read them.

import Foundation

/// The repository that these tests were built from.
enum Repository {
    static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// The text of a file, by its path from the root.
    static func text(_ path: String) throws -> String {
        try String(contentsOf: self.root.appendingPathComponent(path), encoding: .utf8)
    }

    /// The lines of the first code block of a language in a document; none when there is no such block.
    static func firstBlock(_ language: String, of path: String) throws -> [String] {
        let lines = try self.text(path).components(separatedBy: "\n")
        guard let start = lines.firstIndex(of: "```" + language) else { return [] }
        return Array(lines[(start + 1)...].prefix { $0 != "```" })
    }
}

/// Runs `body` with the path of a directory that is gone afterwards.
func withTemporaryDirectory(_ body: (String) async throws -> Void) async throws {
    let path = FileManager.default.temporaryDirectory.path + "/stalk-docs-\(UUID().uuidString)"
    try FileManager.default.createDirectory(
        atPath: path,
        withIntermediateDirectories: true,
        attributes: [.posixPermissions: 0o700]
    )
    defer { try? FileManager.default.removeItem(atPath: path) }
    try await body(path)
}
