// Reads pages for a PageGuard and looks whether LMDB can follow them.

internal import Glibc
internal import StalkCore

/// Checks branches and leaves of a large data.mdb, page by page.
struct PageReader {
    /// data.mdb, which whoever gave it closes.
    var descriptor: CInt
    let path: String
    let pageBytes: Int
    /// The last page of the last commit.
    let lastPage: UInt64
    /// The pages that a tree was seen to use.
    var used: PageSet
    /// The pages that were free at the opening.
    let free: PageSet

    /// What a value that has pages of its own says of them.
    private struct Value {
        var page: UInt64
        var byteCount: Int
    }

    /// Checks a unit of a tree; returns how many leaves it has.
    ///
    /// - Parameters:
    ///   - unit: Which one.
    ///   - tree: What it is part of.
    ///   - isNew: Whether this is the first time, so that none of its pages may have been seen in another place.
    ///   - withValues: Whether to look at the pages of large values too.
    mutating func check(
        _ unit: Int,
        of tree: GuardedTree,
        isNew: Bool,
        withValues: Bool
    ) throws(StalkError) -> Int {
        let bounds = (lower: tree.units[unit].lower, upper: tree.upper(of: unit))
        let first = try self.page(tree.units[unit].page, isLeaf: tree.isLeaf, bounds, tree.name)
        var values: [Value] = []
        var leafCount = 1
        if tree.isLeaf {
            values = try self.values(on: first, tree.name)
        } else {
            let children = try self.children(of: first, bounds, tree.name)
            leafCount = children.count
            if isNew { for child in children { try self.use(child.page, from: first.number, tree.name) } }
            try self.forEachPage(children.map(\.page)) { index, bytes throws(StalkError) in
                let child = children[index]
                let leaf = try self.page(child.page, isLeaf: true, (child.lower, child.upper), tree.name, bytes)
                values += try self.values(on: leaf, tree.name)
            }
        }
        if isNew {
            for value in values {
                for page in 0..<UInt64(self.pageCount(of: value)) {
                    try self.use(value.page + page, from: first.number, tree.name)
                }
            }
        }
        if withValues { try self.checkPages(of: values, from: first.number, tree.name) }
        return leafCount
    }

    /// Checks a unit's branch and its first leaf.
    func checkEdge(_ unit: Int, of tree: GuardedTree) throws(StalkError) {
        guard !tree.isLeaf else { return }
        let bounds = (lower: tree.units[unit].lower, upper: tree.upper(of: unit))
        let branch = try self.page(tree.units[unit].page, isLeaf: false, bounds, tree.name)
        guard let child = try self.children(of: branch, bounds, tree.name).first else { return }
        let leaf = try self.page(child.page, isLeaf: true, (child.lower, child.upper), tree.name)
        _ = try self.values(on: leaf, tree.name)
    }

    /// Reads a page of a tree and checks it.
    func page(
        _ number: UInt64,
        isLeaf: Bool,
        _ bounds: (lower: [UInt8], upper: [UInt8]?),
        _ tree: String,
        _ read: [UInt8]? = nil
    ) throws(StalkError) -> TreePage {
        guard let bytes = read ?? self.bytes(at: number, count: self.pageBytes),
            let page = TreePage(bytes, number: number, keysAreNumbers: false), page.isLeaf == isLeaf
        else { throw self.damaged(number, "this is no \(isLeaf ? "leaf" : "branch"), but the tree \(tree) leads here") }
        if let fault = page.faults.first { throw self.damaged(number, "\(fault), in the tree \(tree)") }
        let keys = isLeaf ? page.nodes[...] : page.nodes.dropFirst()
        guard let first = keys.first, let last = keys.last else { return page }
        guard !page.bytes[first.key].lexicographicallyPrecedes(bounds.lower),
            bounds.upper.map({ page.bytes[last.key].lexicographicallyPrecedes($0) }) ?? true
        else { throw self.damaged(number, "keys are not in their place in the tree \(tree)") }
        return page
    }

    /// The children of a branch, and between which keys they lie.
    func children(
        of branch: TreePage,
        _ bounds: (lower: [UInt8], upper: [UInt8]?),
        _ tree: String
    ) throws(StalkError) -> [(page: UInt64, lower: [UInt8], upper: [UInt8]?)] {
        var children: [(page: UInt64, lower: [UInt8], upper: [UInt8]?)] = []
        for (index, node) in branch.nodes.enumerated() {
            guard case .child(let page) = node.content else { continue }
            let lower = index == 0 ? bounds.lower : Array(branch.bytes[node.key])
            if index > 0 { children[index - 1].upper = lower }
            guard page >= 2, page <= self.used.last else {
                let what = "the tree \(tree) leads to page \(page), which the file does not have"
                throw self.damaged(branch.number, what)
            }
            children.append((page, lower, bounds.upper))
        }
        return children
    }

    /// Marks a page as used by the tree.
    mutating func use(_ page: UInt64, from parent: UInt64, _ tree: String) throws(StalkError) {
        guard self.used.insert(page), !self.free.contains(page) else {
            throw self.damaged(parent, "the tree \(tree) leads to page \(page), which is in use already or free")
        }
    }

    /// The values of a leaf that have pages of their own, all of which the file has.
    private func values(on leaf: TreePage, _ tree: String) throws(StalkError) -> [Value] {
        var values: [Value] = []
        for node in leaf.nodes {
            switch node.content {
            case .value: continue
            case .overflow(let page, let byteCount):
                let value = Value(page: page, byteCount: byteCount)
                guard page >= 2, page <= self.used.last,
                    UInt64(self.pageCount(of: value)) <= self.used.last - page + 1
                else {
                    let what = "a value of \(byteCount) bytes on page \(page) does not fit, in the tree \(tree)"
                    throw self.damaged(leaf.number, what)
                }
                values.append(value)
            case .child, .subtable:
                throw self.damaged(leaf.number, "a row of the tree \(tree) has flags that it can't have")
            }
        }
        return values
    }

    private func pageCount(of value: Value) -> Int {
        (TreePage.headerBytes - 1 + value.byteCount) / self.pageBytes + 1
    }

    /// Looks at what the pages of values say of themselves: LMDB frees as many as they say.
    private mutating func checkPages(
        of values: [Value],
        from parent: UInt64,
        _ tree: String
    ) throws(StalkError) {
        let sorted = values.sorted { $0.page < $1.page }
        for value in sorted { self.announce(value.page, count: 1) }
        for value in sorted {
            let needed = UInt64(self.pageCount(of: value))
            guard let header = self.bytes(at: value.page, count: TreePage.headerBytes),
                littleEndian(UInt64.self, in: header, at: 0) == value.page,
                littleEndian(UInt16.self, in: header, at: 10) == 0x04
            else { throw self.damaged(value.page, "this is no value, but the tree \(tree) leads here") }
            let pages = UInt64(littleEndian(UInt32.self, in: header, at: 12))
            guard pages >= needed, pages <= self.lastPage - value.page + 1 else {
                throw self.damaged(value.page, "a value of \(value.byteCount) bytes claims \(pages) pages")
            }
            for page in value.page + needed..<value.page + pages where page <= self.used.last {
                try self.use(page, from: parent, tree)
            }
        }
    }

    // MARK: Reading

    func damaged(_ page: UInt64, _ what: String) -> StalkError {
        StalkError(
            .storeDamaged,
            "\(self.path) is damaged at byte \(page &* UInt64(self.pageBytes)): \(what); run 'stalk verify', then "
                + "'stalk repair'."
        )
    }

    /// Reads pages in the order of the file, those that lie side by side at once.
    private func forEachPage(
        _ numbers: [UInt64],
        _ body: (_ index: Int, _ bytes: [UInt8]) throws(StalkError) -> Void
    ) throws(StalkError) {
        let order = numbers.indices.sorted { numbers[$0] < numbers[$1] }
        var runs: [Range<Int>] = []
        for position in order.indices {
            if let run = runs.last, run.count < 64,
                numbers[order[position]] == numbers[order[position - 1]] + 1
            {
                runs[runs.count - 1] = run.lowerBound..<position + 1
            } else {
                runs.append(position..<position + 1)
            }
        }
        for run in runs { self.announce(numbers[order[run.lowerBound]], count: run.count) }
        for run in runs {
            let start = numbers[order[run.lowerBound]]
            guard let bytes = self.bytes(at: start, count: run.count * self.pageBytes) else {
                throw self.damaged(start, "the file ends here, but a tree leads here")
            }
            for (offset, position) in run.enumerated() {
                let page = Array(bytes[offset * self.pageBytes..<(offset + 1) * self.pageBytes])
                try body(order[position], page)
            }
        }
    }

    /// Tells the system what will be read, so that a disk can read it side by side.
    func announce(_ page: UInt64, count: Int) {
        posix_fadvise(
            self.descriptor,
            off_t(page) * off_t(self.pageBytes),
            off_t(count * self.pageBytes),
            POSIX_FADV_WILLNEED
        )
    }

    /// The bytes of whole pages, or the first ones of a page; nil when the file lacks them.
    private func bytes(at page: UInt64, count: Int) -> [UInt8]? {
        guard page >= 2, page <= self.used.last else { return nil }
        return PageFile.read(self.descriptor, at: Int(page) * self.pageBytes, count: count)
    }
}
