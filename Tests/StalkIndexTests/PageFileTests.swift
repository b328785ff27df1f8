import Glibc
import StalkCore
import Testing

@testable import StalkIndex

/// What LMDB would never write is named, whatever it is; the sound neighbours of each fault are the control.
@Suite struct PageFileTests {
    let directory = TemporaryDirectory()

    /// What is wrong with a file, in the order in which it was found, and how many rows came out.
    private func examine(_ file: CraftedFile, _ table: String = "t") throws -> (problems: [String], rows: Int) {
        try file.write(to: self.directory.dataFile)
        let pages = try PageFile(directory: self.directory.path)
        var count = 0
        if var rows = pages.rows(of: table) {
            while rows.next() != nil { count += 1 }
        }
        pages.checkFreePages()
        #expect(pages.isSound == pages.problems.isEmpty)
        return (pages.problems.map(\.what), count)
    }

    /// A table of two leaves with two rows each.
    private func sound(
        first: [[UInt8]] = [[1], [2]],
        second: [[UInt8]] = [[3], [4]],
        entries: UInt64 = 4
    ) throws -> CraftedFile {
        var file = CraftedFile()
        let left = try file.add(isLeaf: true, first.map { .value($0, [7]) })
        let right = try file.add(isLeaf: true, second.map { .value($0, [7]) })
        let root = try file.add(isLeaf: false, [.child([], page: left), .child([3], page: right)])
        try file.addMain([.table([UInt8(ascii: "t")], root: root, entries: entries)])
        return file
    }

    @Test func soundFileIsSound() throws {
        let outcome = try self.examine(self.sound())
        #expect(outcome == ([], 4))
    }

    @Test func rowsOutOfTheirPlaceAreNamed() throws {
        let before = try self.examine(self.sound(second: [[2, 9], [4]]))
        #expect(before.problems == ["keys come before their place in the tree of the table t"])
        let behind = try self.examine(self.sound(first: [[1], [3, 1]]))
        #expect(behind.problems == ["keys come behind their place in the tree of the table t"])
        let unordered = try self.examine(self.sound(first: [[2], [1]]))
        #expect(unordered.problems == ["node 1 is out of order, in the tree of the table t"])
        let miscounted = try self.examine(self.sound(entries: 5))
        #expect(miscounted.problems == ["the tree of the table t should have 5 rows, and 4 were found"])
    }

    @Test func treeOfTwoDepthsIsNamed() throws {
        var file = CraftedFile()
        let shallow = try file.add(isLeaf: true, [.value([1], [7])])
        let deep = try file.add(isLeaf: true, [.value([3], [7])])
        let branch = try file.add(isLeaf: false, [.child([], page: deep)])
        let root = try file.add(isLeaf: false, [.child([], page: shallow), .child([3], page: branch)])
        try file.addMain([.table([UInt8(ascii: "t")], root: root, entries: 2)])
        #expect(try self.examine(file) == (["the tree of the table t is not of one depth"], 2))
    }

    /// LMDB aborts the process there.
    @Test(arguments: [31, 32])
    func treeIsNoDeeperThanLMDBCanGo(depth: Int) throws {
        var file = CraftedFile()
        var page = try file.add(isLeaf: true, [.value([1], [7])])
        for _ in 1..<depth { page = try file.add(isLeaf: false, [.child([], page: page)]) }
        try file.addMain([.table([UInt8(ascii: "t")], root: page, entries: 1)])
        let problems = try self.examine(file).problems
        if depth > 31 {
            #expect(problems.first == "the tree of the table t is too deep here")
        } else {
            #expect(problems == [])
        }
    }

    @Test func nodesThatCanNotBeAreNamed() throws {
        var file = CraftedFile()
        let root = try file.add(
            isLeaf: true,
            [.value([1], [7]), .flagged([2], flags: 0x02, [UInt8](repeating: 0, count: 48))]
        )
        try file.addMain([
            .flagged([UInt8(ascii: "f")], flags: 0x02, [0, 0, 0, 0, 4] + [UInt8](repeating: 0, count: 43)),
            .value([UInt8(ascii: "n")], [1, 2, 3]),
            .table([UInt8(ascii: "t")], root: root, entries: 1),
        ])
        let outcome = try self.examine(file)
        #expect(
            outcome.problems == [
                "the table \"f\" has the flags 4", "the entry \"n\" of the list of tables is no table",
                "a row of the tree of the table t has flags that it can't have",
            ]
        )
        #expect(outcome.rows == 1)
    }

    @Test func valuesOnPagesOfTheirOwn() throws {
        let value = [UInt8](repeating: 5, count: 9000)
        func file(pageCount: UInt32? = nil, shift: UInt64 = 0) throws -> CraftedFile {
            var file = CraftedFile()
            let place = file.addOverflow(value, pageCount: pageCount)
            let root = try file.add(isLeaf: true, [.overflow([1], page: place + shift, byteCount: value.count)])
            try file.addMain([.table([UInt8(ascii: "t")], root: root, entries: 1)])
            return file
        }
        #expect(try self.examine(file()) == ([], 1))
        for damaged in [try file(pageCount: 2), try file(pageCount: 1000), try file(shift: 1), try file(shift: 90)] {
            let problems = try self.examine(damaged).problems
            #expect(problems.first?.hasPrefix("a value of 9000 bytes on page ") == true, "\(problems)")
        }
    }

    @Test func listOfFreePagesIsChecked() throws {
        func problems(_ numbers: [UInt64], count: UInt64? = nil) throws -> [String] {
            var file = try self.sound()
            file.freeRoot = try file.addFree(numbers, count: count)
            file.lastPage = 9
            return try self.examine(file).problems
        }
        #expect(try problems([9, 8]) == [])
        #expect(try problems([9, 8], count: 3) == ["a record of the list of free pages is damaged"])
        #expect(try problems([10, 8]) == ["the list of free pages names page 10, which it can't"])
        #expect(try problems([1]) == ["the list of free pages names page 1, which it can't"])
        #expect(try problems([9, 3]) == ["this page is in use, but the list of free pages names it"])
    }

    @Test func metaPagesMustAgree() throws {
        var file = try self.sound()
        file.pageSizes = [4096, 8192]
        #expect(try self.examine(file).problems.contains("the two meta pages name different page sizes"))
        let error = #expect(throws: StalkError.self) { _ = try self.directory.environment() }
        #expect(error?.code == .storeDamaged)
        #expect(error?.message.contains("its two meta pages name different page sizes") == true)

        // A version is believed only when both pages name it.
        file.pageSizes = [4096, 4096]
        file.versions = [2, 1]
        #expect(try self.examine(file).problems.contains("this meta page is damaged"))
        file.versions = [2, 2]
        try file.write(to: self.directory.dataFile)
        #expect(code { _ = try PageFile(directory: self.directory.path) } == .newerFormat)
    }

    @Test func whatIsNoFileIsRefused() throws {
        try #require(mkdir(self.directory.dataFile, 0o700) == 0)
        #expect(code { _ = try PageFile(directory: self.directory.path) } == .notAStore)
        rmdir(self.directory.dataFile)
        #expect(code { _ = try PageFile(directory: self.directory.path) } == .notAStore)
        // The claim on the directory was given back each time.
        #expect(code { _ = try self.directory.environment() } == nil)
        #expect(try PageFile(directory: self.directory.path).isSound)
    }

    /// Of a long list of free pages the tree has branches; the pages that the file lacks may be anywhere in it.
    @Test func missingPagesMayBeAnywhereInTheListOfFreePages() throws {
        func covers(_ first: [UInt64], _ second: [UInt64], flags: UInt16? = nil) throws -> Bool {
            var file = CraftedFile()
            let left = try file.addFree(first)
            let right = try file.addFree(second)
            file.freeRoot = try file.add(
                isLeaf: false,
                [.child([], page: left), .child(CraftedFile.littleEndian(4), page: right)],
                flags: flags
            )
            file.lastPage = 7
            try file.write(to: self.directory.dataFile)
            let bytes = try readFile(self.directory.dataFile)
            let meta = try MetaPage(Array(bytes[4096...]), index: 1)
            return FreePages.coverMissing(of: meta, fileBytes: bytes.count) { buffer, offset in
                buffer.copyBytes(from: bytes[offset..<offset + buffer.count])
                return true
            }
        }
        #expect(try covers([5], [7, 6]))
        #expect(try !covers([5], [7]))
        #expect(try !covers([5], [7, 6], flags: 0x20))
    }
}
