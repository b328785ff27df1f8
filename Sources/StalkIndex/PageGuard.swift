// Looks at the pages of a large data.mdb shortly before LMDB follows them, since reading all of it would hold up opening.

internal import Glibc
internal import StalkCore

/// Keeps LMDB from following pages that nobody has looked at: it trusts them, and can crash on a damaged one.
///
/// Opening looks at all pages but those near the leaves. A *unit* is what lies below the last branches: one of these and
/// its leaves, some hundred thousand bytes. Before LMDB is asked for a key, the unit in which the key stood at the opening
/// is checked, once, with the units beside it, because a cursor and a tree that is balanced again go one leaf further.
/// Nothing that happens to the file later has to be known here: a leaf that LMDB wrote meanwhile is sound, and one that it
/// did not write is where it was at the opening.
// SAFETY: everything that changes is touched only on the exclusive side of `gate`. LMDB's descriptor lives as long as the
// environment, which outlives every transaction.
package final class PageGuard: @unchecked Sendable {
    /// What LMDB is asked to do at a key.
    enum Use {
        /// It follows the path to the key, and a cursor goes to the next leaf.
        case read
        /// It balances the tree again, which draws in more pages, and frees those of large values as they say themselves.
        case write
    }

    /// How many leaves are checked on each side of a change.
    ///
    /// LMDB joins a page with the one beside it when less than a quarter of it is used, again and again in one
    /// transaction; this is more than it can draw in by that.
    private static let leavesBeside = 64

    private let gate = Gate()
    private var reader: PageReader
    private let trees: [String: GuardedTree]
    /// The trees by LMDB's numbers of their tables; those that were empty are not there.
    private var numbered: [GuardedTree?] = []

    /// Checks all pages of a file but those that are near the leaves.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/storeDamaged``, naming the first page that is not sound.
    init(_ file: PageFile) throws(StalkError) {
        guard file.isSound, let free = file.free, let meta = file.meta else { throw file.refusal }
        var reader = PageReader(
            descriptor: file.descriptor,
            path: file.path,
            pageBytes: file.pageBytes,
            lastPage: meta.lastPage,
            used: file.used,
            free: free
        )
        var trees: [String: GuardedTree] = [:]
        for (name, table) in file.tables where table.root != MetaPage.noPage {
            trees[name] = try GuardedTree(table, &reader)
        }
        self.reader = reader
        self.trees = trees
    }

    /// Learns how LMDB numbers the tables, and reads through LMDB's own descriptor from now on: to close another one would
    /// drop LMDB's locks.
    func begin(_ tables: [String: Table], descriptor: CInt) throws(StalkError) {
        try self.gate.exclusive { () throws(StalkError) in
            self.reader.descriptor = descriptor
            self.numbered = [GuardedTree?](repeating: nil, count: 1 + Int(tables.values.map(\.handle).max() ?? 0))
            for table in tables.values { self.numbered[Int(table.handle)] = self.trees[table.name] }
        }
    }

    /// Checks what LMDB will follow for `key`; nil is behind every key.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/storeDamaged``, naming the first page that is not sound.
    func allow(_ use: Use, _ key: UnsafeRawBufferPointer?, in table: Table) throws(StalkError) {
        try self.gate.exclusive { () throws(StalkError) in
            guard let tree = self.numbered[Int(table.handle)] else { return }
            let unit = tree.unit(of: key)
            switch use {
            case .read: try self.allowRead(unit, tree)
            case .write: try self.allowWrite(unit, tree)
            }
        }
    }

    /// Checks everything, for LMDB to copy it.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/storeDamaged``, naming the first page that is not sound.
    func allowAll() throws(StalkError) {
        try self.gate.exclusive { () throws(StalkError) in
            for tree in self.trees.values {
                for unit in tree.units.indices { try self.check(unit, tree, withValues: true) }
            }
        }
    }

    private func allowRead(_ unit: Int, _ tree: GuardedTree) throws(StalkError) {
        guard !tree.units[unit].mayBeRead else { return }
        for near in max(0, unit - 1)...min(unit + 1, tree.units.count - 1) {
            try self.check(near, tree, withValues: false)
        }
        tree.units[unit].mayBeRead = true
    }

    private func allowWrite(_ unit: Int, _ tree: GuardedTree) throws(StalkError) {
        guard !tree.units[unit].mayBeWritten else { return }
        try self.check(unit, tree, withValues: true)
        for step in [-1, 1] {
            var leaves = 0
            var near = unit + step
            while leaves < Self.leavesBeside, tree.units.indices.contains(near) {
                leaves += try self.check(near, tree, withValues: true)
                near += step
            }
        }
        // When branches are joined, LMDB looks up the first key below them.
        let group = tree.units[unit].group
        for group in max(0, group - 1)...min(group + 1, tree.groups.count - 1) {
            guard !tree.groups[group].hasSoundEdges else { continue }
            for unit in tree.groups[group].units { try self.reader.checkEdge(unit, of: tree) }
            tree.groups[group].hasSoundEdges = true
        }
        tree.units[unit].mayBeRead = true
        tree.units[unit].mayBeWritten = true
    }

    /// Checks a unit unless that was done; returns how many leaves it has.
    @discardableResult
    private func check(_ unit: Int, _ tree: GuardedTree, withValues: Bool) throws(StalkError) -> Int {
        let before = tree.units[unit]
        if let leafCount = before.leafCount, before.hasSoundValues || !withValues { return leafCount }
        let leafCount = try self.reader.check(unit, of: tree, isNew: before.leafCount == nil, withValues: withValues)
        tree.units[unit].leafCount = leafCount
        tree.units[unit].hasSoundValues = withValues
        return leafCount
    }
}

/// The tree of one table as it was at the opening, and how much of it was checked since.
final class GuardedTree {
    /// A branch right above leaves, with them; or a root that has no more than that.
    struct Unit {
        var page: UInt64
        /// No key of the unit is before this one.
        var lower: [UInt8]
        /// Which branch it hangs on.
        var group: Int
        /// How many leaves it has, once it is checked.
        var leafCount: Int?
        /// Whether the pages of its large values were looked at too.
        var hasSoundValues = false
        /// What LMDB may do at its keys, the units beside it being checked as well.
        var mayBeRead = false
        var mayBeWritten = false
    }

    let name: String
    /// Whether the root is a leaf.
    let isLeaf: Bool
    /// At least one.
    var units: [Unit] = []
    /// The units on one branch, and whether the first leaf of each was looked at.
    var groups: [(units: Range<Int>, hasSoundEdges: Bool)] = []
    /// Where the last key was.
    private var recent = 0

    /// LMDB's own limit: it aborts the process beyond.
    private static var depthMax: Int { 31 }

    /// Checks all branches but those right above leaves.
    init(_ table: PageFile.Tree, _ reader: inout PageReader) throws(StalkError) {
        self.name = table.name
        self.isLeaf = table.depth == 1
        guard (1...Self.depthMax).contains(table.depth) else {
            throw reader.damaged(table.root, "the tree \(table.name) can't have \(table.depth) levels")
        }
        try reader.use(table.root, from: table.root, table.name)
        if table.depth <= 2 {
            self.units = [Unit(page: table.root, lower: [], group: 0)]
            self.groups = [(0..<1, false)]
        } else {
            try self.readBranch(table.root, height: table.depth - 1, [], nil, &reader)
        }
    }

    /// - Parameter height: How many levels there are below it, two at least.
    private func readBranch(
        _ number: UInt64,
        height: Int,
        _ lower: [UInt8],
        _ upper: [UInt8]?,
        _ reader: inout PageReader
    ) throws(StalkError) {
        let branch = try reader.page(number, isLeaf: false, (lower, upper), self.name)
        let children = try reader.children(of: branch, (lower, upper), self.name)
        for child in children { try reader.use(child.page, from: number, self.name) }
        guard height > 2 else {
            let first = self.units.count
            self.units += children.map { Unit(page: $0.page, lower: $0.lower, group: self.groups.count) }
            self.groups.append((first..<self.units.count, false))
            // What is looked up when branches are joined that are further up.
            return try reader.checkEdge(first, of: self)
        }
        for child in children { reader.announce(child.page, count: 1) }
        for child in children {
            try self.readBranch(child.page, height: height - 1, child.lower, child.upper, &reader)
        }
    }

    /// The key before which those of a unit are; nil for the last one.
    func upper(of unit: Int) -> [UInt8]? { unit + 1 < self.units.count ? self.units[unit + 1].lower : nil }

    /// The last unit that begins at or before a key.
    func unit(of key: UnsafeRawBufferPointer?) -> Int {
        guard let key else { return self.units.count - 1 }
        guard !self.holds(key, self.recent) else { return self.recent }
        var (low, high) = (0, self.units.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if self.begins(middle, behind: key) { high = middle } else { low = middle }
        }
        self.recent = low
        return low
    }

    private func holds(_ key: UnsafeRawBufferPointer, _ unit: Int) -> Bool {
        !self.begins(unit, behind: key) && (unit + 1 == self.units.count || self.begins(unit + 1, behind: key))
    }

    private func begins(_ unit: Int, behind key: UnsafeRawBufferPointer) -> Bool {
        self.units[unit].lower.withUnsafeBytes { lower in precedes(key, lower) }
    }
}
