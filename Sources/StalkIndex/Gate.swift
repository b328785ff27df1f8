internal import Glibc
internal import StalkCore

/// A readers-writer lock that lets waiting writers go first.
///
/// A thread must not enter it again while it is inside: as a reader that can hang, as a writer it throws.
final class Gate: Sendable {
    // SAFETY: the lock is made for use by several threads; the pointer itself never changes.
    private nonisolated(unsafe) let lock: UnsafeMutablePointer<pthread_rwlock_t>

    init() {
        var attributes = pthread_rwlockattr_t()
        pthread_rwlockattr_init(&attributes)
        // The default lets a stream of readers keep a writer out for ever.
        pthread_rwlockattr_setkind_np(&attributes, CInt(PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP))
        self.lock = .allocate(capacity: 1)
        pthread_rwlock_init(self.lock, &attributes)
        pthread_rwlockattr_destroy(&attributes)
    }

    deinit {
        pthread_rwlock_destroy(self.lock)
        self.lock.deallocate()
    }

    /// Runs `body` beside other shared users.
    func shared<R>(_ body: () throws(StalkError) -> R) throws(StalkError) -> R {
        try Self.check(pthread_rwlock_rdlock(self.lock))
        defer { pthread_rwlock_unlock(self.lock) }
        return try body()
    }

    /// Runs `body` alone.
    func exclusive<R>(_ body: () throws(StalkError) -> R) throws(StalkError) -> R {
        try Self.check(pthread_rwlock_wrlock(self.lock))
        defer { pthread_rwlock_unlock(self.lock) }
        return try body()
    }

    private static func check(_ status: CInt) throws(StalkError) {
        guard status == 0 else {
            throw StalkError(
                .invalidArgument,
                "A call into the index was made from inside another one on the same thread (errno \(status))."
            )
        }
    }
}
