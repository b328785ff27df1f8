// What is left to do once the lock is released.

internal import StalkCore

/// What the engine asks its driver to do after a step; no reply runs while the lock is held.
struct Actions: Sendable {
    var wakesLog = false
    var wakesScheduler = false
    var wakesKeeper = false
    var replies: [@Sendable () -> Void] = []

    /// Puts another step's actions behind these.
    mutating func append(_ other: consuming Actions) {
        self.wakesLog = self.wakesLog || other.wakesLog
        self.wakesScheduler = self.wakesScheduler || other.wakesScheduler
        self.wakesKeeper = self.wakesKeeper || other.wakesKeeper
        self.replies.append(contentsOf: other.replies)
    }
}
