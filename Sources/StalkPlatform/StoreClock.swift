// Threads, wake-ups and clocks: what the engine needs of the platform besides files.

internal import CStalkSystem
public import StalkCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// Time since the machine booted, suspension included: what leases and delays are counted by.
public struct BootTime: Hashable, Comparable, Sendable {
    /// Nanoseconds since boot.
    public var nanoseconds: Int64

    /// Makes a moment from nanoseconds since boot.
    public init(nanoseconds: Int64) {
        self.nanoseconds = nanoseconds
    }

    /// Orders moments by time.
    public static func < (left: BootTime, right: BootTime) -> Bool {
        left.nanoseconds < right.nanoseconds
    }
}

/// Where an engine reads the time and waits for it; tests put a manual one in its place.
public protocol StoreClock: Sendable {
    /// Which boot of the machine ``bootTime()`` counts from; two times compare only within one boot.
    var bootID: String { get }

    /// The time since boot.
    func bootTime() -> BootTime

    /// The wall clock, which may jump.
    func wallTime() -> Timestamp

    /// Blocks the calling thread until the waker is signalled or the deadline has come.
    ///
    /// - Parameters:
    ///   - waker: What ends the wait early; its signal is taken back.
    ///   - deadline: When to go on at the latest; `nil` waits for the signal alone.
    func wait(for waker: Waker, until deadline: BootTime?)
}

/// The machine's own clocks.
public struct SystemStoreClock: StoreClock {
    /// Makes the clock.
    public init() {}

    /// The kernel's random identity of this boot, or an empty text where there is none.
    public var bootID: String {
        guard let file = fopen("/proc/sys/kernel/random/boot_id", "r") else { return "" }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count].prefix { $0 > 0x20 }, as: UTF8.self)
    }

    /// The time since boot.
    public func bootTime() -> BootTime {
        BootTime(nanoseconds: CStalkSystem_bootNanoseconds())
    }

    /// The wall clock.
    public func wallTime() -> Timestamp {
        Timestamp(millisecondsSince1970: CStalkSystem_wallMilliseconds())
    }

    /// Blocks until the waker is signalled or the deadline has come.
    public func wait(for waker: Waker, until deadline: BootTime?) {
        waker.wait(until: deadline)
    }
}
