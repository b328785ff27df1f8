internal import StalkCore

/// Reads LMDB's list of free pages straight from the file, without a map: for a file that is shorter than its meta page
/// says, which is sound if the pages that it lacks are free ones.
///
/// LMDB numbers pages as it takes them and writes only those that are still in use at the commit, so the last pages of
/// a sound file can be missing.
struct FreePages {
    private struct Damage: Error {}

    private static var headerBytes: Int { 16 }
    private static var depthMax: Int { 32 }

    private let pageBytes: Int
    /// How many whole pages the file has.
    private let pageCount: UInt64
    private let first: UInt64
    private let last: UInt64
    /// Fills the buffer from this offset of the file; false if it can't be filled.
    private let read: (UnsafeMutableRawBufferPointer, Int) -> Bool
    private var found: Set<UInt64> = []
    private var visited: UInt64 = 0

    /// Whether all pages from the end of the file to the last page of `meta` are free.
    ///
    /// - Parameters:
    ///   - meta: The newest meta page.
    ///   - fileBytes: The length of the file.
    ///   - read: Fills the buffer from this offset of the file; false if it can't be filled.
    static func coverMissing(
        of meta: MetaPage,
        fileBytes: Int,
        read: @escaping (UnsafeMutableRawBufferPointer, Int) -> Bool
    ) -> Bool {
        let pageCount = UInt64(fileBytes / meta.pageBytes)
        guard meta.lastPage >= pageCount else { return true }
        guard meta.freeRoot != MetaPage.noPage else { return false }
        var pages = Self(
            pageBytes: meta.pageBytes,
            pageCount: pageCount,
            first: pageCount,
            last: meta.lastPage,
            read: read
        )
        do throws(Damage) {
            try pages.visit(meta.freeRoot, depth: 0)
        } catch {
            return false
        }
        return UInt64(pages.found.count) == meta.lastPage - pageCount + 1
    }

    private init(
        pageBytes: Int,
        pageCount: UInt64,
        first: UInt64,
        last: UInt64,
        read: @escaping (UnsafeMutableRawBufferPointer, Int) -> Bool
    ) {
        self.pageBytes = pageBytes
        self.pageCount = pageCount
        self.first = first
        self.last = last
        self.read = read
    }

    /// Collects the free pages below a page of the list's tree.
    private mutating func visit(_ number: UInt64, depth: Int) throws(Damage) {
        self.visited += 1
        guard depth < Self.depthMax, self.visited <= self.pageCount else { throw Damage() }
        let page = try self.bytes(ofPage: number, count: self.pageBytes)
        let flags = try Self.integer(UInt16.self, in: page, at: 10)
        let nodesEnd = try Int(Self.integer(UInt16.self, in: page, at: 12))
        guard nodesEnd <= self.pageBytes else { throw Damage() }
        for offset in stride(from: Self.headerBytes, to: nodesEnd, by: 2) {
            let node = try Int(Self.integer(UInt16.self, in: page, at: offset))
            let low = try UInt64(Self.integer(UInt32.self, in: page, at: node))
            let nodeFlags = try Self.integer(UInt16.self, in: page, at: node + 4)
            switch flags & 0x03 {
            case 0x01:
                // A branch: the child's number has 48 bits, the top 16 where a leaf has its flags.
                try self.visit(low | UInt64(nodeFlags) << 32, depth: depth + 1)
            case 0x02:
                let data = try node + 8 + Int(Self.integer(UInt16.self, in: page, at: node + 6))
                if nodeFlags & 0x01 != 0 {
                    let overflow = try Self.integer(UInt64.self, in: page, at: data)
                    let bytes = try self.bytes(ofPage: overflow, count: Self.headerBytes + Int(low))
                    try self.collect(from: bytes[Self.headerBytes...])
                } else {
                    guard data + Int(low) <= page.count else { throw Damage() }
                    try self.collect(from: page[data..<data + Int(low)])
                }
            default:
                throw Damage()
            }
        }
    }

    /// Collects the page numbers of one record: how many, then that many numbers.
    private mutating func collect(from record: ArraySlice<UInt8>) throws(Damage) {
        let record = Array(record)
        let count = try Self.integer(UInt64.self, in: record, at: 0)
        guard count < UInt64(record.count / 8) else { throw Damage() }
        for index in 1..<Int(count) + 1 {
            let number = try Self.integer(UInt64.self, in: record, at: index * 8)
            if (self.first...self.last).contains(number) { self.found.insert(number) }
        }
    }

    private func bytes(ofPage number: UInt64, count: Int) throws(Damage) -> [UInt8] {
        guard number >= 2, number < self.pageCount else { throw Damage() }
        let offset = Int(number) * self.pageBytes
        guard count <= Int(self.pageCount) * self.pageBytes - offset else { throw Damage() }
        var wasRead = false
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initializedCount in
            buffer.initialize(repeating: 0)
            wasRead = self.read(UnsafeMutableRawBufferPointer(buffer), offset)
            initializedCount = count
        }
        guard wasRead else { throw Damage() }
        return bytes
    }

    private static func integer<I: FixedWidthInteger>(
        _ type: I.Type,
        in bytes: [UInt8],
        at offset: Int
    ) throws(Damage) -> I {
        guard offset >= 0, offset + MemoryLayout<I>.size <= bytes.count else { throw Damage() }
        return littleEndian(type, in: bytes, at: offset)
    }
}
