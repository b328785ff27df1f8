// Whether it is worth trying to compress, judged by what came before.

/// Notices bodies that zstd can't make smaller, so that a queue of images or of encrypted data does not pay for a trial of
/// each: a trial of 1 KiB costs as much as writing it.
///
/// After 16 failures in a row only every 16th body is tried, until one of those is made smaller. So at most 15 bodies are
/// stored larger than they need be when the traffic changes.
package struct Compressibility: Sendable {
    /// How many failures in a row are taken for a rule, and how many bodies there are to each trial then.
    package static var patience: Int { 16 }

    private var failures = 0
    private var untried = 0

    package init() {}

    /// Whether to try the next body; its outcome must be noted then.
    package mutating func wantsTrial() -> Bool {
        guard self.failures >= Self.patience else { return true }
        self.untried += 1
        guard self.untried == Self.patience else { return false }
        self.untried = 0
        return true
    }

    /// Notes the outcome of a trial.
    package mutating func note(isCompressed: Bool) {
        self.failures = isCompressed ? 0 : min(self.failures + 1, Self.patience)
    }
}
