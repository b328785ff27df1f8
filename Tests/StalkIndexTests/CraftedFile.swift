import Testing

/// A data.mdb that LMDB never wrote, page by page (LMDB data format 1): for structures that it would not make.
struct CraftedFile {
    /// What a node of a page says.
    enum Node {
        case child([UInt8], page: UInt64)
        case value([UInt8], [UInt8])
        case table([UInt8], root: UInt64, entries: UInt64)
        case overflow([UInt8], page: UInt64, byteCount: Int)
        /// Any flags at all.
        case flagged([UInt8], flags: UInt16, [UInt8])
    }

    static let pageBytes = 4096

    var freeRoot = UInt64.max
    var mainRoot = UInt64.max
    /// The last page as the meta pages name it; nil for that of the file.
    var lastPage: UInt64?
    var versions: [UInt32] = [1, 1]
    var pageSizes: [UInt32] = [4096, 4096]
    /// From page 2 on.
    private var pages: [[UInt8]] = []

    /// Adds a branch or a leaf; returns its number.
    mutating func add(isLeaf: Bool, _ nodes: [Node], flags: UInt16? = nil) throws -> UInt64 {
        let number = UInt64(self.pages.count + 2)
        var page = Self.header(number, flags: flags ?? (isLeaf ? 0x02 : 0x01))
        var upper = Self.pageBytes
        for (index, node) in nodes.enumerated() {
            let bytes = Self.bytes(of: node)
            upper -= (bytes.count + 1) & ~1
            try #require(upper > 16 + 2 * nodes.count)
            page.replaceSubrange(upper..<upper + bytes.count, with: bytes)
            page.put(UInt16(upper), at: 16 + 2 * index)
        }
        page.put(UInt16(16 + 2 * nodes.count), at: 12)
        page.put(UInt16(upper), at: 14)
        self.pages.append(page)
        return number
    }

    /// Adds pages that hold one value; returns the number of the first.
    mutating func addOverflow(_ value: [UInt8], pageCount: UInt32? = nil) -> UInt64 {
        let number = UInt64(self.pages.count + 2)
        let needed = (15 + value.count) / Self.pageBytes + 1
        var bytes = Self.header(number, flags: 0x04)
        bytes.put(pageCount ?? UInt32(needed), at: 12)
        bytes.replaceSubrange(16..., with: value)
        bytes += [UInt8](repeating: 0, count: needed * Self.pageBytes - bytes.count)
        for start in stride(from: 0, to: bytes.count, by: Self.pageBytes) {
            self.pages.append(Array(bytes[start..<start + Self.pageBytes]))
        }
        return number
    }

    /// A leaf that lists tables as the main tree, whose root it becomes.
    mutating func addMain(_ nodes: [Node]) throws {
        self.mainRoot = try self.add(isLeaf: true, nodes)
    }

    /// A leaf with one record of the list of free pages, as root of that list.
    mutating func addFree(_ numbers: [UInt64], count: UInt64? = nil) throws -> UInt64 {
        let record = ([count ?? UInt64(numbers.count)] + numbers).flatMap { number in
            withUnsafeBytes(of: number.littleEndian) { Array($0) }
        }
        return try self.add(isLeaf: true, [.value(Self.littleEndian(UInt64(3)), record)])
    }

    func write(to path: String) throws {
        var bytes: [UInt8] = []
        for index in 0..<2 {
            var page = Self.header(UInt64(index), flags: 0x08)
            page.put(0xbeef_c0de as UInt32, at: 16)
            page.put(self.versions[index], at: 20)
            page.put(self.pageSizes[index], at: 40)
            page.put(self.freeRoot, at: 80)
            page.put(self.mainRoot, at: 128)
            page.put(self.lastPage ?? UInt64(self.pages.count + 1), at: 136)
            page.put(UInt64(4 + index), at: 144)
            bytes += page
        }
        try writeFile(path, bytes + self.pages.joined())
    }

    static func littleEndian(_ number: UInt64) -> [UInt8] { withUnsafeBytes(of: number.littleEndian) { Array($0) } }

    private static func header(_ number: UInt64, flags: UInt16) -> [UInt8] {
        var page = [UInt8](repeating: 0, count: Self.pageBytes)
        page.put(number, at: 0)
        page.put(flags, at: 10)
        return page
    }

    private static func bytes(of node: Node) -> [UInt8] {
        switch node {
        case .child(let key, let page):
            Self.node(UInt32(truncatingIfNeeded: page), flags: UInt16(page >> 32), key, [])
        case .value(let key, let value): Self.node(UInt32(value.count), flags: 0, key, value)
        case .table(let key, let root, let entries):
            Self.node(48, flags: 0x02, key, Self.table(root: root, entries: entries))
        case .overflow(let key, let page, let byteCount):
            Self.node(UInt32(byteCount), flags: 0x01, key, Self.littleEndian(page))
        case .flagged(let key, let flags, let value): Self.node(UInt32(value.count), flags: flags, key, value)
        }
    }

    private static func node(_ low: UInt32, flags: UInt16, _ key: [UInt8], _ content: [UInt8]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 8)
        bytes.put(low, at: 0)
        bytes.put(flags, at: 4)
        bytes.put(UInt16(key.count), at: 6)
        return bytes + key + content
    }

    private static func table(root: UInt64, entries: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 48)
        bytes.put(entries, at: 32)
        bytes.put(root, at: 40)
        return bytes
    }
}

extension [UInt8] {
    /// Puts an integer there, little-endian.
    mutating func put(_ number: some FixedWidthInteger, at offset: Int) {
        let bytes = Swift.withUnsafeBytes(of: number.littleEndian) { Array($0) }
        self.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    }
}
