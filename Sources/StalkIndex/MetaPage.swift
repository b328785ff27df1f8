/// What one of the two meta pages of data.mdb says (LMDB data format 1, 64-bit little-endian).
///
/// Transaction N writes meta page N % 2; the newer of the two is the state of the store.
struct MetaPage: Hashable {
    /// Why bytes are no meta page.
    enum Fault: Error, Hashable {
        case noMetaPage
        case otherFormat(UInt32)
    }

    /// How many bytes at the start of a page hold all of it.
    static var byteCount: Int { 152 }

    static var noPage: UInt64 { .max }

    var pageBytes: Int
    var freeRoot: UInt64
    var mainRoot: UInt64
    var lastPage: UInt64
    var transaction: UInt64

    /// Whether this is as LMDB first writes it: nothing was ever committed.
    var isInitial: Bool {
        self.transaction == 0 && self.lastPage == 1 && self.freeRoot == Self.noPage && self.mainRoot == Self.noPage
    }

    /// The bytes that a file has at least with all the pages of this state.
    var neededBytes: UInt64 {
        let (bytes, overflow) = (self.lastPage &+ 1).multipliedReportingOverflow(by: UInt64(self.pageBytes))
        return overflow || self.lastPage == .max ? .max : bytes
    }

    /// Reads the meta page `index` (0 or 1) from the start of its page.
    init(_ page: [UInt8], index: Int) throws(Fault) {
        guard page.count >= Self.byteCount else { throw .noMetaPage }
        func word(_ offset: Int) -> UInt64 { littleEndian(UInt64.self, in: page, at: offset) }
        func half(_ offset: Int) -> UInt32 { littleEndian(UInt32.self, in: page, at: offset) }
        let isMeta = littleEndian(UInt16.self, in: page, at: 10) == 0x08
        guard isMeta, word(0) == UInt64(index), half(16) == 0xbeef_c0de else { throw .noMetaPage }
        guard half(20) == 1 else { throw .otherFormat(half(20)) }
        // 24: address, 32: map size, 40: record of the free list's tree, 88: of the main tree, 48 bytes each.
        self.pageBytes = Int(half(40))
        self.freeRoot = word(80)
        self.mainRoot = word(128)
        self.lastPage = word(136)
        self.transaction = word(144)
        guard self.isSound(index: index) else { throw .noMetaPage }
    }

    private func isSound(index: Int) -> Bool {
        let pageSizes = 512...65536
        guard pageSizes.contains(self.pageBytes), self.pageBytes.nonzeroBitCount == 1 else { return false }
        return (self.transaction == 0 || self.transaction % 2 == UInt64(index)) && self.lastPage >= 1
    }

    /// Whether its trees begin in pages of its own.
    ///
    /// LMDB takes a meta page back that it could not write, but not its roots: those of the older page may be of a commit
    /// that failed. Nobody goes by them.
    var hasOwnRoots: Bool {
        [self.freeRoot, self.mainRoot].allSatisfy { root in
            root == Self.noPage || (2...max(2, self.lastPage)).contains(root)
        }
    }

    /// Whether both pages are of two commits in a row, as LMDB leaves them; or nothing was ever committed.
    ///
    /// Otherwise one of the numbers is damaged, and LMDB might go by the older page, as if the last commit had never been.
    func isDirectPredecessor(of newest: Self) -> Bool {
        newest.transaction - self.transaction == 1 || newest.transaction == 0
    }

    /// Whether this may stand beside the newest page.
    func mayBeOlder(than newest: Self) -> Bool {
        self.hasOwnRoots || newest.isInitial || self.transaction &+ 1 == newest.transaction
    }
}

/// The integer at an offset, which with all its bytes must lie inside.
func littleEndian<I: FixedWidthInteger>(_ type: I.Type, in bytes: [UInt8], at offset: Int) -> I {
    I(littleEndian: bytes.withUnsafeBytes { bytes in bytes.loadUnaligned(fromByteOffset: offset, as: type) })
}
