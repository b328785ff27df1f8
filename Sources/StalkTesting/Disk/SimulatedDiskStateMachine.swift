internal import Glibc
internal import StalkCore
internal import StalkFiles

/// Everything a ``SimulatedDisk`` is: names, files, what is not durable yet, and the faults that are to come.
struct SimulatedDiskStateMachine: Sendable {
    private struct PendingChange: Sendable {
        var serial: UInt64
        var change: SimulatedNames.Change
        /// The directories whose sync is missing.
        var unsynced: Set<String>
    }

    /// What a call is about.
    private enum Place {
        case directory(String)
        case name(String)
        case file(Int)
    }

    /// What becomes of a call.
    private enum Fate {
        case success
        case failure(DiskFault)
        /// The power goes off during the call: nothing that it would make durable is.
        case powerCut
    }

    private var files: [Int: SimulatedContent] = [:]
    private var names = SimulatedNames()
    private var durableNames = SimulatedNames()
    private var pendingChanges: [PendingChange] = []
    private var serial: UInt64 = 0
    private var nextFile = 0

    private let lies: Set<DiskOperation>
    private(set) var calls: [DiskOperation: Int] = [:]
    /// Counts the calls that change the disk, or what of it is durable.
    private(set) var changes = 0
    private var powerCutAt: Int?
    private var isOff = false
    private var faults: [DiskFault] = []
    private(set) var failures = 0

    init(lies: Set<DiskOperation>) {
        self.lies = lies
    }

    // MARK: Faults

    mutating func cutPower(atChange change: Int) {
        self.powerCutAt = change
    }

    mutating func inject(_ fault: DiskFault) {
        self.faults.append(fault)
    }

    mutating func heal() {
        self.faults = []
    }

    /// Counts a call and decides what becomes of it.
    private mutating func begin(
        _ operation: DiskOperation,
        isChange: Bool,
        on place: Place
    ) throws(StalkError) -> Fate {
        if self.isOff { throw .powerIsOff }
        self.calls[operation, default: 0] += 1
        if isChange {
            self.changes += 1
            self.serial += 1
        }
        if isChange, self.changes == self.powerCutAt {
            self.isOff = true
            return .powerCut
        }
        return self.fault(of: operation, on: place).map(Fate.failure) ?? .success
    }

    private mutating func fault(of operation: DiskOperation, on place: Place) -> DiskFault? {
        guard !self.faults.isEmpty else { return nil }
        let directory = self.directory(of: place)
        var result: DiskFault?
        for index in self.faults.indices.reversed() where self.faults[index].operation == operation {
            guard self.faults[index].directory.map({ $0 == directory }) ?? true else { continue }
            self.faults[index].call -= 1
            guard self.faults[index].call <= 0 else { continue }
            result = self.faults[index]
            if !self.faults[index].isLasting { self.faults.remove(at: index) }
        }
        if result != nil { self.failures += 1 }
        return result
    }

    private func directory(of place: Place) -> String {
        switch place {
        case .directory(let name): name
        case .name(let name): SimulatedNames.directory(of: name)
        case .file(let number):
            self.names.files.first { $0.value == number }.map { SimulatedNames.directory(of: $0.key) } ?? ""
        }
    }

    /// Ends a call that did what it does in memory.
    private func end(_ fate: Fate) throws(StalkError) {
        switch fate {
        case .success: return
        case .failure(let fault): throw fault.error
        case .powerCut: throw .powerIsOff
        }
    }

    // MARK: Names

    mutating func open(_ name: String, _ creation: FileCreation) throws(StalkError) -> Int {
        let file = self.names.files[name]
        let creates = file == nil && (creation == .new || creation == .ifMissing)
        let fate = try self.begin(.open, isChange: creates, on: .name(name))
        if case .failure(let fault) = fate { throw fault.error }
        try Self.check(name, "openat2")
        if self.names.directories.contains(name) { throw StalkError(systemCall: "openat2", path: name, errno: EISDIR) }
        if let file {
            if creation == .new { throw StalkError(systemCall: "openat2", path: name, errno: EEXIST) }
            return file
        }
        guard creates, self.names.directories.contains(SimulatedNames.directory(of: name)) else {
            throw StalkError(systemCall: "openat2", path: name, errno: ENOENT)
        }
        self.nextFile += 1
        self.files[self.nextFile] = SimulatedContent()
        self.change(.create(name, file: self.nextFile))
        try self.end(fate)
        return self.nextFile
    }

    mutating func list(_ directory: String) throws(StalkError) -> [String] {
        try self.end(self.begin(.list, isChange: false, on: .directory(directory)))
        return self.names.list(directory)
    }

    mutating func makeDirectory(_ name: String) throws(StalkError) {
        let fate = try self.begin(.makeDirectory, isChange: true, on: .name(name))
        if case .failure(let fault) = fate { throw fault.error }
        try Self.check(name, "mkdirat")
        if self.names.files[name] != nil { throw StalkError(systemCall: "mkdirat", path: name, errno: ENOTDIR) }
        if !self.names.directories.contains(name) { self.change(.makeDirectory(name)) }
        try self.end(fate)
        if !self.lies.contains(.makeDirectory) { self.makeNamesDurable(in: "") }
    }

    mutating func rename(_ name: String, to newName: String) throws(StalkError) {
        let fate = try self.begin(.rename, isChange: true, on: .name(name))
        if case .failure(let fault) = fate { throw fault.error }
        try Self.check(name, "renameat")
        try Self.check(newName, "renameat")
        guard self.names.files[name] != nil,
            self.names.directories.contains(SimulatedNames.directory(of: newName))
        else { throw StalkError(systemCall: "renameat", path: name, errno: ENOENT) }
        self.change(.rename(name, to: newName))
        try self.end(fate)
    }

    mutating func remove(_ name: String) throws(StalkError) {
        let fate = try self.begin(.remove, isChange: true, on: .name(name))
        if case .failure(let fault) = fate { throw fault.error }
        try Self.check(name, "unlinkat")
        guard self.names.files[name] != nil else { throw StalkError(systemCall: "unlinkat", path: name, errno: ENOENT) }
        self.change(.remove(name))
        try self.end(fate)
    }

    mutating func syncDirectory(_ name: String) throws(StalkError) {
        try self.end(self.begin(.syncDirectory, isChange: true, on: .directory(name)))
        guard self.names.directories.contains(name) else {
            throw StalkError(systemCall: "openat2", path: name, errno: ENOENT)
        }
        if !self.lies.contains(.syncDirectory) { self.makeNamesDurable(in: name) }
    }

    private static func check(_ name: String, _ call: String) throws(StalkError) {
        if let code = SimulatedNames.refusal(of: name) { throw StalkError(systemCall: call, path: name, errno: code) }
    }

    private mutating func change(_ change: SimulatedNames.Change) {
        self.names.apply(change)
        self.pendingChanges.append(
            PendingChange(serial: self.serial, change: change, unsynced: change.directories)
        )
    }

    private mutating func makeNamesDurable(in directory: String) {
        for index in self.pendingChanges.indices {
            self.pendingChanges[index].unsynced.remove(directory)
            if self.pendingChanges[index].unsynced.isEmpty {
                self.durableNames.apply(self.pendingChanges[index].change)
            }
        }
        self.pendingChanges.removeAll { $0.unsynced.isEmpty }
    }

    // MARK: Files

    mutating func size(_ file: Int) throws(StalkError) -> Int {
        try self.end(self.begin(.size, isChange: false, on: .file(file)))
        return self.files[file]?.size ?? 0
    }

    mutating func read(_ file: Int, at offset: Int, count: Int) throws(StalkError) -> [UInt8] {
        try self.end(self.begin(.read, isChange: false, on: .file(file)))
        return self.files[file]?.read(at: offset, count: count) ?? []
    }

    mutating func write(_ file: Int, _ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StalkError) {
        let fate = try self.begin(.write, isChange: true, on: .file(file))
        var reached = bytes
        if case .failure(let fault) = fate {
            reached = UnsafeRawBufferPointer(rebasing: bytes.prefix(fault.reachedBytes))
        }
        self.files[file]?.write(reached, at: offset, serial: self.serial)
        try self.end(fate)
    }

    mutating func sync(_ file: Int) throws(StalkError) {
        let fate = try self.begin(.sync, isChange: true, on: .file(file))
        if case .failure = fate { self.files[file]?.forgetDirtyPages() }
        try self.end(fate)
        if !self.lies.contains(.sync) { self.files[file]?.sync() }
    }

    mutating func fillWithZeros(_ file: Int, _ size: Int) throws(StalkError) {
        let fate = try self.begin(.fillWithZeros, isChange: true, on: .file(file))
        var reached = size
        if case .failure(let fault) = fate { reached = min(size, fault.reachedBytes) }
        self.files[file]?.fillWithZeros(reached, serial: self.serial)
        try self.end(fate)
        if !self.lies.contains(.fillWithZeros) { self.files[file]?.sync() }
    }

    mutating func dropCache(_ file: Int) throws(StalkError) {
        try self.end(self.begin(.dropCache, isChange: false, on: .file(file)))
        self.files[file]?.dropCache()
    }

    // MARK: Ends and beginnings

    /// The disk after a power cut at this moment.
    func afterPowerCut(seed: UInt64) -> SimulatedDiskStateMachine {
        let serials = self.files.values.flatMap(\.unsyncedSerials) + self.pendingChanges.map(\.serial)
        var cut = PowerCut(seed: seed, serials: (serials.min() ?? 0)...(serials.max() ?? 0))
        var result = SimulatedDiskStateMachine(lies: self.lies)
        var names = self.durableNames
        // Any change may be lost; one that was built on a lost change is lost with it.
        for pending in self.pendingChanges where cut.keeps(pending.serial) { names.apply(pending.change) }
        result.names = names
        result.durableNames = names
        for file in names.files.values.sorted() { result.files[file] = self.files[file]?.after(&cut) }
        result.nextFile = self.nextFile
        return result
    }

    /// The disk after the process was killed: all that it wrote is in memory still.
    func afterKill() -> SimulatedDiskStateMachine {
        var result = self
        result.calls = [:]
        result.changes = 0
        result.powerCutAt = nil
        result.isOff = false
        result.faults = []
        result.failures = 0
        return result
    }

    // MARK: For tests

    func contents(of name: String) -> [UInt8]? {
        guard let content = self.names.files[name].flatMap({ self.files[$0] }) else { return nil }
        return content.read(at: 0, count: content.size)
    }

    mutating func damage(_ name: String, at offset: Int, with bytes: [UInt8]) {
        if let file = self.names.files[name] { self.files[file]?.damage(at: offset, with: bytes) }
    }

    mutating func truncate(_ name: String, to size: Int) {
        if let file = self.names.files[name] { self.files[file]?.truncate(to: size) }
    }
}

extension StalkError {
    fileprivate static var powerIsOff: StalkError {
        StalkError(.storageFailed, "The simulated disk has no power: go on with what crash(seed:) returns.")
    }
}
