internal import CLMDB
internal import StalkCore

/// How much room an ``Environment`` takes at one moment.
package struct EnvironmentStatistics: Hashable, Sendable {
    /// The size of the memory map, which bounds the file until the map grows.
    package var mapBytes: Int
    /// The length of data.mdb; only ``Environment/compact()`` makes it smaller.
    package var fileBytes: Int
    /// All pages up to the last one that was ever used, free ones included.
    package var usedBytes: Int
    /// The pages that wait to be used again.
    package var freeBytes: Int
    /// How many transactions that changed something have been committed in the life of the file.
    package var transactionCount: UInt64
    /// How many reader slots were ever taken at the same time.
    package var readerSlots: Int

    /// The pages that hold data.
    package var liveBytes: Int { self.usedBytes - self.freeBytes }

    init(of handle: EnvironmentHandle) throws(StalkError) {
        var info = MDB_envinfo()
        var statistics = MDB_stat()
        mdb_env_info(handle.pointer, &info)
        mdb_env_stat(handle.pointer, &statistics)
        let pageBytes = Int(statistics.ms_psize)
        self.mapBytes = info.me_mapsize
        self.fileBytes = handle.fileBytes
        self.usedBytes = (info.me_last_pgno + 1) * pageBytes
        self.freeBytes = try Self.freePages(of: handle) * pageBytes
        self.transactionCount = UInt64(info.me_last_txnid)
        self.readerSlots = Int(info.me_numreaders)
    }

    /// Adds up the records of LMDB's table 0: how many free pages, then their numbers.
    private static func freePages(of handle: EnvironmentHandle) throws(StalkError) -> Int {
        let transaction: ReadTransaction
        do throws(LMDBCode) {
            transaction = try ReadTransaction(handle.pointer)
        } catch {
            throw .lmdb(error.rawValue, "count the free pages of \(handle.path)")
        }
        var cursor = try Cursor(transaction.handle, Table(handle: 0, name: "free pages"))
        var pages = 0
        var found = try cursor.seek(UnsafeRawBufferPointer(start: nil, count: 0))
        while found {
            if cursor.stored.count >= 8 { pages += Int(cursor.stored.loadUnaligned(as: UInt64.self)) }
            found = try cursor.next()
        }
        return pages
    }
}
