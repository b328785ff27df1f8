internal import CLMDB
internal import Glibc
internal import StalkCore

/// data.mdb before LMDB maps it: reading a map beyond the end of a file kills the process by SIGBUS, so what the meta
/// pages promise is compared with the length of the file first.
///
/// It must be gone before LMDB opens the file, since closing a descriptor drops the locks of every other one.
struct DataFile: ~Copyable {
    static var name: String { "data.mdb" }

    private let path: String
    private let descriptor: CInt
    private let byteCount: Int

    /// Checks data.mdb in `directory` and returns how many bytes its pages take, or nil when nothing is in it yet and
    /// LMDB is to begin anew.
    ///
    /// The creation of a store can be cut short by a crash; what that leaves behind is emptied here.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/storeDamaged``, ``StalkError/Code/newerFormat``,
    ///   ``StalkError/Code/notAStore`` or ``StalkError/Code/permissionDenied``; then nothing was changed.
    static func prepare(
        in directory: borrowing DirectoryClaim,
        _ access: EnvironmentAccess
    ) throws(StalkError) -> Int? {
        let createIfMissing = access == .createIfMissing
        let path = "\(directory.path)/\(Self.name)"
        let mode = access == .readOnly ? O_RDONLY : O_RDWR
        let descriptor = openat(directory.descriptor, Self.name, mode | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT, createIfMissing { return nil }
            throw .lmdb(errno, "open \(path)")
        }
        var status = stat()
        let error = fstat(descriptor, &status) == 0 ? 0 : errno
        let file = Self(path: path, descriptor: descriptor, byteCount: Int(status.st_size))
        guard error == 0 else { throw .lmdb(error, "open \(path)") }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw StalkError(.notAStore, "\(path) is not a regular file; check the path.")
        }
        try file.showWhatDiskHas()
        return try file.check(createIfMissing: createIfMissing)
    }

    /// Takes the file out of memory, so that the disk's is read.
    ///
    /// After a sync that failed, memory can show a commit that the disk does not hold, and a later sync succeeds: the meta
    /// pages must be the disk's. The others are free pages then, but ext4 does not know any more that their blocks are
    /// unwritten: it would write the next commit into them, report it as synced, and show zeros after a power cut.
    private borrowing func showWhatDiskHas() throws(StalkError) {
        guard fdatasync(self.descriptor) == 0 else { throw .lmdb(errno, "sync \(self.path)") }
        posix_fadvise(self.descriptor, 0, 0, POSIX_FADV_DONTNEED)
    }

    private init(path: String, descriptor: CInt, byteCount: Int) {
        self.path = path
        self.descriptor = descriptor
        self.byteCount = byteCount
    }

    deinit {
        Glibc.close(self.descriptor)
    }

    private borrowing func check(createIfMissing: Bool) throws(StalkError) -> Int? {
        if createIfMissing, self.isUnfinishedCreation {
            guard ftruncate(self.descriptor, 0) == 0 else { throw .lmdb(errno, "begin \(self.path) anew") }
            return nil
        }
        let first = try self.metaPage(0, at: 0)
        let second = try self.metaPage(1, at: first.pageBytes)
        guard first.pageBytes == second.pageBytes else {
            throw self.damaged("its two meta pages name different page sizes")
        }
        let newestIndex = second.transaction > first.transaction ? 1 : 0
        let (newest, older) = newestIndex == 1 ? (second, first) : (first, second)
        guard newest.hasOwnRoots else { throw self.damagedMetaPage(newestIndex, of: newest) }
        guard older.mayBeOlder(than: newest) else { throw self.damagedMetaPage(1 - newestIndex, of: older) }
        guard older.isDirectPredecessor(of: newest) else {
            throw self.damaged("its two meta pages are not of two commits in a row")
        }
        // A length that is no whole number of pages is sound: a full disk cuts a write anywhere.
        guard newest.neededBytes > UInt64(self.byteCount) else { return Int(newest.neededBytes) }
        let missingAreFree = FreePages.coverMissing(of: newest, fileBytes: self.byteCount) { [descriptor] in
            Self.read(descriptor, into: $0, at: $1)
        }
        guard missingAreFree else {
            throw self.damaged("its last commit needs \(newest.neededBytes) bytes, so it was cut short")
        }
        return Int(newest.neededBytes)
    }

    /// Whether this is what a crash leaves behind before the first commit: each meta page as LMDB first writes it, or
    /// zeros, or not there.
    private var isUnfinishedCreation: Bool {
        let pageBytes = sysconf(CInt(_SC_PAGESIZE))
        // A crash leaves whole sectors.
        guard self.byteCount <= 2 * pageBytes, self.byteCount % 512 == 0 else { return false }
        for index in 0..<2 {
            let count = min(max(0, self.byteCount - index * pageBytes), pageBytes)
            guard let page = self.bytes(at: index * pageBytes, count: count) else { return false }
            if page.allSatisfy({ $0 == 0 }) { continue }
            guard let meta = try? MetaPage(page, index: index), meta.isInitial else { return false }
        }
        return true
    }

    private borrowing func metaPage(_ index: Int, at offset: Int) throws(StalkError) -> MetaPage {
        guard let bytes = self.bytes(at: offset, count: MetaPage.byteCount) else {
            throw self.damaged("meta page \(index) at byte \(offset) is missing")
        }
        do throws(MetaPage.Fault) {
            return try MetaPage(bytes, index: index)
        } catch {
            switch error {
            case .noMetaPage:
                throw self.damaged("meta page \(index) at byte \(offset) is damaged")
            case .otherFormat(let version):
                throw StalkError(
                    .newerFormat,
                    "\(self.path) has LMDB format \(version), and this program knows 1; use a newer version of it."
                )
            }
        }
    }

    private borrowing func bytes(at offset: Int, count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        let isRead = bytes.withUnsafeMutableBytes { Self.read(self.descriptor, into: $0, at: offset) }
        return isRead ? bytes : nil
    }

    private borrowing func damagedMetaPage(_ index: Int, of meta: MetaPage) -> StalkError {
        self.damaged("meta page \(index) at byte \(index * meta.pageBytes) is damaged")
    }

    private borrowing func damaged(_ what: String) -> StalkError {
        StalkError(
            .storeDamaged,
            "\(self.path) has \(self.byteCount) bytes, but \(what). Nothing was changed; "
                + "restore a copy."
        )
    }

    private static func read(_ descriptor: CInt, into buffer: UnsafeMutableRawBufferPointer, at offset: Int) -> Bool {
        var done = 0
        while done < buffer.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
            let count = pread(descriptor, rest.baseAddress, rest.count, offset + done)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return false }
            done += count
        }
        return true
    }
}
