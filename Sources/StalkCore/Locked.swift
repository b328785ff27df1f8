// A lock around a value, in a form that the thread sanitizer understands.

#if STALK_THREAD_SANITIZER
    internal import Glibc

    /// A value behind a lock: `Synchronization.Mutex` for the thread sanitizer.
    ///
    /// The sanitizer does not see into the Synchronization library, so it reports a race for every `Mutex` that two threads
    /// want at the same time (Swift 6.3, Linux). It knows pthread's locks.
    // SAFETY: `value` is touched only while `mutex` is held.
    package struct Locked<Value: ~Copyable>: ~Copyable, @unchecked Sendable {
        private let mutex: UnsafeMutablePointer<pthread_mutex_t>
        private let value: UnsafeMutablePointer<Value>

        package init(_ value: consuming sending Value) {
            self.mutex = .allocate(capacity: 1)
            pthread_mutex_init(self.mutex, nil)
            self.value = .allocate(capacity: 1)
            self.value.initialize(to: value)
        }

        deinit {
            self.value.deinitialize(count: 1)
            self.value.deallocate()
            pthread_mutex_destroy(self.mutex)
            self.mutex.deallocate()
        }

        package borrowing func withLock<Result: ~Copyable, Failure: Error>(
            _ body: (inout sending Value) throws(Failure) -> sending Result
        ) throws(Failure) -> sending Result {
            pthread_mutex_lock(self.mutex)
            defer { pthread_mutex_unlock(self.mutex) }
            return try body(&self.value.pointee)
        }
    }
#else
    package import Synchronization

    /// A value behind a lock.
    package typealias Locked = Synchronization.Mutex
#endif
