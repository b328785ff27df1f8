internal import Glibc

/// The names on a simulated disk, of which a file has one or none.
struct SimulatedNames: Sendable {
    /// A change of names, which happens as a whole or not at all.
    enum Change: Sendable {
        case makeDirectory(String)
        case create(String, file: Int)
        case rename(String, to: String)
        case remove(String)

        /// The directories that must be synced to make it durable.
        var directories: Set<String> {
            switch self {
            case .makeDirectory: [""]
            case .create(let name, _), .remove(let name): [SimulatedNames.directory(of: name)]
            case .rename(let name, let newName):
                [SimulatedNames.directory(of: name), SimulatedNames.directory(of: newName)]
            }
        }
    }

    private(set) var files: [String: Int] = [:]
    private(set) var directories: Set<String> = [""]

    /// Makes a change, or none when what it needs is not there.
    mutating func apply(_ change: Change) {
        switch change {
        case .makeDirectory(let name): self.directories.insert(name)
        case .create(let name, let file):
            if self.directories.contains(Self.directory(of: name)) { self.files[name] = file }
        case .rename(let name, let newName):
            guard self.directories.contains(Self.directory(of: newName)) else { return }
            if let file = self.files.removeValue(forKey: name) { self.files[newName] = file }
        case .remove(let name): self.files[name] = nil
        }
    }

    /// The names in a directory, sorted.
    func list(_ directory: String) -> [String] {
        let prefix = directory.isEmpty ? "" : "\(directory)/"
        let files = self.files.keys.filter { Self.directory(of: $0) == directory }
        let directories = directory.isEmpty ? self.directories.filter { !$0.isEmpty } : []
        return (files + directories).map { String($0.dropFirst(prefix.count)) }.sorted()
    }

    static func directory(of name: String) -> String {
        name.lastIndex(of: "/").map { String(name[..<$0]) } ?? ""
    }

    /// The errno that a real directory has for what is not a name, or `sub/name` one level down; `nil` for a name.
    static func refusal(of name: String) -> Int32? {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count <= 2, parts.allSatisfy({ !$0.isEmpty && $0 != "." && $0 != ".." }) else { return EXDEV }
        return parts.allSatisfy { $0.utf8.count <= 255 } ? nil : ENAMETOOLONG
    }
}
