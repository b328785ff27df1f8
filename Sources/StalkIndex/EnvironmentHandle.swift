internal import CLMDB
internal import Glibc
internal import StalkCore

/// What an environment may do to its directory.
enum EnvironmentAccess {
    case readOnly
    case existing
    case createIfMissing
}

/// LMDB's environment and the claim on its directory: opened together, closed together.
final class EnvironmentHandle {
    let pointer: OpaquePointer
    let claim: DirectoryClaim
    /// What keeps LMDB from pages of a large file that nobody has looked at; nil when all were looked at.
    let pages: PageGuard?

    /// Opens the environment; the tables come later.
    ///
    /// - Parameter checkedAtOnce: The largest file, in bytes, that is searched as a whole for pages that LMDB could crash
    ///   on; in a larger one they are looked at when they are needed. `nil` to trust the file.
    init(
        path: String,
        mapBytes: Int,
        tableCount: Int,
        access: EnvironmentAccess,
        checkedAtOnce: Int?
    ) throws(StalkError) {
        let claim = try DirectoryClaim(path)
        try claim.refuseLink("lock.mdb")
        let usedBytes = try DataFile.prepare(in: claim, access)
        var pages: PageGuard?
        if let checkedAtOnce, let usedBytes {
            let file = try PageFile(in: claim)
            if usedBytes <= checkedAtOnce { try file.checkStructure() } else { pages = try PageGuard(file) }
        }
        var created: OpaquePointer?
        try check(mdb_env_create(&created), "open the index in \(path)")
        guard let pointer = created else { throw .lmdb(ENOMEM, "open the index in \(path)") }
        self.pointer = pointer
        self.claim = claim
        self.pages = pages
        // From here on a throw runs deinit, which closes.
        let mapBytes = Self.mapBytes(atLeast: mapBytes, usedBytes: usedBytes ?? 0, tableCount: tableCount)
        try check(mdb_env_set_mapsize(pointer, mapBytes), "set the map size of \(path)")
        try check(mdb_env_set_maxdbs(pointer, UInt32(tableCount)), "set the table count of \(path)")
        try check(mdb_env_set_maxreaders(pointer, Self.readersMax), "set the reader count of \(path)")
        // The default sync mode: no other survives a power cut. MDB_NOTLS lets a thread pool read.
        let flags = MDB_NOTLS | (access == .readOnly ? MDB_RDONLY | MDB_NOLOCK : 0)
        try check(mdb_env_open(pointer, path, UInt32(flags), 0o600), "open the index in \(path)")
        if usedBytes == nil {
            // LMDB syncs neither its first meta pages nor the directory.
            try check(mdb_env_sync(pointer, 1), "sync the new index in \(path)")
            try self.claim.sync()
        }
    }

    deinit {
        mdb_env_close(self.pointer)
    }

    var path: String { self.claim.path }

    /// Frees the reader slots of processes that died; returns how many.
    func checkReaders() throws(StalkError) -> Int {
        var dead: CInt = 0
        try check(mdb_reader_check(self.pointer, &dead), "check the readers of \(self.path)")
        return Int(dead)
    }

    /// The descriptor that LMDB itself has of data.mdb; it must not be closed.
    var dataDescriptor: CInt {
        var descriptor: CInt = -1
        mdb_env_get_fd(self.pointer, &descriptor)
        return descriptor
    }

    var fileBytes: Int {
        var status = stat()
        return fstat(self.dataDescriptor, &status) == 0 ? Int(status.st_size) : 0
    }

    private var isReadOnly: Bool {
        var flags: CUnsignedInt = 0
        mdb_env_get_flags(self.pointer, &flags)
        return flags & CUnsignedInt(MDB_RDONLY) != 0
    }

    var mapBytes: Int {
        var info = MDB_envinfo()
        mdb_env_info(self.pointer, &info)
        return info.me_mapsize
    }

    /// How many transactions that changed something were committed in the life of the file.
    var commitCount: UInt64 {
        var info = MDB_envinfo()
        mdb_env_info(self.pointer, &info)
        return UInt64(info.me_last_txnid)
    }

    /// False once ``replaceMap(_:)`` has failed for good: then only closing is left.
    private(set) var hasMap = true

    /// Replaces the map by one of another size (0: the size that another process gave to it), with no transaction open.
    func replaceMap(_ mapBytes: Int) throws(StalkError) {
        // LMDB unmaps first and can't go back, so find out with a map of our own whether there is room.
        let probe = mmap(nil, max(1, mapBytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let probe, probe != MAP_FAILED else { throw .lmdb(errno, "map \(mapBytes) bytes of \(self.path)") }
        munmap(probe, max(1, mapBytes))
        let status = mdb_env_set_mapsize(self.pointer, mapBytes)
        if status != MDB_SUCCESS, status != EINVAL { self.hasMap = false }
        try check(status, "map \(mapBytes) bytes of \(self.path)")
    }

    /// Opens the tables in one transaction, and creates those that are missing if asked.
    func openTables(_ names: [String], create: Bool) throws(StalkError) -> [String: Table] {
        var tables: [String: Table] = [:]
        var action = "open the tables of \(self.path)"
        do throws(LMDBCode) {
            let transaction = try WriteTransaction(self.pointer, isReadOnly: self.isReadOnly)
            for name in names {
                action = "open the table \(name) of \(self.path)"
                tables[name] = try transaction.openTable(name, create: create)
            }
            // A table stays open only when the transaction that opened it is committed, whatever that changed.
            try transaction.commit()
        } catch {
            guard error.rawValue == MDB_NOTFOUND else { throw .lmdb(error.rawValue, action) }
            throw StalkError(.storeDamaged, "Can't \(action): it is not there; run 'stalk verify'.", cause: error)
        }
        try self.pages?.begin(tables, descriptor: self.dataDescriptor)
        return tables
    }

    static var readersMax: UInt32 { 126 }

    /// A whole number of pages with room to create the tables, which happens before the map can grow.
    private static func mapBytes(atLeast byteCount: Int, usedBytes: Int, tableCount: Int) -> Int {
        let pageBytes = sysconf(CInt(_SC_PAGESIZE))
        let spare = (16 + 4 * tableCount) * pageBytes
        return (max(byteCount, usedBytes + spare) + pageBytes - 1) / pageBytes * pageBytes
    }
}
