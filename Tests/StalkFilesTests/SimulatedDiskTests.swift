import StalkCore
import StalkFiles
import StalkTesting
import Testing

@Suite struct SimulatedDiskTests {
    private let seeds = 0..<200 as Range<UInt64>
    private let disk = SimulatedDisk()

    private func bytes(_ disk: SimulatedDisk, _ name: String = "a") -> [UInt8]? { disk.contents(of: name) }

    /// A durable file of two pages of ones.
    private func makeFile() throws -> any StorageFile {
        let file = try self.disk.open("a", .new)
        try file.write([UInt8](repeating: 1, count: 8192), at: 0)
        try file.sync()
        try self.disk.sync("")
        return file
    }

    // MARK: Power cuts

    @Test("What is synced survives every power cut")
    func syncedSurvives() throws {
        let file = try self.makeFile()
        try file.write([2, 3], at: 4095)
        try file.sync()
        let expected = try file.read(at: 0, count: 8192)
        for seed in self.seeds { #expect(self.bytes(self.disk.crash(seed: seed)) == expected) }
    }

    @Test("The same seed gives the same disk, and other seeds others")
    func seedsDecide() throws {
        let file = try self.makeFile()
        try file.write([UInt8](repeating: 2, count: 8192), at: 0)
        var results: Set<[UInt8]> = []
        for seed in self.seeds {
            let first = try #require(self.bytes(self.disk.crash(seed: seed)))
            #expect(self.bytes(self.disk.crash(seed: seed)) == first)
            results.insert(first)
        }
        #expect(results.count > 20)
    }

    @Test("Unsynced bytes survive by sectors or pages: none, some or all")
    func unsyncedIsTorn() throws {
        let file = try self.makeFile()
        try file.write([UInt8](repeating: 2, count: 8192), at: 0)
        var survivors: Set<Int> = []
        for seed in self.seeds {
            let bytes = try #require(self.bytes(self.disk.crash(seed: seed)))
            var count = 0
            for sector in stride(from: 0, to: 8192, by: 512) {
                let values = Set(bytes[sector..<sector + 512])
                #expect(values == [1] || values == [2], "a sector is written as a whole or not")
                if values == [2] { count += 1 }
            }
            survivors.insert(count)
        }
        #expect(survivors.isSuperset(of: [0, 8, 16]))
        #expect(survivors.contains { $0 % 8 != 0 })
        #expect(try file.read(at: 0, count: 8192) == [UInt8](repeating: 2, count: 8192), "the disk itself goes on")
    }

    @Test("Writes survive in any order, and a sector never loses an earlier write to a later one")
    func reordering() throws {
        let file = try self.makeFile()
        try file.write([2], at: 0)
        try file.write([3], at: 1)
        try file.write([4], at: 4096)
        var found: Set<[UInt8]> = []
        for seed in self.seeds {
            let bytes = try #require(self.bytes(self.disk.crash(seed: seed)))
            found.insert([bytes[0], bytes[1], bytes[4096]])
        }
        #expect(found == [[1, 1, 1], [2, 1, 1], [2, 3, 1], [1, 1, 4], [2, 1, 4], [2, 3, 4]])
    }

    @Test("The size of a growing file may be ahead of its bytes, or behind")
    func growth() throws {
        let file = try self.makeFile()
        try file.write([UInt8](repeating: 2, count: 4096), at: 8192)
        var found: Set<[UInt8]> = []
        for seed in self.seeds {
            found.insert(Array(try #require(self.bytes(self.disk.crash(seed: seed))).dropFirst(8192)))
        }
        #expect(found.isSuperset(of: [[], [UInt8](repeating: 0, count: 4096), [UInt8](repeating: 2, count: 4096)]))
    }

    @Test("A filled file survives whole once its name does")
    func filled() throws {
        try self.disk.open("a", .new).fillWithZeros(10_000)
        var found: Set<Int?> = []
        for seed in self.seeds { found.insert(self.bytes(self.disk.crash(seed: seed))?.count) }
        #expect(found == [nil, 10_000])
        try self.disk.sync("")
        for seed in self.seeds { #expect(self.bytes(self.disk.crash(seed: seed))?.count == 10_000) }
    }

    @Test("Names survive only when their directory was synced, and a rename happens as a whole or not")
    func names() throws {
        try self.disk.makeDirectory("log")
        let file = try self.disk.open("log/a", .new)
        try file.write([7], at: 0)
        try file.sync()
        #expect(self.lists() == [[], ["a"]])
        try self.disk.sync("")
        #expect(self.lists() == [[], ["a"]], "it is another directory")
        try self.disk.sync("log")
        #expect(self.lists() == [["a"]])
        try self.disk.rename("log/a", to: "log/b")
        #expect(self.lists() == [["a"], ["b"]])
        try self.disk.sync("log")
        try self.disk.remove("log/b")
        #expect(self.lists() == [[], ["b"]])
        _ = try self.disk.open("log/c", .new)
        #expect(self.lists() == [[], ["b"], ["c"], ["b", "c"]])
    }

    private func lists() -> Set<[String]> {
        Set(self.seeds.compactMap { try? self.disk.crash(seed: $0).list("log") })
    }

    @Test("A killed process loses nothing, but what it wrote is no more durable than before")
    func kill() throws {
        let file = try self.makeFile()
        try file.write([9], at: 0)
        let killed = self.disk.kill()
        #expect(self.bytes(killed)?.first == 9)
        #expect(Set(self.seeds.map { self.bytes(killed.crash(seed: $0))?.first }) == [1, 9])
        try killed.open("a", .existing).sync()
        #expect(Set(self.seeds.map { self.bytes(killed.crash(seed: $0))?.first }) == [9])
        #expect(Set(self.seeds.map { self.bytes(self.disk.crash(seed: $0))?.first }) == [1, 9])
    }

    @Test("A lying disk loses what was synced")
    func lying() throws {
        let disk = SimulatedDisk(isLying: true)
        let file = try disk.open("a", .new)
        try file.write([1], at: 0)
        try file.sync()
        try disk.sync("")
        #expect(Set(self.seeds.map { self.bytes(disk.crash(seed: $0)) }).contains(nil))
    }

    // MARK: Faults

    @Test("The power goes off during the n-th change, and stays off")
    func cutPower() throws {
        let file = try self.makeFile()
        let before = self.disk.changes
        #expect(before == 4, "creating, writing and two syncs")
        _ = try file.read(at: 0, count: 1)
        #expect(self.disk.changes == before, "reading changes nothing")
        self.disk.cutPower(atChange: before + 2)
        try file.write([5], at: 0)
        #expect(code { try file.sync() } == .storageFailed)
        #expect(code { _ = try file.read(at: 0, count: 1) } == .storageFailed)
        #expect(code { _ = try self.disk.list("") } == .storageFailed)
        let firsts = Set(self.seeds.map { self.bytes(self.disk.crash(seed: $0))?.first })
        #expect(firsts == [1, 5], "the sync that was cut made nothing durable")
        #expect(try self.disk.crash(seed: 1).list("") == ["a"], "the power is back on")
    }

    @Test("The n-th call of a kind fails, once or for ever", arguments: [false, true])
    func faults(isLasting: Bool) throws {
        let file = try self.makeFile()
        self.disk.inject(DiskFault(.write, call: 2, error: .diskFull, isLasting: isLasting, reachedBytes: 1))
        try file.write([2, 2], at: 0)
        #expect(code { try file.write([3, 3], at: 0) } == .storageFull)
        #expect(try file.read(at: 0, count: 2) == [3, 2], "a part of it reached memory")
        #expect(code { try file.write([4, 4], at: 0) } == (isLasting ? .storageFull : nil))
        try file.sync()
        #expect(self.disk.calls(of: .write) == 4)
        #expect(self.disk.calls(of: .sync) == 2)
    }

    @Test("Each kind of call can fail", arguments: DiskOperation.allCases)
    func eachKind(operation: DiskOperation) throws {
        let file = try self.makeFile()
        self.disk.inject(DiskFault(operation, isLasting: true))
        let failed = [
            code { _ = try self.disk.open("b", .ifMissing) }, code { _ = try self.disk.list("") },
            code { try self.disk.makeDirectory("log") }, code { try self.disk.rename("a", to: "c") },
            code { try self.disk.rename("c", to: "a") }, code { try self.disk.sync("") },
            code { _ = try file.size() }, code { _ = try file.read(at: 0, count: 1) },
            code { try file.write([1], at: 0) },
            code { try file.sync() }, code { try file.fillWithZeros(10) }, code { try file.dropCache() },
            code { try self.disk.remove("a") },
        ]
        #expect(failed.contains(.storageFailed))
        #expect(failed.contains(nil))
    }

    @Test("After a failed sync, memory shows the new bytes, syncs succeed, and the disk has the old ones")
    func failedSync() throws {
        let file = try self.makeFile()
        try file.write([5], at: 0)
        self.disk.inject(DiskFault(.sync))
        #expect(code { try file.sync() } == .storageFailed)
        try file.sync()
        #expect(try file.read(at: 0, count: 1) == [5])
        for seed in self.seeds { #expect(self.bytes(self.disk.crash(seed: seed))?.first == 1) }
        // Only the page that is written again goes to the disk.
        try file.write([6], at: 4096)
        try file.sync()
        try file.dropCache()
        #expect(try file.read(at: 0, count: 1) == [1])
        #expect(try file.read(at: 4096, count: 1) == [6])
    }

    // MARK: Damage

    @Test("Damage is durable at once, and leaves alone what is not synced")
    func damage() throws {
        let file = try self.makeFile()
        try file.write([5], at: 0)
        let changes = self.disk.changes
        self.disk.damage("a", at: 4096, with: [8])
        self.disk.damage("missing", at: 0, with: [8])
        #expect(self.disk.changes == changes)
        #expect(Set(self.seeds.map { self.bytes(self.disk.crash(seed: $0))?.first }) == [1, 5])
        #expect(Set(self.seeds.map { self.bytes(self.disk.crash(seed: $0))?[4096] }) == [8])
        self.disk.truncate("a", to: 5000)
        #expect(try file.size() == 5000)
        try file.write([9], at: 6000)
        #expect(try file.read(at: 5000, count: 1001) == [UInt8](repeating: 0, count: 1000) + [9])
    }
}
