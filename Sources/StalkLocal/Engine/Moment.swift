// The store's own time.

internal import StalkCore

/// A reading of the store's clock: nanoseconds since 1970 on a timeline that never goes back and never jumps while the
/// store is open, whatever the wall clock does.
struct Moment: Hashable, Comparable, Sendable {
    var nanoseconds: Int64

    /// What the wheel and the disk count in; rounded down.
    var milliseconds: Int64 { self.nanoseconds / 1_000_000 }

    /// The first millisecond that is not before this moment and a duration more, so that nothing is early; what lies
    /// beyond the end of time comes at its end.
    func later(by duration: Duration) -> Int64 {
        let (seconds, attoseconds) = duration.components
        let (whole, isTooLong) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (nanos, isTooLate) = self.nanoseconds.addingReportingOverflow(whole)
        let (sum, isOver) = nanos.addingReportingOverflow(attoseconds / 1_000_000_000)
        guard !isTooLong, !isTooLate, !isOver else { return Int64.max / 1_000_000 }
        return sum / 1_000_000 + (sum % 1_000_000 > 0 ? 1 : 0)
    }

    static func < (left: Moment, right: Moment) -> Bool { left.nanoseconds < right.nanoseconds }
}
