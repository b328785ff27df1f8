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

extension Actions {
    /// Leaves out signals to threads that are at work and will look anyway.
    mutating func saveSignals(_ engine: inout Engine) {
        if self.wakesLog {
            self.wakesLog = engine.isLogAsleep
            engine.isLogAsleep = false
        }
        if self.wakesScheduler {
            self.wakesScheduler = engine.isSchedulerAsleep
            engine.isSchedulerAsleep = false
        }
        if !engine.isKeeperArmed, engine.hasUnsettledChanges {
            engine.isKeeperArmed = true
            self.wakesKeeper = true
        }
    }
}
