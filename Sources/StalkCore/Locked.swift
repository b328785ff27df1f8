// A lock around a value.

internal import Glibc

/// A value behind a lock that sleeps soon.
///
/// `Synchronization.Mutex` is no choice here. On Linux it is a lock with priority inheritance: whoever finds it taken spins
/// for as long as its holder runs, in the kernel too, and a step of the engine for a hundred messages takes a hundred
/// microseconds. With two cores that took a quarter of the processor time of busy callers, and half of the throughput when
/// other processes wanted the cores as well. This one spins for a moment and then sleeps (glibc's adaptive mutex). The
/// thread sanitizer knows it, and does not see into the Synchronization library (Swift 6.3).
// SAFETY: `value` is touched only while `mutex` is held.
package struct Locked<Value: ~Copyable>: ~Copyable, @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let value: UnsafeMutablePointer<Value>

    package init(_ value: consuming sending Value) {
        var attributes = pthread_mutexattr_t()
        pthread_mutexattr_init(&attributes)
        pthread_mutexattr_settype(&attributes, CInt(PTHREAD_MUTEX_ADAPTIVE_NP))
        self.mutex = .allocate(capacity: 1)
        pthread_mutex_init(self.mutex, &attributes)
        pthread_mutexattr_destroy(&attributes)
        self.value = .allocate(capacity: 1)
        self.value.initialize(to: value)
    }

    deinit {
        self.value.deinitialize(count: 1)
        self.value.deallocate()
        pthread_mutex_destroy(self.mutex)
        self.mutex.deallocate()
    }

    /// Runs a closure with the value, while nobody else has it.
    package borrowing func withLock<Result: ~Copyable, Failure: Error>(
        _ body: (inout sending Value) throws(Failure) -> sending Result
    ) throws(Failure) -> sending Result {
        pthread_mutex_lock(self.mutex)
        defer { pthread_mutex_unlock(self.mutex) }
        return try body(&self.value.pointee)
    }
}
