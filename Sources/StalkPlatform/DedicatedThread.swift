internal import CStalkSystem
public import StalkCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// A thread for blocking work, which must not sit on the cooperative pool.
public final class DedicatedThread: Sendable {
    private final class Body: Sendable {
        let name: String
        let run: @Sendable () -> Void

        init(name: String, run: @escaping @Sendable () -> Void) {
            self.name = name
            self.run = run
        }
    }

    private let handle: Locked<pthread_t?>

    /// Starts a thread.
    ///
    /// - Parameters:
    ///   - name: Its name in process listings; at most 15 bytes are kept.
    ///   - body: What it runs, once.
    /// - Throws: ``StalkError`` with ``StalkError/Code/unavailable`` when the system refuses another thread.
    public init(name: String, _ body: @escaping @Sendable () -> Void) throws(StalkError) {
        var handle = pthread_t()
        let argument = Unmanaged.passRetained(Body(name: name, run: body))
        let status = pthread_create(
            &handle,
            nil,
            { argument in
                guard let argument else { return nil }
                let body = Unmanaged<Body>.fromOpaque(argument).takeRetainedValue()
                CStalkSystem_nameThread(body.name)
                body.run()
                return nil
            },
            argument.toOpaque()
        )
        guard status == 0 else {
            argument.release()
            throw StalkError(.unavailable, "Can't start another thread (errno \(status)): see ulimit -u.")
        }
        self.handle = Locked(handle)
    }

    deinit {
        // Nobody can join it any more: it ends by itself.
        self.detach()
    }

    /// Blocks until the thread has ended; must not be called from the thread itself.
    public func join() {
        let handle = self.handle.withLock { handle in
            defer { handle = nil }
            return handle
        }
        if let handle { pthread_join(handle, nil) }
    }

    /// Lets the thread end by itself; nobody will wait for it.
    public func detach() {
        let handle = self.handle.withLock { handle in
            defer { handle = nil }
            return handle
        }
        if let handle { pthread_detach(handle) }
    }

    /// Lets other threads go first.
    public static func yield() {
        sched_yield()
    }
}
