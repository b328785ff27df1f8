import StalkCore
import StalkFiles
import StalkTesting
import Testing

/// What every implementation of the file seam must do alike.
@Suite struct StorageContractTests {
    enum Kind: CaseIterable {
        case real, simulated

        func make(in directory: TemporaryDirectory) throws -> any StorageDirectory {
            switch self {
            case .real: try directory.store()
            case .simulated: SimulatedDisk()
            }
        }
    }

    private let temporary = TemporaryDirectory()

    @Test("Opening makes a file, or not, as it is told", arguments: Kind.allCases)
    func creation(kind: Kind) throws {
        let directory = try kind.make(in: self.temporary)
        #expect(code { _ = try directory.open("a", .existing) } == .noSuchStore)
        #expect(code { _ = try directory.open("a", .readOnly) } == .noSuchStore)
        #expect(try directory.list("") == [])
        try directory.open("a", .new).write([1, 2], at: 0)
        #expect(code { _ = try directory.open("a", .new) } != nil)
        #expect(try directory.open("a", .ifMissing).size() == 2)
        #expect(try directory.open("b", .ifMissing).size() == 0)
        #expect(try directory.open("a", .existing).read(at: 0, count: 5) == [1, 2])
        #expect(try directory.list("") == ["a", "b"])
    }

    @Test("A file opened for reading can't be written", arguments: Kind.allCases)
    func readOnly(kind: Kind) throws {
        let directory = try kind.make(in: self.temporary)
        try directory.open("a", .new).write([1, 2], at: 0)
        let file = try directory.open("a", .readOnly)
        #expect(code { try file.write([9], at: 0) } != nil)
        #expect(code { try file.fillWithZeros(10) } != nil)
        #expect(try file.read(at: 0, count: 2) == [1, 2])
    }

    @Test("Reading gives fewer bytes only at the end", arguments: Kind.allCases)
    func readAtEnd(kind: Kind) throws {
        let file = try kind.make(in: self.temporary).open("a", .new)
        #expect(try file.read(at: 0, count: 10) == [])
        let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0) }
        try file.write(bytes, at: 0)
        #expect(try file.read(at: 0, count: 0) == [])
        #expect(try file.read(at: 0, count: 10_000) == bytes)
        #expect(try file.read(at: 0, count: 20_000) == bytes)
        #expect(try file.read(at: 4090, count: 10) == Array(bytes[4090..<4100]))
        #expect(try file.read(at: 9_995, count: 10) == Array(bytes[9_995...]))
        #expect(try file.read(at: 10_000, count: 10) == [])
        #expect(try file.read(at: 50_000, count: 10) == [])
    }

    @Test("Writing behind the end leaves zeros between", arguments: Kind.allCases)
    func writeBehindEnd(kind: Kind) throws {
        let file = try kind.make(in: self.temporary).open("a", .new)
        try file.write([1], at: 0)
        try file.write([2], at: 9000)
        #expect(try file.size() == 9001)
        #expect(try file.read(at: 0, count: 10_000) == [1] + [UInt8](repeating: 0, count: 8999) + [2])
        try file.write([], at: 20_000)
        #expect(try file.size() == 9001)
    }

    @Test("A filled file holds zeros and has its size", arguments: Kind.allCases, [1, 4096, 100_000, (1 << 20) + 4096])
    func fillWithZeros(kind: Kind, size: Int) throws {
        let file = try kind.make(in: self.temporary).open("a", .new)
        try file.fillWithZeros(size)
        #expect(try file.size() == size)
        #expect(try file.read(at: 0, count: size + 1) == [UInt8](repeating: 0, count: size))
        try file.write([7], at: size - 1)
        #expect(try file.size() == size)
    }

    @Test("Synced bytes are there when the file is dropped from memory", arguments: Kind.allCases)
    func dropCache(kind: Kind) throws {
        let file = try kind.make(in: self.temporary).open("a", .new)
        try file.write([1, 2, 3], at: 5000)
        try file.sync()
        try file.write([4], at: 5000)
        try file.dropCache()
        #expect(try file.read(at: 5000, count: 3) == [4, 2, 3])
    }

    @Test("Renaming replaces, removing forgets, and open files live on", arguments: Kind.allCases)
    func renameAndRemove(kind: Kind) throws {
        let directory = try kind.make(in: self.temporary)
        try directory.makeDirectory("log")
        let first = try directory.open("log/a", .new)
        try first.write([1], at: 0)
        try directory.open("log/b", .new).write([2], at: 0)
        try directory.rename("log/a", to: "log/b")
        #expect(try directory.list("log") == ["b"])
        #expect(try directory.open("log/b", .readOnly).read(at: 0, count: 1) == [1])
        try directory.rename("log/b", to: "c")
        #expect(try directory.list("log") == [])
        try directory.remove("c")
        #expect(try directory.list("") == ["log"])
        try first.write([3], at: 1)
        #expect(try first.read(at: 0, count: 2) == [1, 3])
        try directory.sync("log")
        try directory.sync("")
        #expect(code { try directory.remove("c") } == .noSuchStore)
        #expect(code { try directory.rename("c", to: "d") } == .noSuchStore)
        #expect(code { try directory.sync("missing") } == .noSuchStore)
    }

    @Test("A subdirectory can be made twice, but not over a file", arguments: Kind.allCases)
    func makeDirectory(kind: Kind) throws {
        let directory = try kind.make(in: self.temporary)
        try directory.makeDirectory("log")
        try directory.makeDirectory("log")
        _ = try directory.open("file", .new)
        #expect(code { try directory.makeDirectory("file") } == .notAStore)
        #expect(code { _ = try directory.open("missing/a", .new) } == .noSuchStore)
        #expect(code { _ = try directory.open("log", .existing) } == .notAStore)
        #expect(try directory.list("missing") == [])
        #expect(try directory.list("") == ["file", "log"])
    }

    /// All of these lead to files of this test: where nothing refuses them, nothing else must come to harm.
    @Test(
        "No name leads out of the directory",
        arguments: Kind.allCases,
        ["..", "../a", "log/../../a", "log/..", "absolute", ""]
    )
    func namesThatLeadOut(kind: Kind, name: String) throws {
        let directory = try kind.make(in: self.temporary)
        let name = name == "absolute" ? "\(self.temporary.path)/a" : name
        try directory.makeDirectory("log")
        _ = try directory.open("inside", .new)
        try self.temporary.makeFile("a")
        #expect(code { _ = try directory.open(name, .ifMissing) } != nil)
        #expect(code { try directory.makeDirectory(name) } != nil)
        #expect(code { try directory.rename("inside", to: name) } != nil)
        #expect(code { try directory.rename(name, to: "outside") } != nil)
        #expect(code { try directory.remove(name) } != nil)
        #expect(try directory.list("") == ["inside", "log"])
        #expect(self.temporary.exists("a"))
    }

    @Test("A name that is too long says so", arguments: Kind.allCases)
    func longNames(kind: Kind) throws {
        let directory = try kind.make(in: self.temporary)
        let name = String(repeating: "n", count: 255)
        _ = try directory.open(name, .new)
        #expect(try directory.list("") == [name])
        #expect(code { _ = try directory.open(name + "n", .new) } == .pathTooLong)
        #expect(code { try directory.makeDirectory(name + "n") } == .pathTooLong)
        #expect(code { try directory.rename(name, to: name + "n") } == .pathTooLong)
    }
}
