internal import CStalkSystem
public import StalkCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// Lets any thread wake the one that waits; a signal sent before the wait is not lost.
public final class Waker: Sendable {
    private let event: Int32
    private let timer: Int32

    /// Makes a waker.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/unavailable`` when no descriptor is left.
    public init() throws(StalkError) {
        self.event = CStalkSystem_makeEvent()
        guard self.event >= 0 else { throw Self.noDescriptor() }
        self.timer = CStalkSystem_makeBootTimer()
        guard self.timer >= 0 else {
            close(self.event)
            throw Self.noDescriptor()
        }
    }

    deinit {
        close(self.event)
        close(self.timer)
    }

    /// Wakes the waiting thread, or lets the next wait return at once.
    public func signal() {
        CStalkSystem_setEvent(self.event)
    }

    /// A descriptor that is readable while a signal waits, for those who poll it beside others.
    package var descriptor: Int32 { self.event }

    /// Takes back what was signalled.
    package func clear() {
        CStalkSystem_clearEvent(self.event)
    }

    /// Blocks until a signal, which is taken back, or until the deadline.
    func wait(until deadline: BootTime?) {
        CStalkSystem_waitForEvent(self.event, self.timer, deadline.map { max($0.nanoseconds, 0) } ?? -1)
    }

    private static func noDescriptor() -> StalkError {
        StalkError(
            .unavailable,
            "No file descriptor is left (errno \(errno)): raise the limit (ulimit -n) or close some."
        )
    }
}
