// Copies of data.mdb: for another directory, or to take its own place without the pages that are free.

internal import CLMDB
internal import Glibc
package import StalkCore

extension Environment {
    /// The name of a copy that is to take the place of data.mdb; a crash can leave it behind.
    package static var replacementName: String { "data.mdb.new" }

    /// The version of LMDB that runs, as in "0.9.24".
    package static var libraryVersion: String {
        var (major, minor, patch): (CInt, CInt, CInt) = (0, 0, 0)
        _ = mdb_version(&major, &minor, &patch)
        return "\(major).\(minor).\(patch)"
    }

    /// Whether it can be read: false after ``close()``, and when another file could not be opened in the old one's place.
    package var isOpen: Bool {
        (try? self.withHandle { _ throws(StalkError) in true }) ?? false
    }

    /// Copies the last commit, without free pages, into a new data.mdb, and syncs it; reads and writes go on meanwhile.
    ///
    /// - Parameter directory: An existing directory without data.mdb; making its names durable is the caller's business.
    /// - Throws: ``StalkError`` with ``StalkError/Code/storageFull`` when there is no room; nothing is left behind then.
    package func copy(to directory: String) throws(StalkError) {
        let path = "\(directory)/\(DataFile.name)"
        try self.withHandle { handle throws(StalkError) in try handle.copy(to: path) }
    }

    /// Puts a copy without free pages in the place of data.mdb.
    ///
    /// Reads go on while it is made, writes wait. A crash at any moment leaves the old file or the new one.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/storageFull`` when there is no room for the copy; then nothing
    ///   has changed. ``StalkError/Code/storageFailed`` when the disk failed; when it did so after the exchange, every
    ///   later call throws too.
    package func compact() throws(StalkError) {
        try self.writeGate.exclusive { () throws(StalkError) in
            if let failure = self.failure { throw failure }
            let replacement = "\(self.path)/\(Self.replacementName)"
            try self.withHandle { handle throws(StalkError) in
                unlink(replacement)
                try handle.copy(to: replacement)
            }
            try self.mapGate.exclusive { () throws(StalkError) in
                let mapBytes = try self.openHandle.mapBytes
                // LMDB must have let go of the file before another one takes its name.
                self.handle = nil
                let renamed = rename(replacement, "\(self.path)/\(DataFile.name)") == 0 ? 0 : errno
                do throws(StalkError) {
                    try self.reopen(mapBytes: mapBytes)
                } catch {
                    self.failure = error
                    throw error
                }
                guard renamed == 0 else {
                    unlink(replacement)
                    throw .lmdb(renamed, "rename \(replacement)")
                }
            }
        }
    }

    private func reopen(mapBytes: Int) throws(StalkError) {
        let handle = try EnvironmentHandle(
            path: self.path,
            mapBytes: mapBytes,
            tableCount: self.tables.count,
            access: .existing,
            checkedAtOnce: nil
        )
        try handle.syncDirectory()
        // LMDB numbers tables in the order in which they are opened, and everybody keeps the numbers.
        let names = self.tables.values.sorted { $0.handle < $1.handle }.map(\.name)
        let tables = try handle.openTables(names, create: false)
        guard names.allSatisfy({ tables[$0]?.handle == self.tables[$0]?.handle }) else {
            throw StalkError(.storageFailed, "LMDB numbered the tables of \(self.path) anew; open the store again.")
        }
        self.handle = handle
    }
}

extension EnvironmentHandle {
    /// Copies the last commit into a new file, and syncs it; what could not be finished is removed.
    func copy(to path: String) throws(StalkError) {
        // LMDB goes over all of the trees.
        try self.pages?.allowAll()
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .lmdb(errno, "make \(path)") }
        var status = mdb_env_copyfd2(self.pointer, descriptor, UInt32(MDB_CP_COMPACT))
        if status == MDB_SUCCESS, fsync(descriptor) != 0 { status = errno }
        Glibc.close(descriptor)
        guard status != MDB_SUCCESS else { return }
        unlink(path)
        throw .lmdb(status, "copy the index to \(path)")
    }

    func syncDirectory() throws(StalkError) { try self.claim.sync() }
}
