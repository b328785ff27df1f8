// A directory for the length of a benchmark, on the disk that is meant.

internal import FoundationEssentials
internal import StalkCore
internal import StalkFiles

#if canImport(Glibc)
    internal import Glibc
#endif

/// Runs `body` with a new directory inside another one, or inside the nearest parent that exists, and removes it.
func withBenchDirectory<Value>(
    inside path: String,
    _ body: (RealDirectory) async throws -> Value
) async throws -> Value {
    var parent = path
    var status = stat()
    while stat(parent, &status) != 0 {
        guard let slash = parent.lastIndex(of: "/") else {
            parent = "."
            break
        }
        parent = slash == parent.startIndex ? "/" : String(parent[..<slash])
    }
    var template = Array("\(parent)/stalk-bench-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else {
        throw StalkError(
            .permissionDenied,
            "Can't make a directory in \(parent): \(errorText(errno)). Name another one."
        )
    }
    let made = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    defer { removeTree(made) }
    return try await body(RealDirectory(path: made, createIfMissing: false))
}

/// Removes a directory and all in it; what can't be removed stays.
func removeTree(_ path: String) {
    try? FileManager.default.removeItem(atPath: path)
}

/// What a directory's files take on the disk, in bytes.
func diskBytes(of path: String) -> Int {
    let names = (try? FileManager.default.subpathsOfDirectory(atPath: path)) ?? []
    return names.reduce(0) { total, name in
        var status = stat()
        guard lstat("\(path)/\(name)", &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return total }
        return total + Int(status.st_blocks) * 512
    }
}
