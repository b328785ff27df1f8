import Foundation
import Glibc
import StalkCore
import Testing

@testable import StalkFiles

@Suite struct LocalSocketTests {
    /// A directory whose path is longer than the address of a socket may be.
    private static func withDirectory(_ body: (RealDirectory) throws -> Void) throws {
        let path = FileManager.default.temporaryDirectory.path + "/stalk-sockets-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let long = path + "/" + String(repeating: "x", count: 200)
        try FileManager.default.createDirectory(atPath: long, withIntermediateDirectories: true)
        try body(try RealDirectory(path: long, createIfMissing: false))
    }

    private static func accept(_ listener: LocalListener) throws -> LocalSocket {
        var waits = [SocketWait(listener.number, reads: true)]
        SocketWait.wait(for: &waits, milliseconds: 10_000)
        return try #require(listener.accept())
    }

    @Test func bytesGoBothWaysWhateverTheLengthOfThePath() throws {
        try Self.withDirectory { directory in
            try directory.makeDirectory("sub")
            #expect(try directory.connect(to: "sub/socket") == nil)
            #expect(try directory.connect(to: "missing/socket") == nil)
            let listener = try directory.listen(at: "sub/socket")
            let client = try #require(try directory.connect(to: "sub/socket"))
            let server = try Self.accept(listener)
            #expect(client.peer == getpid() && server.peer == getpid() && server.peerUser == geteuid())
            for (from, to) in [(client, server), (server, client)] {
                #expect([1, 2, 3].withUnsafeBytes { from.send($0) } == .bytes(24))
                var buffer = [UInt8](repeating: 0, count: 100)
                #expect(buffer.withUnsafeMutableBytes { to.receive(into: $0) } == .bytes(24))
                #expect(buffer.withUnsafeMutableBytes { to.receive(into: $0) } == .later)
            }
            client.end()
            var buffer = [UInt8](repeating: 0, count: 100)
            #expect(buffer.withUnsafeMutableBytes { server.receive(into: $0) } == .ended)
            #expect([1].withUnsafeBytes { server.send($0) } == .ended)
        }
    }

    /// A process may own several stores, each with hundreds of clients.
    @Test(.enabled(if: mayOpen(4096), "too few descriptors: ulimit -n 4096"))
    func thereMayBeThousandsOfThem() throws {
        var sockets: [LocalSocket] = []
        for _ in 0..<750 {
            var ends: [Int32] = [0, 0]
            try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
            for end in ends { sockets.append(try #require(LocalSocket(owning: end))) }
        }
        #expect(sockets.count == 1500)
    }

    private static func mayOpen(_ count: UInt) -> Bool {
        var limit = rlimit()
        return getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 && limit.rlim_cur >= count
    }

    @Test func whatAnotherProcessLeftIsReplaced() throws {
        try Self.withDirectory { directory in
            do { _ = try directory.listen(at: "socket") }
            #expect(try directory.connect(to: "socket") == nil, "nobody listens any more")
            let listener = try directory.listen(at: "socket")
            #expect(try directory.connect(to: "socket") != nil)
            _ = listener
        }
    }

    @Test func sharedLocksTellWhetherAnybodyIsThere() throws {
        try Self.withDirectory { directory in
            var first = try directory.lockShared("clients")
            var second = try directory.lockShared("clients")
            #expect(first != nil && second != nil)
            #expect(try directory.isLocked("clients"))
            first = nil
            #expect(try directory.isLocked("clients"))
            second = nil
            #expect(try !directory.isLocked("clients"))
        }
    }

    /// A child that goes on without another program would keep a lock and a connection open after its parent has ended.
    @Test func aForkedChildHoldsNothingOpen() throws {
        typealias Fork = @convention(c) () -> pid_t
        let symbol = try #require(dlsym(UnsafeMutableRawPointer(bitPattern: 0), "fork"))
        let fork = unsafeBitCast(symbol, to: Fork.self)
        try Self.withDirectory { directory in
            let listener = try directory.listen(at: "socket")
            let client = try #require(try directory.connect(to: "socket"))
            let server = try Self.accept(listener)
            let lock = try directory.lock("lock")
            let numbers = (listener.number, client.number, server.number, lock.descriptor.number)
            let child = fork()
            if child == 0 {
                // Only what may be called in the child of a process with many threads.
                let isOpen = [numbers.0, numbers.1, numbers.2, numbers.3].contains { fcntl($0, F_GETFD) != -1 }
                _exit(isOpen ? 1 : 0)
            }
            var status: Int32 = -1
            #expect(waitpid(child, &status, 0) == child && status == 0)
            #expect([numbers.0, numbers.1, numbers.2, numbers.3].allSatisfy { fcntl($0, F_GETFD) != -1 })
        }
    }
}
