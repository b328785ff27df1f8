// What the benchmarks count. Counts are gated, since they are the same on a busy machine; times are only printed.

internal import CCounters
internal import Foundation
internal import Glibc

/// What this process has asked of the disk and of the allocator since it began.
public struct Counters: Sendable {
    /// Calls of fsync and fdatasync, by whomever.
    public var syncs: Int
    /// Bytes handed to write calls, as the kernel counts them.
    public var bytesWritten: Int
    /// Blocks of memory asked of malloc.
    public var allocations: Int
    /// How often a thread waited and was woken, as the kernel counts it: voluntary context switches.
    public var wakeUps: Int

    /// The counters now.
    ///
    /// - Throws: An error of Foundation where there is no `/proc/self/io`.
    public static func now() throws -> Counters {
        let allocations = Int(CCounters_allocations())
        return Counters(
            syncs: Int(CCounters_syncs()),
            bytesWritten: try Self.bytesWritten(),
            allocations: allocations,
            wakeUps: Self.wakeUps
        )
    }

    /// What happened between two readings.
    public static func - (late: Counters, early: Counters) -> Counters {
        Counters(
            syncs: late.syncs - early.syncs,
            bytesWritten: late.bytesWritten - early.bytesWritten,
            allocations: late.allocations - early.allocations,
            wakeUps: late.wakeUps - early.wakeUps
        )
    }

    /// The bytes of memory in use that came from malloc.
    public static var heapBytes: Int { Int(CCounters_bytesInUse()) }

    private static var wakeUps: Int {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage.ru_nvcsw
    }

    private static func bytesWritten() throws -> Int {
        let text = try String(contentsOfFile: "/proc/self/io", encoding: .utf8)
        let line = text.split(separator: "\n").first { $0.hasPrefix("wchar:") }
        guard let number = line?.split(separator: " ").last.flatMap({ Int($0) }) else {
            throw CocoaError(.fileReadCorruptFile)
        }
        return number
    }
}
