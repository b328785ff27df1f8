internal import Glibc
internal import StalkCore

/// A directory held open, and claimed for one environment of this process.
///
/// LMDB does not notice when a process opens a directory twice, and the second close then drops the locks of the first.
struct DirectoryClaim: ~Copyable {
    private struct Identity: Hashable {
        var device: dev_t
        var inode: ino_t
    }

    private static let claimed = Locked<Set<Identity>>([])

    let path: String
    /// Open as long as the claim lives, so that the inode can't come to mean another directory.
    let descriptor: CInt
    private let identity: Identity

    init(_ path: String) throws(StalkError) {
        let descriptor = Glibc.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else { throw .lmdb(errno, "open the directory \(path)") }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            let error = errno
            Glibc.close(descriptor)
            throw .lmdb(error, "open the directory \(path)")
        }
        let identity = Identity(device: status.st_dev, inode: status.st_ino)
        let isFree = Self.claimed.withLock { $0.insert(identity).inserted }
        guard isFree else {
            Glibc.close(descriptor)
            throw StalkError(
                .storeBusy,
                "The index in \(path) is already open in this process; share the one that is open, or close it first."
            )
        }
        self.path = path
        self.descriptor = descriptor
        self.identity = identity
    }

    deinit {
        let identity = self.identity
        Self.claimed.withLock { _ = $0.remove(identity) }
        Glibc.close(self.descriptor)
    }

    /// Refuses a file that LMDB would open through a symbolic link; one that is missing is none.
    borrowing func refuseLink(_ name: String) throws(StalkError) {
        var status = stat()
        guard fstatat(self.descriptor, name, &status, AT_SYMLINK_NOFOLLOW) == 0, status.st_mode & S_IFMT == S_IFLNK
        else { return }
        throw .lmdb(ELOOP, "open \(self.path)/\(name)")
    }

    /// Makes the names in the directory durable.
    borrowing func sync() throws(StalkError) {
        guard fsync(self.descriptor) == 0 else { throw .lmdb(errno, "sync the directory \(self.path)") }
    }
}
