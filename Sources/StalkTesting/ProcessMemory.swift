// What a process has in memory, for tests that bound it.

internal import Glibc

/// The anonymous resident memory of a process, in bytes: what it allocated, and no mapped files.
///
/// - Parameter process: The process; this one unless said otherwise.
/// - Returns: `RssAnon` of `/proc/PID/status`; `nil` once the process has ended.
package func anonymousBytes(of process: Int32 = getpid()) -> Int? {
    guard let file = fopen("/proc/\(process)/status", "r") else { return nil }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 14)
    let count = fread(&bytes, 1, bytes.count, file)
    let lines = String(decoding: bytes[..<count], as: UTF8.self).split(separator: "\n")
    let line = lines.first { $0.hasPrefix("RssAnon:") }
    return line?.split { !$0.isNumber }.first.flatMap { Int($0) }.map { $0 << 10 }
}
