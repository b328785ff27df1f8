internal import CLMDB
internal import Glibc
internal import StalkCore

/// A return code of LMDB: one of its own (negative) or an errno (positive).
struct LMDBCode: Error, Hashable, CustomStringConvertible {
    let rawValue: CInt

    init(rawValue: CInt) {
        self.rawValue = rawValue
    }

    /// What a commit returned.
    ///
    /// LMDB returns EIO for a write that was cut short, as a full disk does, without any call having failed, but for those
    /// that were interrupted and made again. To ask the disk for room afterwards would be no help: room can come and go,
    /// and a full disk can fail too.
    ///
    /// - Parameters:
    ///   - status: What LMDB returned.
    ///   - systemError: `errno` after the commit, which was 0 before it.
    init(commit status: CInt, systemError: CInt) {
        self.rawValue = status == EIO && [0, EINTR].contains(systemError) ? ENOSPC : status
    }

    var description: String {
        guard let text = mdb_strerror(self.rawValue) else { return "LMDB code \(self.rawValue)" }
        return "\(String(cString: text)) (\(self.rawValue))"
    }
}

extension StalkError {
    /// The error for a return code of LMDB: the one place where codes get their meaning.
    ///
    /// - Parameters:
    ///   - status: What LMDB returned; not `MDB_SUCCESS`.
    ///   - action: What was tried, as in "write to the table messages".
    static func lmdb(
        _ status: CInt,
        _ action: @autoclosure () -> String,
        file: String = #fileID,
        line: Int = #line
    ) -> StalkError {
        let (code, advice) = Self.meaning(of: status)
        let cause = LMDBCode(rawValue: status)
        return StalkError(code, "Can't \(action()): \(advice)", cause: cause, file: file, line: line)
    }

    private static func meaning(of status: CInt) -> (Code, String) {
        switch status {
        case MDB_MAP_FULL:
            (.storageFull, "the memory map of the index is full.")
        case ENOSPC, EDQUOT, EFBIG:
            (.storageFull, "the disk, a quota or a file size limit is full; free some space and try again.")
        case EIO, MDB_PANIC:
            (.storageFailed, "the disk failed; check it, then open the store again.")
        // LMDB spoils a transaction itself when it meets a damaged page; then every further call gets MDB_BAD_TXN.
        case MDB_CORRUPTED, MDB_PAGE_NOTFOUND, MDB_INVALID, MDB_INCOMPATIBLE, MDB_BAD_TXN:
            (.storeDamaged, "data.mdb is damaged or foreign; run 'stalk verify'.")
        case MDB_VERSION_MISMATCH:
            (.newerFormat, "data.mdb or lock.mdb has another LMDB format than this program knows; use a newer one.")
        case EACCES, EPERM, EROFS:
            (.permissionDenied, "the system refused access; check the owner and mode of the store's files.")
        case ELOOP:
            (.notAStore, "a store may hold no symbolic links; replace it by the file itself.")
        case ENOENT, ENOTDIR, EISDIR:
            (.notAStore, "there is no such directory or file; check the path.")
        case ENAMETOOLONG:
            (.pathTooLong, "the path is too long; use a shorter one.")
        case EAGAIN, EBUSY, EDEADLK, MDB_MAP_RESIZED:
            (.storeBusy, "another user of the store is in the way.")
        case MDB_BAD_VALSIZE:
            (.invalidArgument, "a key must have 1 to \(Table.keyBytesMax) bytes, a value less than 4 GiB.")
        case MDB_READERS_FULL, MDB_TXN_FULL, MDB_DBS_FULL, MDB_TLS_FULL, ENOMEM, EMFILE, ENFILE:
            (.unavailable, "a limit was reached; do less at once, or raise the limit.")
        default:
            (.storageFailed, "LMDB refused in a way that it should not; open the store again.")
        }
    }
}

/// Throws unless LMDB reported success.
func check(
    _ status: CInt,
    _ action: @autoclosure () -> String,
    file: String = #fileID,
    line: Int = #line
) throws(StalkError) {
    guard status == MDB_SUCCESS else { throw .lmdb(status, action(), file: file, line: line) }
}
