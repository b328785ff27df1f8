// A loader runs until it is killed, so it must not outlive whoever would kill it.

internal import StalkCore
internal import StalkPlatform

#if canImport(Glibc)
    internal import Glibc
#endif

/// Ends this process when the one that started it has gone.
enum TortureParent {
    /// How a process ends whose parent has gone.
    static let exitCode: Int32 = 4
    private static let pause: UInt32 = 100_000

    /// Begins to watch, on a thread of its own: it must work when everything else hangs.
    static func watch() throws(StalkError) {
        let parent = getppid()
        let thread = try DedicatedThread(name: "stalk-parent") {
            while getppid() == parent { usleep(Self.pause) }
            _exit(Self.exitCode)
        }
        thread.detach()
    }
}
