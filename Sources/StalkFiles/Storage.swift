// The only target that makes file system calls. Everything above goes through this seam, so that a simulated disk, or one
// that fails on purpose, can stand in for the real one.

public import StalkCore

/// A directory of a store.
///
/// Names are single path components, or `sub/name` one level down.
/// Calls block: they belong on threads of their own. Errors are ``StalkError`` with the call, the file and what to do.
public protocol StorageDirectory: Sendable {
    /// What messages call it.
    var path: String { get }

    /// Free bytes on the file system; `nil` when nobody knows.
    var freeBytes: Int? { get }

    /// What was asked of the disk through this directory since it was opened; zeros where nobody counts.
    var activity: FileActivity { get }

    /// Opens a file.
    ///
    /// - Parameters:
    ///   - name: The file, relative to the directory.
    ///   - creation: Whether it may, must or must not be new.
    func open(_ name: String, _ creation: FileCreation) throws(StalkError) -> any StorageFile

    /// The names in a subdirectory (or in the directory itself, for an empty text), sorted; empty when it is missing.
    func list(_ subdirectory: String) throws(StalkError) -> [String]

    /// Makes a subdirectory with mode 0700, unless it is there, and makes its name durable.
    func makeDirectory(_ name: String) throws(StalkError)

    /// Renames a file. Durable only after ``sync(_:)`` of the directory.
    func rename(_ name: String, to newName: String) throws(StalkError)

    /// Removes a file. Durable only after ``sync(_:)`` of the directory.
    func remove(_ name: String) throws(StalkError)

    /// Makes the names in a subdirectory (or in the directory itself, for an empty text) durable.
    func sync(_ subdirectory: String) throws(StalkError)
}

extension StorageDirectory {
    /// Zeros: nobody counts.
    public var activity: FileActivity { FileActivity(syncs: 0, bytesWritten: 0) }
}

/// Whether opening a file may make it.
public enum FileCreation: Hashable, Sendable {
    /// The file must be there; it is opened for reading only.
    case readOnly
    /// The file must be there.
    case existing
    /// The file must not be there.
    case new
    /// The file is made when it is missing.
    case ifMissing
}

/// An open file of a store; closed when it is released.
public protocol StorageFile: AnyObject, Sendable {
    /// The size in bytes.
    func size() throws(StalkError) -> Int

    /// Reads up to `count` bytes at an offset; fewer only at the end of the file.
    func read(at offset: Int, count: Int) throws(StalkError) -> [UInt8]

    /// Writes all bytes at an offset.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StalkError)

    /// Returns once the file's data survives a power cut (fdatasync).
    func sync() throws(StalkError)

    /// Fills a new file with zeros up to `size`, durably, so that later writes change no metadata and find their space.
    func fillWithZeros(_ size: Int) throws(StalkError)

    /// Lets later reads come from the disk instead of memory, as far as the system allows.
    func dropCache() throws(StalkError)
}

extension StorageFile {
    /// Writes all bytes of an array at an offset.
    public func write(_ bytes: [UInt8], at offset: Int) throws(StalkError) {
        let result: Result<Void, StalkError> = bytes.withUnsafeBytes { buffer in
            do throws(StalkError) {
                try self.write(buffer, at: offset)
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }
}
