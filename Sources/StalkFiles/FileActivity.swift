// Counting what the disk is asked to do, where it is asked.

internal import Synchronization

/// What a directory and its files asked of the disk since the directory was opened.
public struct FileActivity: Hashable, Sendable {
    /// Calls of fdatasync and fsync, on files and directories.
    public var syncs: Int
    /// Bytes handed to write calls, prepared segments included.
    public var bytesWritten: Int
    /// Calls of fdatasync, which is how the log is synced.
    public var dataSyncs: Int
    /// How long those took together.
    public var dataSyncTime: Duration

    /// States what was asked of the disk; directories do this.
    public init(syncs: Int, bytesWritten: Int, dataSyncs: Int = 0, dataSyncTime: Duration = .zero) {
        self.syncs = syncs
        self.bytesWritten = bytesWritten
        self.dataSyncs = dataSyncs
        self.dataSyncTime = dataSyncTime
    }
}

/// The counters of a directory, shared with the files that it opened.
final class ActivityCounters: Sendable {
    private let syncs = Atomic<Int>(0)
    private let bytesWritten = Atomic<Int>(0)
    private let dataSyncs = Atomic<Int>(0)
    private let dataSyncNanoseconds = Atomic<Int64>(0)

    func noteSync() {
        self.syncs.wrappingAdd(1, ordering: .relaxed)
    }

    func noteDataSync(nanoseconds: Int64) {
        self.noteSync()
        self.dataSyncs.wrappingAdd(1, ordering: .relaxed)
        self.dataSyncNanoseconds.wrappingAdd(nanoseconds, ordering: .relaxed)
    }

    func noteWritten(_ count: Int) {
        self.bytesWritten.wrappingAdd(count, ordering: .relaxed)
    }

    var activity: FileActivity {
        FileActivity(
            syncs: self.syncs.load(ordering: .relaxed),
            bytesWritten: self.bytesWritten.load(ordering: .relaxed),
            dataSyncs: self.dataSyncs.load(ordering: .relaxed),
            dataSyncTime: .nanoseconds(self.dataSyncNanoseconds.load(ordering: .relaxed))
        )
    }
}
