internal import Glibc
package import StalkCore

/// data.mdb read page by page, without LMDB: LMDB trusts its pages and can crash on damaged ones, this checks each of them.
///
/// It names what is wrong with the structure, and hands out the rows that can be reached. A file in which it finds no
/// problem can be given to LMDB. It belongs to one thread, and holds the claim on the directory: LMDB must not have the
/// file open in this process, since closing a descriptor drops the locks of every other one.
package final class PageFile {
    /// Something that LMDB would never write.
    package struct Problem: Hashable, Sendable {
        /// The byte of the file at which the page begins.
        package var offset: Int
        package var what: String
    }

    /// Where LMDB keeps the rows of a table.
    struct Tree {
        var root: UInt64
        /// How many levels LMDB counted, the leaves included.
        var depth = 0
        /// How many rows LMDB counted; nil when that is not known.
        var entries: UInt64?
        /// Whether keys are numbers of eight bytes in the machine's order: the list of free pages.
        var hasNumberKeys = false
        var name: String
    }

    /// What keeps LMDB out; nil when its owner holds the claim.
    private let claim: DirectoryClaim?
    let path: String
    let descriptor: CInt
    /// The length of the file.
    package let byteCount: Int
    /// Pages of one file have one size.
    let pageBytes: Int
    /// The state that is read: that of the newest meta page that can be read.
    let meta: MetaPage?
    /// What was found so far; only the first ``problemsMax`` are kept.
    package private(set) var problems: [Problem] = []
    package private(set) var problemCount = 0
    /// The pages that a tree was seen to use.
    var used: PageSet
    /// The trees of the tables, by name.
    private(set) var tables: [String: Tree] = [:]
    /// The pages that are free; nil when the list of them is damaged.
    private(set) var free: PageSet?

    private static var problemsMax: Int { 200 }

    /// Opens data.mdb for reading and reads what it says of its tables.
    ///
    /// - Parameter directory: The directory that holds it.
    /// - Throws: ``StalkError`` with ``StalkError/Code/notAStore`` when the directory or the file is not there or is no
    ///   regular file, ``StalkError/Code/newerFormat``, ``StalkError/Code/storeBusy`` when this process has the index
    ///   open.
    package convenience init(directory: String) throws(StalkError) {
        let claim = try DirectoryClaim(directory)
        let path = "\(directory)/\(DataFile.name)"
        let descriptor = try Self.open(in: claim)
        try self.init(path, descriptor, claim: claim)
    }

    /// Opens data.mdb before LMDB does, for the one who claimed the directory.
    convenience init(in claim: borrowing DirectoryClaim) throws(StalkError) {
        try self.init("\(claim.path)/\(DataFile.name)", Self.open(in: claim), claim: nil)
    }

    private init(_ path: String, _ descriptor: CInt, claim: consuming DirectoryClaim?) throws(StalkError) {
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            Glibc.close(descriptor)
            throw StalkError(.notAStore, "\(path) is not a regular file; check the path.")
        }
        self.path = path
        self.claim = claim
        self.descriptor = descriptor
        self.byteCount = Int(status.st_size)
        let (metas, faults) = Self.metaPages(descriptor)
        let newest = metas.max { $0.transaction < $1.transaction }
        self.meta = newest
        self.pageBytes = newest?.pageBytes ?? sysconf(CInt(_SC_PAGESIZE))
        let inFile = UInt64(self.byteCount / self.pageBytes)
        self.used = PageSet(upTo: min(newest?.lastPage ?? 0, max(inFile, 1) - 1))
        try self.note(faults)
        if metas.count == 2, metas[0].pageBytes != metas[1].pageBytes {
            self.note(at: 0, "the two meta pages name different page sizes")
        }
        let older = metas.min { $0.transaction < $1.transaction }
        if metas.count == 2, let older, let newest, !older.isDirectPredecessor(of: newest) {
            self.note(at: 0, "the two meta pages are not of two commits in a row")
        }
        if let newest { self.readTrees(of: newest) }
    }

    private static func open(in claim: borrowing DirectoryClaim) throws(StalkError) -> CInt {
        let descriptor = openat(claim.descriptor, DataFile.name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else { throw .lmdb(errno, "open \(claim.path)/\(DataFile.name)") }
        return descriptor
    }

    deinit {
        Glibc.close(self.descriptor)
    }

    /// Whether nothing wrong was found with the structure so far.
    package var isSound: Bool { self.problemCount == 0 }

    /// Notes something that LMDB would never write.
    func note(page: UInt64, _ what: String) {
        self.note(at: Int(clamping: page.multipliedReportingOverflow(by: UInt64(self.pageBytes)).partialValue), what)
    }

    private func note(at offset: Int, _ what: String) {
        self.problemCount += 1
        if self.problems.count < Self.problemsMax { self.problems.append(Problem(offset: offset, what: what)) }
    }

    /// Goes over all trees, so that LMDB meets no page that it could crash on.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/storeDamaged``, naming the first page that is not sound.
    func checkStructure() throws(StalkError) {
        for table in self.tableNames {
            guard var rows = self.rows(of: table) else { continue }
            while rows.next() != nil {}
        }
        self.checkFreePages()
        guard self.isSound else { throw self.refusal }
    }

    /// The error for a file that LMDB must not get.
    var refusal: StalkError {
        let problem = self.problems.first ?? Problem(offset: 0, what: "it has no pages that can be read")
        return StalkError(
            .storeDamaged,
            "\(self.path) is damaged at byte \(problem.offset): \(problem.what). Nothing was changed; "
                + "run 'stalk verify', then 'stalk repair'."
        )
    }

    // MARK: Meta pages

    private static func metaPages(_ descriptor: CInt) -> (found: [MetaPage], faults: [(Int, MetaPage.Fault)]) {
        var found: [MetaPage] = []
        var faults: [(Int, MetaPage.Fault)] = []
        var pageBytes = sysconf(CInt(_SC_PAGESIZE))
        for index in 0..<2 {
            let bytes = Self.read(descriptor, at: index * pageBytes, count: MetaPage.byteCount) ?? []
            do throws(MetaPage.Fault) {
                let meta = try MetaPage(bytes, index: index)
                found.append(meta)
                pageBytes = meta.pageBytes
            } catch {
                faults.append((index * pageBytes, error))
            }
        }
        return (found, faults)
    }

    private func note(_ faults: [(Int, MetaPage.Fault)]) throws(StalkError) {
        if self.byteCount == 0 { self.note(at: 0, "the file is empty") }
        // A version is believed when both pages name it: they would have to rot alike.
        if case .otherFormat(let version) = faults.first?.1, faults.allSatisfy({ $0.1 == .otherFormat(version) }),
            faults.count == 2
        {
            throw StalkError(
                .newerFormat,
                "\(self.path) has LMDB format \(version), and this program knows 1; "
                    + "use a newer version of it. Nothing was changed."
            )
        }
        for (offset, _) in faults where self.byteCount > 0 { self.note(at: offset, "this meta page is damaged") }
    }

    // MARK: Trees

    private func readTrees(of meta: MetaPage) {
        self.readFreePages(Tree(root: meta.freeRoot, hasNumberKeys: true, name: "of free pages"))
        var rows = PageCursor(self, Tree(root: meta.mainRoot, name: "of tables"), isNested: true)
        while let row = rows.next() {
            let name = String(decoding: row.key, as: UTF8.self)
            guard row.isSubtable, row.stored.count == 48 else {
                self.note(page: row.page, "the entry \(quoted(name)) of the list of tables is no table")
                continue
            }
            // MDB_db: 4: flags, 6: depth, 8, 16, 24: numbers of pages, 32: rows, 40: root.
            let flags = littleEndian(UInt16.self, in: row.stored, at: 4)
            guard flags == 0 else {
                self.note(page: row.page, "the table \(quoted(name)) has the flags \(flags)")
                continue
            }
            self.tables[name] = Tree(
                root: littleEndian(UInt64.self, in: row.stored, at: 40),
                depth: Int(littleEndian(UInt16.self, in: row.stored, at: 6)),
                entries: littleEndian(UInt64.self, in: row.stored, at: 32),
                name: "of the table \(name)"
            )
        }
    }

    private func readFreePages(_ tree: Tree) {
        let before = self.problemCount
        var free = PageSet(upTo: self.used.last)
        var rows = PageCursor(self, tree)
        while let row = rows.next() {
            let count = row.stored.count >= 8 ? littleEndian(UInt64.self, in: row.stored, at: 0) : .max
            guard count < UInt64(row.stored.count / 8) else {
                self.note(page: row.page, "a record of the list of free pages is damaged")
                continue
            }
            for index in 0..<Int(count) {
                let number = littleEndian(UInt64.self, in: row.stored, at: 8 + index * 8)
                // Free pages behind the end of the file are sound: LMDB writes only what is in use.
                guard number >= 2, number <= self.meta?.lastPage ?? 0, free.insert(number) || number > free.last else {
                    self.note(page: row.page, "the list of free pages names page \(number), which it can't")
                    continue
                }
            }
        }
        self.free = self.problemCount == before ? free : nil
    }

    /// The names of the tables that the file holds.
    package var tableNames: [String] { self.tables.keys.sorted() }

    /// How many rows a table has as LMDB counted them; nil when there is no such table.
    package func rowCount(of table: String) -> Int? {
        self.tables[table]?.entries.map { Int(clamping: $0) }
    }

    /// The rows of a table in the order of their keys, as far as they can be reached; nil when there is no such table.
    ///
    /// Each table is to be read once: pages that are met twice count as damage.
    package func rows(of table: String) -> PageCursor? {
        self.tables[table].map { PageCursor(self, $0) }
    }

    /// Notes pages that are in use and free at the same time; to be called after all tables were read.
    package func checkFreePages() {
        guard let free = self.free, let double = self.used.first(alsoIn: free) else { return }
        self.note(page: double, "this page is in use, but the list of free pages names it")
    }

    // MARK: Reading

    /// The bytes of whole pages; nil when the file lacks them.
    func bytes(ofPage number: UInt64, count: Int) -> [UInt8]? {
        guard number >= 2, number <= self.used.last else { return nil }
        let offset = Int(number) * self.pageBytes
        guard count <= self.byteCount - offset else { return nil }
        return Self.read(self.descriptor, at: offset, count: count)
    }

    static func read(_ descriptor: CInt, at offset: Int, count: Int) -> [UInt8]? {
        var isWhole = true
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, done in
            while done < count {
                let result = pread(descriptor, buffer.baseAddress.map { $0 + done }, count - done, off_t(offset + done))
                if result < 0, errno == EINTR { continue }
                guard result > 0 else {
                    isWhole = false
                    return
                }
                done += result
            }
        }
        return isWhole ? bytes : nil
    }
}

/// Numbers of pages, one bit each.
struct PageSet {
    /// The greatest number that it can hold.
    let last: UInt64
    private var words: [UInt64]

    init(upTo last: UInt64) {
        self.last = last
        self.words = [UInt64](repeating: 0, count: Int(last / 64) + 1)
    }

    func contains(_ number: UInt64) -> Bool {
        number <= self.last && self.words[Int(number / 64)] & 1 << (number % 64) != 0
    }

    /// False when it is there already, or too great.
    mutating func insert(_ number: UInt64) -> Bool {
        guard number <= self.last, !self.contains(number) else { return false }
        self.words[Int(number / 64)] |= 1 << (number % 64)
        return true
    }

    /// The smallest number that another set holds too.
    func first(alsoIn other: PageSet) -> UInt64? {
        for (index, (left, right)) in zip(self.words, other.words).enumerated() where left & right != 0 {
            return UInt64(index) * 64 + UInt64((left & right).trailingZeroBitCount)
        }
        return nil
    }
}
