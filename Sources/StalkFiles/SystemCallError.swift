// One place where errno becomes an error that a person can act on.

internal import Glibc
package import StalkCore

extension StalkError {
    /// The error of a failed system call.
    ///
    /// - Parameters:
    ///   - call: The call, as in the manual: `openat`, `fdatasync`.
    ///   - path: The file it was made on.
    ///   - code: Its errno.
    package init(systemCall call: String, path: String, errno code: Int32, file: String = #fileID, line: Int = #line) {
        let reason = String(cString: strerror(code))
        let (kind, advice): (StalkError.Code, String) =
            switch code {
            case ENOSPC, EDQUOT, EFBIG:
                (
                    .storageFull,
                    "Free some space (or raise the quota or file size limit); nothing that is stored is lost."
                )
            case EACCES, EPERM:
                (.permissionDenied, "Run as the owner of the store, or give this user read and write access.")
            case EROFS:
                (.permissionDenied, "The file system is mounted read-only; a store must be writable.")
            case ENAMETOOLONG:
                (.pathTooLong, "Choose a shorter path.")
            case EMFILE, ENFILE:
                (.unavailable, "No file descriptor is left: raise the limit (ulimit -n) or close some.")
            case ENOTDIR:
                (.notAStore, "A part of the path is a file: name a directory.")
            case EISDIR:
                (.notAStore, "A directory stands where a store has a file: name the directory of a store.")
            case ELOOP:
                (.notAStore, "A store may hold no symbolic links: replace it by the file itself.")
            case EXDEV:
                (.notAStore, "The name leads out of the store, which holds all its files itself.")
            case ENOENT:
                (.noSuchStore, "Check the path.")
            default:
                (.storageFailed, "Check the disk and the kernel's log (dmesg), then open the store again.")
            }
        self.init(kind, "\(call) of \(path) failed: \(reason) (errno \(code)). \(advice)", file: file, line: line)
    }
}
