// A disk that loses, reorders and tears what was not synced, as real ones may, but from a seed.

public import StalkCore
public import StalkFiles

/// A directory that lives in memory and keeps apart what is durable from what is only written.
///
/// It stands in for a directory of the real file system. ``crash(seed:)`` gives the disk as a power cut leaves it:
/// each piece of what was written since the last sync, sectors of 512 bytes or pages of 4096, is there or not, and so
/// is each creation, renaming and removal whose directory was not synced. ``kill()`` gives it as the end of the process
/// leaves it. Both leave this disk as it is, so that one history can be cut at many places. The same calls and the same
/// seed give the same disk.
///
/// After a sync that failed it does what ext4 does: memory shows the new bytes and later syncs succeed, but the disk has
/// the old ones; ``StorageFile/dropCache()`` shows them.
public final class SimulatedDisk: StorageDirectory {
    private let state: Locked<SimulatedDiskStateMachine>

    /// Makes an empty disk.
    ///
    /// - Parameter isLying: Whether syncs report success and do nothing, to see whether a test would notice.
    public convenience init(isLying: Bool = false) {
        self.init(lyingAbout: isLying ? [.sync, .syncDirectory, .makeDirectory, .fillWithZeros] : [])
    }

    /// Makes an empty disk that reports success for some calls and makes nothing durable in them.
    ///
    /// - Parameter operations: Which calls: of ``DiskOperation/sync``, ``DiskOperation/syncDirectory``,
    ///   ``DiskOperation/makeDirectory`` and ``DiskOperation/fillWithZeros``.
    public convenience init(lyingAbout operations: Set<DiskOperation>) {
        self.init(SimulatedDiskStateMachine(lies: operations))
    }

    private init(_ state: SimulatedDiskStateMachine) {
        self.state = Locked(state)
    }

    // MARK: Faults

    /// How many calls changed the disk, or what of it is durable, until now.
    public var changes: Int { self.state.withLock { $0.changes } }

    /// How many calls of a kind were made until now.
    public func calls(of operation: DiskOperation) -> Int { self.state.withLock { $0.calls[operation, default: 0] } }

    /// Lets the power go off during a call: that call and all later ones throw.
    ///
    /// What the call writes is in memory then, what it would make durable is not.
    ///
    /// - Parameter change: Which call, as ``changes`` counts them, from 1 for the disk's first.
    public func cutPower(atChange change: Int) {
        self.state.withLock { $0.cutPower(atChange: change) }
    }

    /// Lets calls fail.
    ///
    /// - Parameter fault: Which ones, and how.
    public func inject(_ fault: DiskFault) {
        self.state.withLock { $0.inject(fault) }
    }

    /// Lets the disk heal: faults that are still to come don't.
    public func heal() {
        self.state.withLock { $0.heal() }
    }

    /// How many calls failed until now because they were told to.
    public var failures: Int { self.state.withLock { $0.failures } }

    // MARK: Ends

    /// The disk as a power cut at this moment leaves it, with the power back on.
    ///
    /// - Parameter seed: Decides what of the unsynced survives.
    public func crash(seed: UInt64) -> SimulatedDisk {
        SimulatedDisk(self.state.withLock { $0.afterPowerCut(seed: seed) })
    }

    /// The disk as it is after this process was killed: what was written is there, but no more durable than before.
    public func kill() -> SimulatedDisk {
        SimulatedDisk(self.state.withLock { $0.afterKill() })
    }

    // MARK: Looking at it and damaging it

    /// The bytes that reading a file shows, or `nil` when there is none of this name.
    public func contents(of name: String) -> [UInt8]? {
        self.state.withLock { $0.contents(of: name) }
    }

    /// Changes bytes of a file durably and without counting, as bit rot does.
    ///
    /// - Parameters:
    ///   - name: The file; when it is missing, nothing happens.
    ///   - offset: Where the new bytes begin.
    ///   - bytes: The new bytes.
    public func damage(_ name: String, at offset: Int, with bytes: [UInt8]) {
        self.state.withLock { $0.damage(name, at: offset, with: bytes) }
    }

    /// Cuts a file off durably and without counting.
    ///
    /// - Parameters:
    ///   - name: The file; when it is missing, nothing happens.
    ///   - size: Its new size; what is shorter already stays.
    public func truncate(_ name: String, to size: Int) {
        self.state.withLock { $0.truncate(name, to: size) }
    }

    // MARK: StorageDirectory

    /// What messages call it.
    public var path: String { "the simulated disk" }

    /// Not known: a simulated disk is full when a fault says so.
    public var freeBytes: Int? { nil }

    /// Opens a file.
    public func open(_ name: String, _ creation: FileCreation) throws(StalkError) -> any StorageFile {
        let number = try self.change { state throws(StalkError) in try state.open(name, creation) }
        return SimulatedFile(disk: self, number: number, isWritable: creation != .readOnly)
    }

    /// The names in a subdirectory, sorted; empty when it is missing.
    public func list(_ subdirectory: String) throws(StalkError) -> [String] {
        try self.change { state throws(StalkError) in try state.list(subdirectory) }
    }

    /// Makes a subdirectory, unless it is there, and makes its name durable.
    public func makeDirectory(_ name: String) throws(StalkError) {
        try self.change { state throws(StalkError) in try state.makeDirectory(name) }
    }

    /// Renames a file.
    public func rename(_ name: String, to newName: String) throws(StalkError) {
        try self.change { state throws(StalkError) in try state.rename(name, to: newName) }
    }

    /// Removes a file.
    public func remove(_ name: String) throws(StalkError) {
        try self.change { state throws(StalkError) in try state.remove(name) }
    }

    /// Makes the names in a subdirectory durable.
    public func sync(_ subdirectory: String) throws(StalkError) {
        try self.change { state throws(StalkError) in try state.syncDirectory(subdirectory) }
    }

    fileprivate func change<Value: Sendable>(
        _ body: (inout SimulatedDiskStateMachine) throws(StalkError) -> Value
    ) throws(StalkError) -> Value {
        try self.state.withLock { state throws(StalkError) in try body(&state) }
    }
}

/// A file of a ``SimulatedDisk``; a later rename or removal of its name changes nothing for it.
private final class SimulatedFile: StorageFile {
    private let disk: SimulatedDisk
    private let number: Int
    private let isWritable: Bool

    init(disk: SimulatedDisk, number: Int, isWritable: Bool) {
        self.disk = disk
        self.number = number
        self.isWritable = isWritable
    }

    func size() throws(StalkError) -> Int {
        try self.disk.change { state throws(StalkError) in try state.size(self.number) }
    }

    func read(at offset: Int, count: Int) throws(StalkError) -> [UInt8] {
        try self.disk.change { state throws(StalkError) in try state.read(self.number, at: offset, count: count) }
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StalkError) {
        try self.checkWritable()
        try self.disk.change { state throws(StalkError) in try state.write(self.number, bytes, at: offset) }
    }

    func sync() throws(StalkError) {
        try self.disk.change { state throws(StalkError) in try state.sync(self.number) }
    }

    func fillWithZeros(_ size: Int) throws(StalkError) {
        try self.checkWritable()
        try self.disk.change { state throws(StalkError) in try state.fillWithZeros(self.number, size) }
    }

    func dropCache() throws(StalkError) {
        try self.disk.change { state throws(StalkError) in try state.dropCache(self.number) }
    }

    private func checkWritable() throws(StalkError) {
        guard self.isWritable else { throw StalkError(.permissionDenied, "The file was opened for reading only.") }
    }
}
