internal import StalkCore

/// A page of one of LMDB's trees, taken apart; every offset in it was checked.
struct TreePage {
    /// What one of its nodes says.
    struct Node {
        var key: Range<Int>
        var content: Content
    }

    enum Content {
        /// A branch's child.
        case child(UInt64)
        /// A value on the page itself.
        case value(Range<Int>)
        /// A value of so many bytes on pages of its own.
        case overflow(page: UInt64, byteCount: Int)
        /// What LMDB keeps of a table.
        case subtable(Range<Int>)
    }

    static var headerBytes: Int { 16 }

    let number: UInt64
    let bytes: [UInt8]
    let isLeaf: Bool
    /// The nodes that can be read, in the order in which they stand.
    private(set) var nodes: [Node] = []
    /// What is wrong with the others.
    private(set) var faults: [String] = []

    /// Takes a page apart; nil when it is no page of a tree.
    init?(_ bytes: [UInt8], number: UInt64, keysAreNumbers: Bool) {
        // 0: number, 8: nothing, 10: flags, 12: end of the nodes' offsets, 14: start of the nodes.
        guard bytes.count >= Self.headerBytes, littleEndian(UInt64.self, in: bytes, at: 0) == number else { return nil }
        let flags = littleEndian(UInt16.self, in: bytes, at: 10)
        let lower = Int(littleEndian(UInt16.self, in: bytes, at: 12))
        let upper = Int(littleEndian(UInt16.self, in: bytes, at: 14))
        guard flags == 0x01 || flags == 0x02, lower >= Self.headerBytes, lower.isMultiple(of: 2), lower <= upper,
            upper <= bytes.count
        else { return nil }
        self.number = number
        self.bytes = bytes
        self.isLeaf = flags == 0x02
        for (index, place) in stride(from: Self.headerBytes, to: lower, by: 2).enumerated() {
            let offset = Int(littleEndian(UInt16.self, in: bytes, at: place))
            guard offset >= upper, let node = self.node(at: offset) else {
                self.faults.append("node \(index) leads out of the page")
                continue
            }
            self.append(node, index, keysAreNumbers)
        }
        if lower == Self.headerBytes { self.faults.append("it has no nodes") }
    }

    private mutating func append(_ node: Node, _ index: Int, _ keysAreNumbers: Bool) {
        // The first key of a branch stands for everything that is less than the second.
        let hasKey = self.isLeaf || index > 0
        guard !hasKey || (1...Table.keyBytesMax).contains(node.key.count),
            !keysAreNumbers || !hasKey || node.key.count == 8
        else {
            self.faults.append("node \(index) has a key of \(node.key.count) bytes")
            return
        }
        if let last = self.nodes.last, self.isLeaf || self.nodes.count > 1,
            !Self.precedes(self.bytes[last.key], self.bytes[node.key], keysAreNumbers)
        {
            self.faults.append("node \(index) is out of order")
        }
        self.nodes.append(node)
    }

    private func node(at offset: Int) -> Node? {
        // 0: size, 4: flags, 6: size of the key; a branch keeps its child's number in the first six bytes.
        guard offset.isMultiple(of: 2), offset + 8 <= self.bytes.count else { return nil }
        let low = littleEndian(UInt32.self, in: self.bytes, at: offset)
        let flags = littleEndian(UInt16.self, in: self.bytes, at: offset + 4)
        let keyStart = offset + 8
        let keyEnd = keyStart + Int(littleEndian(UInt16.self, in: self.bytes, at: offset + 6))
        guard keyEnd <= self.bytes.count else { return nil }
        guard self.isLeaf else {
            return Node(key: keyStart..<keyEnd, content: .child(UInt64(low) | UInt64(flags) << 32))
        }
        switch flags {
        case 0, 0x02:
            guard Int(low) <= self.bytes.count - keyEnd else { return nil }
            let content = keyEnd..<keyEnd + Int(low)
            return Node(key: keyStart..<keyEnd, content: flags == 0 ? .value(content) : .subtable(content))
        case 0x01:
            guard keyEnd + 8 <= self.bytes.count else { return nil }
            let page = littleEndian(UInt64.self, in: self.bytes, at: keyEnd)
            return Node(key: keyStart..<keyEnd, content: .overflow(page: page, byteCount: Int(low)))
        default:
            return nil
        }
    }

    static func precedes(_ left: ArraySlice<UInt8>, _ right: ArraySlice<UInt8>, _ areNumbers: Bool) -> Bool {
        areNumbers
            ? left.reversed().lexicographicallyPrecedes(right.reversed()) : left.lexicographicallyPrecedes(right)
    }
}
