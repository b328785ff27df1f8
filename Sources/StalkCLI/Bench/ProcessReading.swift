// What the kernel says this process has used.

internal import StalkPlatform

#if canImport(Glibc)
    internal import Glibc
#endif

/// One reading of the kernel's counters for this process; differences between two tell what some work cost.
struct ProcessReading: Sendable {
    /// Bytes handed to write calls, by whichever thread; `nil` where the kernel does not say.
    ///
    /// Not `write_bytes` of the same file: that counts the whole folio of the page cache that a write falls into, which
    /// can be a mebibyte for a write of four kibibytes.
    var bytesWritten: Int?
    /// How often a thread gave the processor up to wait, and was woken again.
    var wakeUps: Int
    /// Processor time, in seconds.
    var cpuSeconds: Double
    /// Resident memory that no file backs, in bytes.
    var anonymousBytes: Int

    static func now() -> ProcessReading {
        var usage = rusage()
        getrusage(RUSAGE_SELF.rawValue, &usage)
        let micros = { (time: timeval) in Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
        return ProcessReading(
            bytesWritten: Self.number("wchar:", in: "/proc/self/io"),
            wakeUps: usage.ru_nvcsw,
            cpuSeconds: micros(usage.ru_utime) + micros(usage.ru_stime),
            anonymousBytes: Self.anonymousBytes
        )
    }

    /// Resident memory that no file backs, in bytes.
    static var anonymousBytes: Int {
        (Self.number("RssAnon:", in: "/proc/self/status") ?? 0) * 1024
    }

    private static func number(_ key: String, in path: String) -> Int? {
        guard let text = readText(path) else { return nil }
        for line in text.split(separator: "\n") where line.hasPrefix(key) {
            return Int(line.dropFirst(key.count).drop { $0 == " " || $0 == "\t" }.prefix { $0.isNumber })
        }
        return nil
    }
}

/// A clock that never jumps, in nanoseconds.
func monotonicNanoseconds() -> Int64 {
    SystemStoreClock().bootTime().nanoseconds
}

/// All of a small file as text, or `nil` when it can't be read.
func readText(_ path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    while true {
        let count = fread(&chunk, 1, chunk.count, file)
        guard count > 0 else { break }
        bytes += chunk[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
}
