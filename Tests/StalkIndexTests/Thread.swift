import Glibc
import Testing

/// A thread of its own for a blocking call; what it throws is recorded as an issue.
final class Thread {
    private final class Body: Sendable {
        let run: @Sendable () throws -> Void

        init(_ run: @escaping @Sendable () throws -> Void) { self.run = run }
    }

    private var handle = pthread_t()

    init(_ run: @escaping @Sendable () throws -> Void) {
        let argument = Unmanaged.passRetained(Body(run))
        let status = pthread_create(
            &self.handle,
            nil,
            { argument in
                guard let argument else { return nil }
                let body = Unmanaged<Body>.fromOpaque(argument).takeRetainedValue()
                do {
                    try body.run()
                } catch {
                    Issue.record(error)
                }
                return nil
            },
            argument.toOpaque()
        )
        precondition(status == 0)
    }

    func join() {
        pthread_join(self.handle, nil)
    }
}
