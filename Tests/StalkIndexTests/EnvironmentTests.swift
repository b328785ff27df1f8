import Glibc
import StalkCore
import StalkIndex
import Synchronization
import Testing

@Suite struct EnvironmentTests {
    let directory = TemporaryDirectory()

    @Test func contentSurvivesReopening() throws {
        try self.directory.fill(count: 50)
        let environment = try self.directory.environment(createIfMissing: false)
        let found = try environment.read { transaction throws(StalkError) in
            try transaction.get(environment.table("messages"), key(49))
        }
        #expect(found == value(49, count: 300))
    }

    @Test func filesArePrivate() throws {
        try self.directory.fill(count: 1)
        for name in ["data.mdb", "lock.mdb"] {
            var status = stat()
            try #require(stat("\(self.directory.path)/\(name)", &status) == 0)
            #expect(status.st_mode & 0o777 == 0o600)
        }
    }

    @Test func secondOpeningIsRefused() throws {
        let environment = try self.directory.environment()
        #expect(code { _ = try self.directory.environment() } == .storeBusy)
        #expect(code { _ = try Environment(at: "\(self.directory.path)/../\(self.directory.name)") } == .storeBusy)
        environment.close()
        #expect(code { _ = try self.directory.environment() } == nil)
    }

    @Test func failedOpeningLeavesNoClaim() throws {
        #expect(code { _ = try self.directory.environment(createIfMissing: false) } == .notAStore)
        try writeFile(self.directory.dataFile, [1, 2, 3])
        #expect(code { _ = try self.directory.environment() } == .storeDamaged)
        unlink(self.directory.dataFile)
        #expect(code { _ = try self.directory.environment() } == nil)
    }

    @Test func missingPlacesAreNamed() throws {
        #expect(code { _ = try Environment(at: "\(self.directory.path)/nowhere") } == .notAStore)
        symlink("/etc/passwd", self.directory.dataFile)
        #expect(code { _ = try self.directory.environment() } == .notAStore)
    }

    @Test func missingTableIsRefused() throws {
        try self.directory.fill(count: 1)
        #expect(code { _ = try self.directory.environment(["other"], createIfMissing: false) } == .storeDamaged)
        #expect(code { _ = try self.directory.environment(["messages", "other"]) } == nil)
    }

    @Test func closedRefusesAll() throws {
        let environment = try self.directory.environment()
        environment.close()
        environment.close()
        #expect(code { try environment.read { _ in } } == .closed)
        #expect(code { try environment.write { _ in } } == .closed)
        #expect(code { _ = try environment.statistics() } == .closed)
        #expect(environment.fileBytes == 0)
    }

    @Test func writeInsideWriteIsRefused() throws {
        let environment = try self.directory.environment()
        let thrown = code {
            try environment.write { _ throws(StalkError) in
                try environment.write { _ in }
            }
        }
        #expect(thrown == .invalidArgument)
    }

    @Test func statisticsAddUp() throws {
        let environment = try self.directory.environment()
        let table = environment.table("messages")
        try environment.write { transaction throws(StalkError) in
            for index in 0..<500 { try transaction.put(table, key(index), value(index, count: 1000)) }
        }
        let full = try environment.statistics()
        #expect(full.liveBytes > 500_000)
        #expect(full.fileBytes == environment.fileBytes)
        try environment.write { transaction throws(StalkError) in
            #expect(try transaction.deleteRange(table, upTo: nil) == 500)
        }
        let empty = try environment.statistics()
        #expect(empty.freeBytes > 500_000)
        #expect(empty.liveBytes < 50_000)
        #expect(empty.usedBytes >= full.usedBytes)
        #expect(empty.transactionCount == full.transactionCount + 1)
    }

    @Test func mapGrowsUnderReaders() throws {
        let environment = try self.directory.environment(mapBytes: 0)
        let before = try environment.statistics().mapBytes
        let table = environment.table("messages")
        try environment.write { transaction throws(StalkError) in try transaction.put(table, key(0), [0]) }
        let isDone = Atomic<Bool>(false)
        let reads = Atomic<Int>(0)
        let readers = (0..<3).map { _ in
            Thread {
                while !isDone.load(ordering: .acquiring) {
                    try environment.read { transaction throws(StalkError) in
                        var count = 0
                        try transaction.scan(table) { key, _ in
                            count += 1
                            return .next
                        }
                        // A snapshot holds whole rounds of 40 only, after the first entry.
                        #expect(count % 40 == 1)
                    }
                    reads.add(1, ordering: .relaxed)
                }
            }
        }
        var attempts = 0
        for round in 0..<25 {
            try environment.write { transaction throws(StalkError) in
                attempts += 1
                for index in 1...40 {
                    try transaction.put(table, key(round * 40 + index), value(index, count: 3000))
                }
            }
        }
        while reads.load(ordering: .relaxed) < 3 { sched_yield() }
        isDone.store(true, ordering: .releasing)
        for reader in readers { reader.join() }
        #expect(attempts > 25)
        #expect(try environment.statistics().mapBytes >= 8 * before)
        let count = try environment.read { transaction throws(StalkError) in try transaction.count(table) }
        #expect(count == 1001)
    }

    @Test func bodyThatHidesAFullMapIsRunAgain() throws {
        let environment = try self.directory.environment(mapBytes: 0)
        let table = environment.table("messages")
        var attempts = 0
        try environment.write { transaction in
            attempts += 1
            try? transaction.put(table, [1], value(1, count: 1 << 20))
        }
        #expect(attempts > 1)
        let found = try environment.read { transaction throws(StalkError) in try transaction.get(table, [1]) }
        #expect(found == value(1, count: 1 << 20))
    }

    @Test func writesOfTwoThreadsWaitForEachOther() throws {
        let environment = try self.directory.environment()
        let table = environment.table("messages")
        let isInside = Atomic<Bool>(false)
        let writers = (0..<2).map { _ in
            Thread {
                for _ in 0..<50 {
                    try environment.write { transaction throws(StalkError) in
                        let wasInside = isInside.exchange(true, ordering: .acquiringAndReleasing)
                        #expect(!wasInside)
                        let count = try transaction.get(table, [1])?[0] ?? 0
                        try transaction.put(table, [1], [count + 1])
                        isInside.store(false, ordering: .releasing)
                    }
                }
            }
        }
        for writer in writers { writer.join() }
        let count = try environment.read { transaction throws(StalkError) in try transaction.get(table, [1]) }
        #expect(count == [100])
    }

    @Test func closeWaitsForReaders() throws {
        let environment = try self.directory.environment()
        let table = environment.table("messages")
        try environment.write { transaction throws(StalkError) in try transaction.put(table, [1], [1]) }
        let isInside = Atomic<Bool>(false)
        let reader = Thread {
            try environment.read { transaction throws(StalkError) in
                isInside.store(true, ordering: .releasing)
                for _ in 0..<2000 { #expect(try transaction.get(table, [1]) == [1]) }
            }
        }
        while !isInside.load(ordering: .acquiring) { sched_yield() }
        environment.close()
        reader.join()
        #expect(code { try environment.read { _ in } } == .closed)
    }

    @Test func moreReadersThanSlotsAreRefused() throws {
        let environment = try self.directory.environment()
        let inside = Atomic<Int>(0)
        let refused = Atomic<Int>(0)
        let readers = (0..<130).map { _ in
            Thread {
                let outcome = code {
                    try environment.read { _ in
                        inside.add(1, ordering: .acquiringAndReleasing)
                        while inside.load(ordering: .acquiring) + refused.load(ordering: .acquiring) < 130 {
                            sched_yield()
                        }
                    }
                }
                if outcome == .unavailable { refused.add(1, ordering: .acquiringAndReleasing) }
            }
        }
        for reader in readers { reader.join() }
        #expect(inside.load(ordering: .relaxed) == 126)
        #expect(refused.load(ordering: .relaxed) == 4)
        // The slots are free again.
        #expect(code { try environment.read { _ in } } == nil)
    }
}
