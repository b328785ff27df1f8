import Glibc
import StalkCore
import Testing

@testable import StalkIndex

/// What the system refuses while an index is open: the error says so, nothing is left behind, and work goes on where it can.
@Suite struct FailureTests {
    @Test func lockFileThatIsALinkIsRefused() throws {
        let directory = TemporaryDirectory()
        try directory.fill(count: 1)
        unlink("\(directory.path)/lock.mdb")
        try #require(symlink("/dev/null", "\(directory.path)/lock.mdb") == 0)
        #expect(code { _ = try directory.environment() } == .notAStore)
        unlink("\(directory.path)/lock.mdb")
        #expect(code { _ = try directory.environment() } == nil)
    }

    @Test(arguments: [false, true])
    func copyThatFindsNoRoomLeavesNothingBehind(isCompaction: Bool) async {
        await #expect(processExitsWith: .success) { [isCompaction = isCompaction as Bool] in
            let directory = TemporaryDirectory()
            try directory.fill(count: 200, valueBytes: 3000)
            let environment = try directory.environment(createIfMissing: false)
            let target = "\(directory.path)/copy"
            mkdir(target, 0o700)
            signal(SIGXFSZ, SIG_IGN)
            limitResource(RLIMIT_FSIZE.rawValue, 300_000)
            let refused = code { isCompaction ? try environment.compact() : try environment.copy(to: target) }
            limitResource(RLIMIT_FSIZE.rawValue, .max)
            #expect([.storageFull, .storageFailed].contains(refused))
            #expect(access("\(target)/data.mdb", F_OK) != 0)
            #expect(access("\(directory.path)/\(Environment.replacementName)", F_OK) != 0)
            // The original is as it was, and there is room now.
            let table = environment.table("messages")
            let count = try environment.read { transaction throws(StalkError) in try transaction.count(table) }
            #expect(count == 200)
            #expect(code { isCompaction ? try environment.compact() : try environment.copy(to: target) } == nil)
            #expect(isCompaction || access("\(target)/data.mdb", F_OK) == 0)
            unlink("\(target)/data.mdb")
            rmdir(target)
            environment.close()
            directory.remove()
        }
    }

    /// Somebody takes data.mdb away while the copy that is to replace it is made.
    @Test func fileThatIsGoneAfterCompactionRefusesAll() throws {
        let directory = TemporaryDirectory()
        try directory.fill(count: 20)
        let environment = try directory.environment(createIfMissing: false)
        let table = environment.table("messages")
        #expect(environment.isOpen)
        unlink(directory.dataFile)
        try #require(mkdir(directory.dataFile, 0o700) == 0)
        #expect(code { try environment.compact() } == .notAStore)
        #expect(!environment.isOpen)
        #expect(code { try environment.compact() } == .notAStore)
        #expect(
            code { try environment.write { transaction throws(StalkError) in try transaction.put(table, [1], [1]) } }
                == .notAStore
        )
        #expect(code { try environment.read { _ in } } == .closed)
        rmdir(directory.dataFile)
        unlink("\(directory.path)/\(Environment.replacementName)")
    }

    @Test func mapThatCanNotGrowIsTriedAgain() async {
        await #expect(processExitsWith: .success) {
            let directory = TemporaryDirectory()
            let environment = try directory.environment(mapBytes: 0)
            let table = environment.table("messages")
            try environment.write { transaction throws(StalkError) in
                try transaction.put(table, key(0), value(0, count: 3000))
            }
            let large = [UInt8](repeating: 7, count: 300 << 20)
            let write = {
                try environment.write { transaction throws(StalkError) in try transaction.put(table, key(1), large) }
            }
            let addressBytes = try #require(mappedBytes())
            limitResource(RLIMIT_AS.rawValue, UInt64(addressBytes + (20 << 20)))
            #expect(code { try write() } == .unavailable)
            let found = try environment.read { transaction throws(StalkError) in try transaction.get(table, key(0)) }
            #expect(found == value(0, count: 3000))
            try environment.write { transaction throws(StalkError) in try transaction.put(table, key(2), [2]) }
            limitResource(RLIMIT_AS.rawValue, .max)
            #expect(code { try write() } == nil)
            environment.close()
            directory.remove()
        }
    }
}

/// Lowers a limit of this process, or takes it back to what is allowed.
private func limitResource(_ resource: UInt32, _ limit: UInt64) {
    var limits = rlimit()
    getrlimit(__rlimit_resource_t(resource), &limits)
    limits.rlim_cur = min(limits.rlim_max, rlim_t(limit))
    #expect(setrlimit(__rlimit_resource_t(resource), &limits) == 0)
}

/// How much address space this process has.
private func mappedBytes() -> Int? {
    guard let file = fopen("/proc/self/statm", "r") else { return nil }
    defer { fclose(file) }
    var pages = 0
    return withUnsafeMutablePointer(to: &pages) { pages in
        withVaList([pages]) { vfscanf(file, "%ld", $0) } == 1 ? pages.pointee * 4096 : nil
    }
}
