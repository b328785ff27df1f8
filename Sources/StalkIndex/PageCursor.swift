package import StalkCore

/// Goes over the rows of one tree of a ``PageFile``, in the order of their keys, past whatever is damaged.
package struct PageCursor {
    /// One entry of a table.
    package struct Row {
        package var key: [UInt8]
        /// What is stored there: the value and its checksum.
        package var stored: [UInt8]
        /// The page that it stands on.
        package var page: UInt64
        /// Whether it is what LMDB keeps of a table.
        var isSubtable = false

        /// The value, when its checksum says that it belongs to this table and key; else nil.
        package func value(in table: Table) -> ArraySlice<UInt8>? {
            self.key.withUnsafeBytes { key in
                self.stored.withUnsafeBytes { stored in table.value(in: stored, under: key)?.count }
            }.map { self.stored[..<$0] }
        }
    }

    private struct Level {
        var page: TreePage
        var next = 0
        /// Keys of the page are not before this, and before that.
        var lower: [UInt8]?
        var upper: [UInt8]?
    }

    /// LMDB's own limit: it aborts the process beyond.
    private static var depthMax: Int { 31 }

    private let file: PageFile
    private let tree: PageFile.Tree
    /// Whether it is the tree of tables.
    private let isNested: Bool
    private var levels: [Level] = []
    private var leafDepth: Int?
    private var rowCount: UInt64 = 0
    private var hasBegun = false

    init(_ file: PageFile, _ tree: PageFile.Tree, isNested: Bool = false) {
        self.file = file
        self.tree = tree
        self.isNested = isNested
    }

    /// The next row; nil at the end.
    package mutating func next() -> Row? {
        if !self.hasBegun {
            self.hasBegun = true
            if self.tree.root != MetaPage.noPage { self.push(self.tree.root, lower: nil, upper: nil) }
        }
        while var level = self.levels.popLast() {
            guard level.next < level.page.nodes.count else { continue }
            let node = level.page.nodes[level.next]
            level.next += 1
            let key = Array(level.page.bytes[node.key])
            if level.page.isLeaf {
                self.levels.append(level)
                guard let row = self.row(key, node, level) else { continue }
                self.rowCount += 1
                return row
            }
            let lower = level.next == 1 ? level.lower : key
            let upper =
                level.next < level.page.nodes.count
                ? Array(level.page.bytes[level.page.nodes[level.next].key]) : level.upper
            self.levels.append(level)
            if case .child(let number) = node.content { self.push(number, lower: lower, upper: upper) }
        }
        self.end()
        return nil
    }

    /// Compares what was read with what LMDB counted, once.
    private mutating func end() {
        guard self.rowCount != .max else { return }
        if let entries = self.tree.entries, entries != self.rowCount {
            self.file.note(
                page: self.tree.root == MetaPage.noPage ? 0 : self.tree.root,
                "the tree \(self.tree.name) should have \(entries) rows, and \(self.rowCount) were found"
            )
        }
        self.rowCount = .max
    }

    private mutating func push(_ number: UInt64, lower: [UInt8]?, upper: [UInt8]?) {
        guard self.levels.count < Self.depthMax else {
            return self.file.note(page: number, "the tree \(self.tree.name) is too deep here")
        }
        guard self.file.used.insert(number) else {
            let why = self.file.used.contains(number) ? "which is in use already" : "which the file does not have"
            let parent = self.levels.last?.page.number ?? 0
            return self.file.note(page: parent, "the tree \(self.tree.name) leads to page \(number), \(why)")
        }
        guard let bytes = self.file.bytes(ofPage: number, count: self.file.pageBytes),
            let page = TreePage(bytes, number: number, keysAreNumbers: self.tree.hasNumberKeys)
        else {
            return self.file.note(page: number, "this is no page of a tree, but the tree \(self.tree.name) leads here")
        }
        for fault in page.faults { self.file.note(page: number, "\(fault), in the tree \(self.tree.name)") }
        let depth = self.levels.count
        if page.isLeaf, depth != self.leafDepth ?? depth {
            self.file.note(page: number, "the tree \(self.tree.name) is not of one depth")
        }
        if page.isLeaf { self.leafDepth = depth }
        self.checkBounds(of: page, lower, upper)
        self.levels.append(Level(page: page, lower: lower, upper: upper))
    }

    private func checkBounds(of page: TreePage, _ lower: [UInt8]?, _ upper: [UInt8]?) {
        let areNumbers = self.tree.hasNumberKeys
        let keys = page.isLeaf ? page.nodes[...] : page.nodes.dropFirst()
        let isBefore = { (left: ArraySlice<UInt8>, right: ArraySlice<UInt8>) in
            TreePage.precedes(left, right, areNumbers)
        }
        guard let first = keys.first, let last = keys.last else { return }
        if let lower, isBefore(page.bytes[first.key], lower[...]) {
            self.file.note(page: page.number, "keys come before their place in the tree \(self.tree.name)")
        }
        if let upper, !isBefore(page.bytes[last.key], upper[...]) {
            self.file.note(page: page.number, "keys come behind their place in the tree \(self.tree.name)")
        }
    }

    private func row(_ key: [UInt8], _ node: TreePage.Node, _ level: Level) -> Row? {
        switch node.content {
        case .value(let range):
            return Row(key: key, stored: Array(level.page.bytes[range]), page: level.page.number)
        case .subtable(let range):
            guard self.isNested else {
                self.file.note(
                    page: level.page.number,
                    "a row of the tree \(self.tree.name) has flags that it can't have"
                )
                return nil
            }
            return Row(key: key, stored: Array(level.page.bytes[range]), page: level.page.number, isSubtable: true)
        case .overflow(let number, let byteCount):
            guard let stored = self.file.overflow(number, byteCount: byteCount) else {
                let what = "a value of \(byteCount) bytes on page \(number) does not fit, in the tree \(self.tree.name)"
                self.file.note(page: level.page.number, what)
                return nil
            }
            return Row(key: key, stored: stored, page: level.page.number)
        case .child:
            return nil
        }
    }
}

extension PageFile {
    /// A value on pages of its own, and marks them as used; nil when they are not what they must be.
    func overflow(_ number: UInt64, byteCount: Int) -> [UInt8]? {
        let needed = (TreePage.headerBytes - 1 + byteCount) / self.pageBytes + 1
        guard number >= 2, number <= self.used.last, UInt64(needed) <= self.used.last - number + 1,
            let header = self.bytes(ofPage: number, count: TreePage.headerBytes),
            littleEndian(UInt64.self, in: header, at: 0) == number,
            littleEndian(UInt16.self, in: header, at: 10) == 0x04
        else { return nil }
        let pages = UInt64(littleEndian(UInt32.self, in: header, at: 12))
        guard pages >= needed, pages <= (self.meta?.lastPage ?? 0) - number + 1 else { return nil }
        for page in number..<number + UInt64(needed) where !self.used.insert(page) { return nil }
        for page in number + UInt64(needed)..<number + pages { _ = self.used.insert(page) }
        return self.bytes(ofPage: number, count: TreePage.headerBytes + byteCount).map {
            Array($0[TreePage.headerBytes...])
        }
    }

    /// Whether rows that no tree leads to any more can be told from rows that were deleted.
    package var canFindLostRows: Bool { self.free != nil }

    /// The rows on pages that no tree leads to although they are not free: what stood under a damaged page.
    ///
    /// To be called after all tables were read. Which table a row belongs to is for its checksum to say.
    package func forEachLostRow(_ body: (PageCursor.Row) throws(StalkError) -> Void) throws(StalkError) {
        guard let free = self.free, let meta = self.meta else { return }
        for number in 2...max(2, min(meta.lastPage, self.used.last))
        where !free.contains(number) && !self.used.contains(number) {
            guard let bytes = self.bytes(ofPage: number, count: self.pageBytes),
                let page = TreePage(bytes, number: number, keysAreNumbers: false), page.isLeaf
            else { continue }
            for node in page.nodes {
                let stored: [UInt8]? =
                    switch node.content {
                    case .value(let range): Array(bytes[range])
                    case .overflow(let page, let byteCount): self.overflow(page, byteCount: byteCount)
                    case .child, .subtable: nil
                    }
                guard let stored else { continue }
                try body(PageCursor.Row(key: Array(bytes[node.key]), stored: stored, page: number))
            }
        }
    }
}
