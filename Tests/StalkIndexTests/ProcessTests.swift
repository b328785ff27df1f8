import Foundation
import Glibc
import StalkCore
import Testing

@testable import StalkIndex

/// What needs a process of its own: limits and broken descriptors would hit the other tests.
@Suite struct ProcessTests {
    /// The limit cuts a write of LMDB somewhere, at a page's edge or inside; LMDB calls the latter an I/O error.
    @Test(arguments: [256 << 10, (256 << 10) + 1000, 200_001])
    func fullDiskIsNotAFailedDisk(limit: Int) async {
        await #expect(processExitsWith: .success) { [limit] in
            let directory = TemporaryDirectory()
            let environment = try directory.environment(mapBytes: 64 << 20)
            let table = environment.table("messages")
            try environment.write { transaction throws(StalkError) in
                try transaction.put(table, key(0), value(0, count: 3000))
            }
            signal(SIGXFSZ, SIG_IGN)
            limitFileSize(limit)
            for _ in 0..<3 {
                let refused = code {
                    try environment.write { transaction throws(StalkError) in
                        for index in 1..<200 { try transaction.put(table, key(index), value(index, count: 3000)) }
                    }
                }
                #expect(refused == .storageFull)
            }
            let found = try environment.read { transaction throws(StalkError) in
                #expect(try transaction.count(table) == 1)
                return try transaction.get(table, key(0))
            }
            #expect(found == value(0, count: 3000))
            // What fits still goes in, and comes back after reopening.
            try environment.write { transaction throws(StalkError) in try transaction.put(table, key(1), [1]) }
            environment.close()
            limitFileSize(.max)
            let reopened = try directory.environment(createIfMissing: false)
            try reopened.write { transaction throws(StalkError) in
                #expect(try transaction.count(table) == 2)
                for index in 1..<200 { try transaction.put(table, key(index), value(index, count: 3000)) }
            }
            directory.remove()
        }
    }

    /// A value whose size leads behind the end of the file: LMDB hands it out, and who reads it is killed.
    @Test func pageThatLMDBWouldCrashOnIsRefused() async throws {
        let directory = TemporaryDirectory()
        try directory.fill(count: 3, valueBytes: 9000)
        var bytes = try readFile(directory.dataFile)
        // The node of the first value: size, flags (the value has pages of its own), size of the key, key.
        let node = [0x23, 0, 0, 1, 0, UInt8(key(0).count), 0] + key(0)
        try #require(value(0, count: 9000).count + 4 == 0x232c)
        var found = 0
        for start in offsets(of: node, in: bytes) {
            bytes[start + 2] = 0x30
            found += 1
        }
        try #require(found > 0)
        try writeFile(directory.dataFile, bytes)
        let error = #expect(throws: StalkError.self) { try directory.environment(createIfMissing: false) }
        #expect(error?.code == .storeDamaged)
        #expect(error?.message.contains("data.mdb is damaged at byte") == true, "\(error?.message ?? "")")

        // As if nobody looked at the pages.
        await #expect(processExitsWith: .failure) { [path = directory.path as String] in
            let handle = try EnvironmentHandle(
                path: path,
                mapBytes: 1 << 20,
                tableCount: 1,
                access: .existing,
                checkedAtOnce: nil
            )
            let tables = try handle.openTables(["messages"], create: false)
            guard let table = tables["messages"] else { _exit(0) }
            do {
                _ = try ReadTransaction(handle.pointer).get(table, key(0))
            } catch {
                // A checksum that fails would be the other way to notice it.
                _exit(0)
            }
        }
    }

    @Test func failedDiskRefusesAllLaterWrites() async {
        await #expect(processExitsWith: .success) {
            let directory = TemporaryDirectory()
            let environment = try directory.environment()
            let table = environment.table("messages")
            let write = {
                try environment.write { transaction throws(StalkError) in try transaction.put(table, [1], [1]) }
            }
            try write()
            let saved = breakDescriptors(of: directory.dataFile)
            #expect(saved.count == 2)
            #expect(code { try write() } == .storageFailed)
            // The disk seems to be well again, but what it did with the failed write is not known.
            for (descriptor, copy) in saved { dup2(copy, descriptor) }
            #expect(code { try write() } == .storageFailed)
            let found = try environment.read { transaction throws(StalkError) in try transaction.get(table, [1]) }
            #expect(found == [1])
            environment.close()
            let reopened = try directory.environment()
            try reopened.write { transaction throws(StalkError) in try transaction.put(table, [2], [2]) }
            directory.remove()
        }
    }

    /// The store's lock keeps other processes out, but a map that another one grew must not stop this one.
    @Test func mapGrownByAnotherProcessIsTakenOver() async throws {
        let directory = TemporaryDirectory()
        let environment = try directory.environment(mapBytes: 0)
        let table = environment.table("messages")
        for round in 1...2 {
            await #expect(processExitsWith: .success) { [path = directory.path as String, round = round as Int] in
                let tables = ["messages", "ready"]
                let other = try Environment(path: path, mapBytes: 0, tables: tables, createIfMissing: false)
                let table = other.table("messages")
                try other.write { transaction throws(StalkError) in
                    try transaction.put(table, key(round), value(round, count: round << 20))
                }
                other.close()
            }
            if round == 2 {
                try environment.write { transaction throws(StalkError) in try transaction.put(table, key(3), [3]) }
            }
            let found = try environment.read { transaction throws(StalkError) in try transaction.get(table, key(round))
            }
            #expect(found == value(round, count: round << 20))
        }
    }
}

private func limitFileSize(_ limit: Int) {
    var limits = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limits)
    limits.rlim_cur = limit == .max ? limits.rlim_max : rlim_t(limit)
    #expect(setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limits) == 0)
}

/// Puts a descriptor that can't be written to in the place of each one of a file; returns copies of the true ones.
private func breakDescriptors(of path: String) -> [(descriptor: CInt, copy: CInt)] {
    // All of them: descriptors that other tests had open at the moment of the start may be here as well.
    let open = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
    let ofFile = open.compactMap { CInt($0) }.filter { descriptor in
        var target = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/fd/\(descriptor)", &target, target.count)
        let name = target.prefix(max(0, count)).map { UInt8(bitPattern: $0) }
        return String(decoding: name, as: UTF8.self) == path
    }
    let readOnly = Glibc.open("/dev/null", O_RDONLY)
    return ofFile.map { descriptor in
        let copy = dup(descriptor)
        dup2(readOnly, descriptor)
        return (descriptor, copy)
    }
}
