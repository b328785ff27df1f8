// What the care of a store needs of its directory beyond running it.

internal import CStalkSystem
internal import Glibc
public import StalkCore

extension RealDirectory {
    /// Takes the store's lock without changing anything: the lock file is neither made nor written to.
    ///
    /// - Parameter name: The lock file.
    /// - Returns: What holds the lock for as long as it lives; `nil` when there is no lock file, so that nobody can own
    ///   the store.
    /// - Throws: ``StalkError`` with ``StalkError/Code/storeBusy``, naming the owner's process.
    public func lockUnchanged(_ name: String) throws(StalkError) -> DirectoryLock? {
        guard try self.list("").contains(name) else { return nil }
        let shown = "\(self.path)/\(name)"
        let descriptor = try Descriptor(below: self.descriptor.number, name, flags: O_RDONLY, mode: 0, shown: shown)
        return try self.lock(descriptor, shown: shown)
    }

    /// Refuses symbolic links in the directory itself and in some of its subdirectories.
    ///
    /// - Throws: ``StalkError`` with ``StalkError/Code/notAStore``, naming the first one.
    public func refuseLinks(in subdirectories: [String]) throws(StalkError) {
        for subdirectory in [""] + subdirectories {
            for name in try self.list(subdirectory) {
                let path = subdirectory.isEmpty ? name : "\(subdirectory)/\(name)"
                var status = stat()
                guard fstatat(self.descriptor.number, path, &status, AT_SYMLINK_NOFOLLOW) == 0,
                    status.st_mode & S_IFMT == S_IFLNK
                else { continue }
                throw StalkError(systemCall: "openat2", path: "\(self.path)/\(path)", errno: ELOOP)
            }
        }
    }

    /// Gives a file a second name.
    ///
    /// Durable only after ``sync(_:)`` of the directory. Where the file system has no hard links, the file is copied.
    public func link(_ name: String, to newName: String) throws(StalkError) {
        let shown = "\(self.path)/\(name)"
        let old = try Place(of: name, below: self.descriptor.number, shown: shown)
        let new = try Place(of: newName, below: self.descriptor.number, shown: "\(self.path)/\(newName)")
        guard linkat(old.directory, old.name, new.directory, new.name, 0) != 0 else { return }
        guard [EPERM, EOPNOTSUPP, EMLINK].contains(errno) else {
            throw StalkError(systemCall: "linkat", path: shown, errno: errno)
        }
        let source = try self.open(name, .readOnly)
        try source.copy(from: 0, count: source.size(), to: self.open(newName, .new))
    }

    /// Removes an empty subdirectory, if it is there.
    public func removeDirectory(_ name: String) throws(StalkError) {
        let place = try Place(of: name, below: self.descriptor.number, shown: "\(self.path)/\(name)")
        guard unlinkat(place.directory, place.name, AT_REMOVEDIR) != 0, errno != ENOENT else { return }
        throw StalkError(systemCall: "unlinkat", path: "\(self.path)/\(name)", errno: errno)
    }

    /// Gives this directory another path, durably; what stands there may only be an empty directory.
    public func move(to newPath: String) throws(StalkError) {
        guard Glibc.rename(self.path, newPath) == 0 else {
            throw StalkError(systemCall: "rename", path: newPath, errno: errno)
        }
        let parent = try RealDirectory(path: Self.parent(of: newPath), createIfMissing: false)
        try parent.sync("")
    }

    /// Removes the directory at a path, if it is there and empty.
    public static func removeEmpty(_ path: String) {
        rmdir(path)
    }
}

extension StorageFile {
    /// Copies a part of the file to the start of another one, and syncs that.
    ///
    /// - Parameters:
    ///   - offset: Where to begin.
    ///   - count: How many bytes; what the file lacks of them is left out.
    ///   - copy: The other file.
    public func copy(from offset: Int, count: Int, to copy: any StorageFile) throws(StalkError) {
        var done = 0
        while done < count {
            let bytes = try self.read(at: offset + done, count: min(1 << 20, count - done))
            guard !bytes.isEmpty else { break }
            try copy.write(bytes, at: done)
            done += bytes.count
        }
        try copy.sync()
    }
}
