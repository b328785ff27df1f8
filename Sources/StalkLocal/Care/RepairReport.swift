// What repair found, did or would do.

/// What ``LocalStore/repair(at:apply:progress:)`` found and did, or would do.
public struct RepairReport: Hashable, Sendable {
    /// What is damaged; empty when there is nothing to repair.
    public var problems: [VerifyReport.Problem]
    /// What is done about it, in order.
    public var steps: [String] = []
    /// Whether it was done; else nothing at all was changed.
    public var isApplied = false
    /// Messages in the index that are sound, those on lost pages included.
    public var messagesKept = 0
    /// Messages whose history or place was damaged and made anew from what is known of them.
    public var messagesMended = 0
    /// Messages that can't be read whole: what there is of them is kept in `damaged/`.
    public var messagesSetAside = 0
    /// Messages that the index speaks of and that are nowhere to be found; known only once it was applied.
    public var messagesLost = 0
    /// Frames of the log that can't be read, or that contradict the rest: kept in `damaged/`.
    public var framesSetAside = 0
    /// Records of the log that were passed over because they speak of what is lost.
    public var recordsPassedOver = 0
    /// The files in `damaged/` that hold what was removed; the one that ends in `.txt` describes them.
    public var files: [String] = []
}
