// The threads of an open store, and blocking work for callers that must not block.

internal import StalkCore
internal import StalkFiles
internal import StalkLog
internal import StalkPlatform
internal import Synchronization

/// The threads that an open store runs.
final class StoreThreads: Sendable {
    private let core: StoreCore
    private let threads: Locked<[DedicatedThread]>

    /// Starts them.
    ///
    /// - Parameter lock: The store's lock. Each thread holds it, so that it is given back only when nothing of this owner
    ///   can touch the store any more, also when the store was let go without being closed.
    init(core: StoreCore, lock: DirectoryLock, writer: LogWriter, nextSegment: UInt64) throws(StalkError) {
        self.core = core
        var threads: [DedicatedThread] = []
        do throws(StalkError) {
            threads.append(
                try DedicatedThread(name: "stalk-log") {
                    var thread = LogThread(core: core, writer: writer)
                    withExtendedLifetime(lock) { thread.run() }
                }
            )
            threads.append(
                try DedicatedThread(name: "stalk-scheduler") {
                    withExtendedLifetime(lock) { SchedulerThread(core: core).run() }
                }
            )
            threads.append(
                try DedicatedThread(name: "stalk-keeper") {
                    var thread = KeeperThread(core: core, nextSegment: nextSegment)
                    withExtendedLifetime(lock) { thread.run() }
                }
            )
        } catch {
            core.stop()
            for thread in threads { thread.join() }
            throw error
        }
        self.threads = Locked(threads)
    }

    /// Ends the threads and waits for them.
    func stop() {
        self.core.stop()
        let threads = self.threads.withLock { threads in
            defer { threads = [] }
            return threads
        }
        for thread in threads { thread.join() }
    }
}

/// Runs blocking work on a thread of its own, which ends with the work.
///
/// - Parameters:
///   - name: The thread's name in process listings.
///   - work: What to run; its caller is suspended meanwhile.
func onOwnThread<Value: Sendable>(
    _ name: String,
    _ work: @escaping @Sendable () throws(StalkError) -> Value
) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        do throws(StalkError) {
            let thread = try DedicatedThread(name: name) {
                do throws(StalkError) {
                    continuation.resume(returning: try work())
                } catch {
                    continuation.resume(throwing: error)
                }
            }
            thread.detach()
        } catch {
            continuation.resume(throwing: error)
        }
    }
}
