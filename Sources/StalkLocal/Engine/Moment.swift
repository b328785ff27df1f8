// The store's own time.

internal import StalkCore

/// A reading of the store's clock: nanoseconds since 1970 on a timeline that never goes back and never jumps while the
/// store is open, whatever the wall clock does.
struct Moment: Hashable, Comparable, Sendable {
    var nanoseconds: Int64

    /// What the wheel and the disk count in; rounded down.
    var milliseconds: Int64 { self.nanoseconds / 1_000_000 }

    /// The first millisecond that is not before this moment and a duration more, so that nothing is early.
    func later(by duration: Duration) -> Int64 {
        let (seconds, attoseconds) = duration.components
        let nanos = self.nanoseconds + seconds * 1_000_000_000 + attoseconds / 1_000_000_000
        return nanos / 1_000_000 + (nanos % 1_000_000 > 0 ? 1 : 0)
    }

    static func < (left: Moment, right: Moment) -> Bool { left.nanoseconds < right.nanoseconds }
}
