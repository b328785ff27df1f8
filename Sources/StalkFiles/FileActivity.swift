// Counting what the disk is asked to do, where it is asked.

internal import Synchronization

/// What a directory and its files asked of the disk since the directory was opened.
public struct FileActivity: Hashable, Sendable {
    /// Calls of fdatasync and fsync, on files and directories.
    public var syncs: Int
    /// Bytes handed to write calls, prepared segments included.
    public var bytesWritten: Int

    /// States what was asked of the disk; directories do this.
    public init(syncs: Int, bytesWritten: Int) {
        self.syncs = syncs
        self.bytesWritten = bytesWritten
    }
}

/// The counters of a directory, shared with the files that it opened.
final class ActivityCounters: Sendable {
    private let syncs = Atomic<Int>(0)
    private let bytesWritten = Atomic<Int>(0)

    func noteSync() {
        self.syncs.wrappingAdd(1, ordering: .relaxed)
    }

    func noteWritten(_ count: Int) {
        self.bytesWritten.wrappingAdd(count, ordering: .relaxed)
    }

    var activity: FileActivity {
        FileActivity(
            syncs: self.syncs.load(ordering: .relaxed),
            bytesWritten: self.bytesWritten.load(ordering: .relaxed)
        )
    }
}
