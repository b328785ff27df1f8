import StalkCore
import StalkPlatform
import StalkTesting
import Testing

#if canImport(Glibc)
    import Glibc
#endif

@Suite(.timeLimit(.minutes(10))) struct DedicatedThreadTests {
    @Test func joinReturnsAfterTheBodyHasEnded() throws {
        let (started, released) = (try Waker(), try Waker())
        let hasEnded = Locked(false)
        let thread = try DedicatedThread(name: "body") {
            started.signal()
            SystemStoreClock().wait(for: released, until: nil)
            hasEnded.withLock { $0 = true }
        }
        SystemStoreClock().wait(for: started, until: nil)
        #expect(!hasEnded.withLock { $0 })
        released.signal()
        thread.join()
        #expect(hasEnded.withLock { $0 })
        thread.join()
    }

    @Test func runsOnAThreadOfItsOwnUnderItsName() throws {
        let seen = Locked((thread: pthread_self(), name: ""))
        let thread = try DedicatedThread(name: "a-name-of-over-15-bytes") {
            var bytes = [UInt8](repeating: 0, count: 32)
            var count = 0
            if let file = fopen("/proc/thread-self/comm", "r") {
                count = fread(&bytes, 1, bytes.count, file)
                fclose(file)
            }
            let name = String(decoding: bytes[..<count].prefix { $0 > 0x20 }, as: UTF8.self)
            seen.withLock { $0 = (pthread_self(), name) }
        }
        thread.join()
        #expect(seen.withLock { $0.thread } != pthread_self())
        #expect(seen.withLock { $0.name } == "a-name-of-over-")
    }

    @Test func letsGoOfItsBody() throws {
        final class Token: Sendable {}
        weak var token: Token?
        do {
            let strong = Token()
            token = strong
            let thread = try DedicatedThread(name: "body") { withExtendedLifetime(strong) {} }
            thread.join()
        }
        #expect(token == nil)
    }

    @Test func manyRunAtOnce() throws {
        let count = Locked(0)
        let threads = try (0..<50).map { number in
            try DedicatedThread(name: "worker-\(number)") { count.withLock { $0 += 1 } }
        }
        for thread in threads { thread.join() }
        #expect(count.withLock { $0 } == 50)
    }
}
