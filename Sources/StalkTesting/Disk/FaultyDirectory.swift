// A real directory whose calls fail when they are told to.

public import StalkCore
public import StalkFiles

/// A directory that passes all calls on to another one, and lets chosen ones fail.
///
/// Where a ``SimulatedDisk`` takes the place of the real file system, this one stands in front of it, so that the rest of a
/// store (its threads, LMDB) is real. Failing calls do nothing, but for ``DiskFault/reachedBytes`` of a write.
public final class FaultyDirectory: StorageDirectory {
    private struct State {
        var faults: [DiskFault] = []
        var calls = 0
        var failures = 0
    }

    private let base: any StorageDirectory
    private let state = Locked(State())

    /// Stands in front of a directory.
    ///
    /// - Parameter base: What the calls are passed on to.
    public init(_ base: any StorageDirectory) {
        self.base = base
    }

    // MARK: Faults

    /// How many calls were made until now.
    public var calls: Int { self.state.withLock { $0.calls } }

    /// How many of them failed because they were told to.
    public var failures: Int { self.state.withLock { $0.failures } }

    /// Lets calls fail.
    ///
    /// - Parameter fault: Which ones, and how.
    public func inject(_ fault: DiskFault) {
        self.state.withLock { $0.faults.append(fault) }
    }

    /// Lets faults that are still to come not come.
    public func heal() {
        self.state.withLock { $0.faults = [] }
    }

    /// Counts a call, and says how it is to fail, if it is.
    fileprivate func begin(_ operation: DiskOperation, in directory: String) -> DiskFault? {
        self.state.withLock { state in
            state.calls += 1
            var result: DiskFault?
            for index in state.faults.indices.reversed() where state.faults[index].operation == operation {
                guard state.faults[index].directory.map({ $0 == directory }) ?? true else { continue }
                state.faults[index].call -= 1
                guard state.faults[index].call <= 0 else { continue }
                result = state.faults[index]
                if !state.faults[index].isLasting { state.faults.remove(at: index) }
            }
            if result != nil { state.failures += 1 }
            return result
        }
    }

    private func check(_ operation: DiskOperation, _ name: String) throws(StalkError) {
        if let fault = self.begin(operation, in: SimulatedNames.directory(of: name)) { throw fault.error }
    }

    // MARK: StorageDirectory

    /// What messages call it.
    public var path: String { self.base.path }

    /// Free bytes on the file system.
    public var freeBytes: Int? { self.base.freeBytes }

    /// What was asked of the disk.
    public var activity: FileActivity { self.base.activity }

    /// Opens a file.
    public func open(_ name: String, _ creation: FileCreation) throws(StalkError) -> any StorageFile {
        try self.check(.open, name)
        let file = try self.base.open(name, creation)
        return FaultyFile(file, of: self, in: SimulatedNames.directory(of: name))
    }

    /// The names in a subdirectory, sorted; empty when it is missing.
    public func list(_ subdirectory: String) throws(StalkError) -> [String] {
        try self.check(.list, "\(subdirectory)/")
        return try self.base.list(subdirectory)
    }

    /// Makes a subdirectory, unless it is there, and makes its name durable.
    public func makeDirectory(_ name: String) throws(StalkError) {
        try self.check(.makeDirectory, name)
        try self.base.makeDirectory(name)
    }

    /// Renames a file.
    public func rename(_ name: String, to newName: String) throws(StalkError) {
        try self.check(.rename, name)
        try self.base.rename(name, to: newName)
    }

    /// Removes a file.
    public func remove(_ name: String) throws(StalkError) {
        try self.check(.remove, name)
        try self.base.remove(name)
    }

    /// Makes the names in a subdirectory durable.
    public func sync(_ subdirectory: String) throws(StalkError) {
        try self.check(.syncDirectory, "\(subdirectory)/")
        try self.base.sync(subdirectory)
    }
}

/// A file of a ``FaultyDirectory``.
private final class FaultyFile: StorageFile {
    private let base: any StorageFile
    private let owner: FaultyDirectory
    private let directory: String

    init(_ base: any StorageFile, of owner: FaultyDirectory, in directory: String) {
        self.base = base
        self.owner = owner
        self.directory = directory
    }

    private func check(_ operation: DiskOperation) throws(StalkError) {
        if let fault = self.owner.begin(operation, in: self.directory) { throw fault.error }
    }

    func size() throws(StalkError) -> Int {
        try self.check(.size)
        return try self.base.size()
    }

    func read(at offset: Int, count: Int) throws(StalkError) -> [UInt8] {
        try self.check(.read)
        return try self.base.read(at: offset, count: count)
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StalkError) {
        guard let fault = self.owner.begin(.write, in: self.directory) else {
            return try self.base.write(bytes, at: offset)
        }
        try self.base.write(UnsafeRawBufferPointer(rebasing: bytes.prefix(fault.reachedBytes)), at: offset)
        throw fault.error
    }

    func sync() throws(StalkError) {
        try self.check(.sync)
        try self.base.sync()
    }

    func fillWithZeros(_ size: Int) throws(StalkError) {
        try self.check(.fillWithZeros)
        try self.base.fillWithZeros(size)
    }

    func dropCache() throws(StalkError) {
        try self.check(.dropCache)
        try self.base.dropCache()
    }
}
