// The Python programs that tests compare with, where this machine has them.

import Foundation

/// Finds and runs what `tools/test` installs into `.build-tools`, or what the machine has anyway.
enum PythonTools {
    static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// A Python that has botocore; `nil` where there is none.
    static let pythonWithBotocore: String? = {
        let candidates = [PythonTools.root.path + "/.build-tools/sqs/bin/python3", "/usr/bin/env python3"]
        return candidates.first { (try? PythonTools.run($0, ["-c", "import botocore"])) != nil }
    }()

    /// The directory with the public vectors of Signature Version 4; `nil` where they were not fetched.
    static let signatureVectors: URL? = {
        let url = PythonTools.root.appendingPathComponent(".build-tools/aws4_testsuite")
        return FileManager.default.fileExists(atPath: url.path) ? url : nil
    }()

    struct Failed: Error {
        var status: Int32
    }

    /// Runs a program with input and returns its output.
    static func run(_ program: String, _ arguments: [String], input: Data = Data()) throws -> Data {
        let words = program.split(separator: " ").map(String.init)
        let process = Process()
        process.executableURL = URL(fileURLWithPath: words[0])
        process.arguments = words.dropFirst() + arguments
        let (stdin, stdout) = (Pipe(), Pipe())
        process.standardInput = stdin
        process.standardOutput = stdout
        process.standardError = FileHandle.nullDevice
        try process.run()
        let writer = Thread { [stdin] in
            try? stdin.fileHandleForWriting.write(contentsOf: input)
            try? stdin.fileHandleForWriting.close()
        }
        writer.start()
        let output = stdout.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw Failed(status: process.terminationStatus) }
        return output
    }
}
