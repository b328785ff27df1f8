import Glibc
import StalkCore
import StalkFiles
import Testing

/// A directory of its own for one test, removed at its end with all that it holds.
final class TemporaryDirectory: Sendable {
    let path: String

    init() {
        var template = Array("/tmp/stalk-files-XXXXXX".utf8CString)
        self.path = template.withUnsafeMutableBufferPointer { buffer in
            // Without a directory of its own a test would work on the root directory's files.
            guard let start = buffer.baseAddress, mkdtemp(start) != nil else { fatalError("mkdtemp failed: \(errno)") }
            return String(cString: start)
        }
    }

    deinit {
        self.remove()
    }

    /// Removes it now: a process that ends runs no deinit.
    func remove() {
        Self.remove(self.path)
    }

    private static func remove(_ path: String) {
        if let stream = opendir(path) {
            while let entry = readdir(stream) {
                let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                }
                let child = "\(path)/\(name)"
                guard name != ".", name != ".." else { continue }
                if unlink(child) != 0 { Self.remove(child) }
            }
            closedir(stream)
        }
        rmdir(path)
    }

    /// A store's directory in it.
    func store() throws -> RealDirectory {
        try RealDirectory(path: "\(self.path)/store", createIfMissing: true)
    }

    func makeFile(_ name: String, _ text: String = "text") throws {
        let file = try #require(fopen("\(self.path)/\(name)", "w"))
        fputs(text, file)
        fclose(file)
    }

    func makeLink(_ name: String, to target: String) throws {
        try #require(symlink(target, "\(self.path)/\(name)") == 0)
    }

    func mode(_ name: String) throws -> mode_t {
        var info = stat()
        try #require(lstat("\(self.path)/\(name)", &info) == 0)
        return info.st_mode & 0o7777
    }

    func exists(_ name: String) -> Bool {
        access("\(self.path)/\(name)", F_OK) == 0
    }
}

/// The code of the ``StalkError`` that an action throws, or `nil` if it throws none.
func code(_ action: () throws -> Void) -> StalkError.Code? {
    do {
        try action()
        return nil
    } catch let error as StalkError {
        return error.code
    } catch {
        Issue.record("Not a StalkError: \(error)")
        return nil
    }
}
