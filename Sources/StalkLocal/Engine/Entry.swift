// One message in memory.

internal import StalkCore
internal import StalkWheel

/// A message that is in memory: one that LMDB does not know yet, that changed since the last checkpoint, that is leased, or
/// that stands in the window at the head of its queue.
///
/// What is in memory overrides what LMDB says. An object, since a call changes several of its fields and would look it up,
/// or copy it, for each; it never leaves the engine, which hands out an ``EntrySnapshot``.
final class Entry {
    enum Status: UInt8 {
        /// Its record is on the way to the disk; nobody may see it yet.
        case staged
        case ready
        case delayed
        case leased
        case dead
        /// Done. It stays for as long as LMDB still holds it.
        case gone
    }

    /// The part that changes, as the next checkpoint would write it.
    var standing: MessageStanding
    private(set) var content: MessageContent
    var status: Status
    /// The number of its lease, while it is leased.
    var lease: UInt64 = 0
    /// The collector that it was handed to, while it is leased.
    var holder: UInt64 = 0
    /// What ends its lease or its delay.
    var timer: TimingWheel.Handle?
    /// Where LMDB holds it; `nil` when LMDB does not know it.
    var settled: SettledPlace?
    /// Whether it differs from what LMDB holds and stands in the list for the next checkpoint.
    var isDirty = false
    /// Whether a checkpoint that is on its way writes it.
    var isSettling = false

    init(standing: MessageStanding, content: MessageContent, status: Status, settled: SettledPlace? = nil) {
        self.standing = standing
        self.content = content
        self.status = status
        self.settled = settled
    }

    /// Lets the content go: what is done needs it no more.
    func dropContent() {
        self.content = .none
    }

    var key: OrderKey { self.standing.key }
    var sequence: UInt64 { self.standing.key.sequence }
    var queue: UInt32 { self.standing.queue }

    /// Whether memory may forget it: LMDB holds all of it, and nobody works on it or waits for its time here.
    var isEvictable: Bool {
        guard !self.isDirty, !self.isSettling else { return false }
        switch self.status {
        case .staged, .leased: return false
        case .ready, .delayed, .dead: return self.settled != nil
        case .gone: return true
        }
    }
}

/// What memory said of a message at some moment.
struct EntrySnapshot: Sendable {
    var standing: MessageStanding
    var content: MessageContent
    var status: Entry.Status

    var key: OrderKey { self.standing.key }
    var sequence: UInt64 { self.standing.key.sequence }
    var queue: UInt32 { self.standing.queue }

    init(_ entry: Entry) {
        self.standing = entry.standing
        self.content = entry.content
        self.status = entry.status
    }
}
