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
}
