import Glibc
import StalkCore
import StalkIndex
import StalkTesting
import Testing

/// A directory of its own for one test, removed at its end.
final class TemporaryDirectory: Sendable {
    let path: String

    init() {
        var template = Array("/tmp/stalk-index-XXXXXX".utf8CString)
        self.path = template.withUnsafeMutableBufferPointer { buffer in
            guard let start = buffer.baseAddress, mkdtemp(start) != nil else { return "" }
            return String(cString: start)
        }
    }

    deinit {
        self.remove()
    }

    /// Removes it now: a process that ends runs no deinit.
    func remove() {
        for name in ["data.mdb", "lock.mdb", "copy.mdb"] { unlink("\(self.path)/\(name)") }
        rmdir(self.path)
    }

    /// The last part of the path.
    var name: String { String(self.path.dropFirst("/tmp/".count)) }

    var dataFile: String { "\(self.path)/data.mdb" }

    func environment(
        _ tables: [String] = ["messages", "ready"],
        mapBytes: Int = 1 << 20,
        createIfMissing: Bool = true
    ) throws -> Environment {
        try Environment(path: self.path, mapBytes: mapBytes, tables: tables, createIfMissing: createIfMissing)
    }

    /// Creates the tables and fills one of them, then closes.
    func fill(count: Int = 200, valueBytes: Int = 300) throws {
        let environment = try self.environment()
        let table = environment.table("messages")
        try environment.write { transaction throws(StalkError) in
            for index in 0..<count { try transaction.put(table, key(index), value(index, count: valueBytes)) }
        }
        environment.close()
    }
}

extension Environment {
    convenience init(at path: String) throws(StalkError) {
        try self.init(path: path, mapBytes: 1 << 20, tables: ["messages"], createIfMissing: true)
    }
}

func key(_ index: Int) -> [UInt8] {
    withUnsafeBytes(of: UInt64(index).bigEndian) { bytes in Array(bytes) }
}

/// Bytes that differ from those of every other index.
func value(_ index: Int, count: Int) -> [UInt8] {
    var generator = SeededGenerator(seed: UInt64(index))
    let words = (0..<(count + 7) / 8).map { _ in generator.next() }
    return words.withUnsafeBytes { bytes in Array(bytes.prefix(count)) }
}

func readFile(_ path: String) throws -> [UInt8] {
    let file = try #require(fopen(path, "r"))
    defer { fclose(file) }
    fseek(file, 0, SEEK_END)
    var bytes = [UInt8](repeating: 0, count: ftell(file))
    rewind(file)
    let count = bytes.withUnsafeMutableBytes { fread($0.baseAddress, 1, $0.count, file) }
    try #require(count == bytes.count)
    return bytes
}

func writeFile(_ path: String, _ bytes: some Collection<UInt8>) throws {
    let file = try #require(fopen(path, "w"))
    defer { fclose(file) }
    let bytes = Array(bytes)
    try #require(bytes.withUnsafeBytes { fwrite($0.baseAddress, 1, $0.count, file) } == bytes.count)
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
