// The threads of an open store, and blocking work for callers that must not block.

internal import StalkCore
internal import StalkFiles
internal import StalkPlatform

/// The wakers of a store's threads.
struct StoreWakers: Sendable {
    private let log: Waker
    private let scheduler: Waker
    private let keeper: Waker

    init() throws(StalkError) {
        self.log = try Waker()
        self.scheduler = try Waker()
        self.keeper = try Waker()
    }

    subscript(role: StoreRole) -> Waker {
        switch role {
        case .log: self.log
        case .scheduler: self.scheduler
        case .keeper: self.keeper
        }
    }
}

/// The threads that an open store runs.
final class StoreThreads: Sendable {
    private let core: StoreCore
    private let threads: Locked<[DedicatedThread]>

    /// Starts them.
    ///
    /// - Parameters:
    ///   - workers: What they run.
    ///   - wakers: What ends their sleep.
    ///   - lock: The store's lock. Each thread holds it, so that it is given back only when nothing of this owner can
    ///     touch the store any more, also when the store was let go without being closed.
    init(_ workers: StoreWorkers, _ wakers: StoreWakers, lock: DirectoryLock) throws(StalkError) {
        let core = workers.core
        self.core = core
        var threads: [DedicatedThread] = []
        do throws(StalkError) {
            threads.append(try Self.thread("stalk-log", workers.log, core, wakers[.log], lock))
            threads.append(try Self.thread("stalk-scheduler", workers.scheduler, core, wakers[.scheduler], lock))
            threads.append(try Self.thread("stalk-keeper", workers.keeper, core, wakers[.keeper], lock))
        } catch {
            core.stop()
            for thread in threads { thread.join() }
            throw error
        }
        self.threads = Locked(threads)
    }

    private static func thread(
        _ name: String,
        _ worker: some StoreWorker,
        _ core: StoreCore,
        _ waker: Waker,
        _ lock: DirectoryLock
    ) throws(StalkError) -> DedicatedThread {
        try DedicatedThread(name: name) {
            var worker = worker
            withExtendedLifetime(lock) {
                while true {
                    switch worker.step() {
                    case .goOn: continue
                    case .sleep(let deadline):
                        core.clock.wait(for: waker, until: deadline.map { core.bootTime(at: $0) })
                    case .end: return
                    }
                }
            }
        }
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
        runOnOwnThread(name, work) { continuation.resume(with: $0) }
    }
}

/// Runs blocking work on a thread of its own, which ends with the work, and hands out what came of it.
func runOnOwnThread<Value: Sendable>(
    _ name: String,
    _ work: @escaping @Sendable () throws(StalkError) -> Value,
    reply: @escaping @Sendable (Result<Value, any Error>) -> Void
) {
    do throws(StalkError) {
        let thread = try DedicatedThread(name: name) {
            do throws(StalkError) {
                reply(.success(try work()))
            } catch {
                reply(.failure(error))
            }
        }
        thread.detach()
    } catch {
        reply(.failure(error))
    }
}
