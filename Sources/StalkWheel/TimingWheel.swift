// What waits for a time: a million leases and delays that cost nothing until they are due.

/// A queue of timers in which setting and cancelling one takes the same short time, however many there are.
///
/// This is the hierarchical timing wheel of George Varghese and Tony Lauck, "Hashed and Hierarchical Timing Wheels:
/// Data Structures for the Efficient Implementation of a Timer Facility" (SOSP 1987), scheme 7, as it also runs in
/// Kafka's purgatory and in Tokio. It is a value without a clock: it knows the time only by ``advance(to:limit:into:)``.
///
/// **Structure.** A tick is a number of 64 bits; read it as eleven digits to the base 64. There is one level per digit
/// and one slot per value of the digit. A timer lies on the level of the highest digit in which its deadline differs
/// from the ``TimingWheel/front``, the first tick that has not wholly fired, in the slot of the deadline's own digit.
/// Three things follow:
/// - All of a level is due before anything of the levels above it, and a slot before those of higher digits: the next
///   slot with something in it is found by two bit counts, one over the levels and one over the level's bitmap.
/// - When the front enters a slot of a higher level, that slot alone is taken apart and its timers move down
///   (a _cascade_). No other timer has to move, and over empty time there is nothing to do, be it years.
/// - At any moment, all timers of one tick lie in the same slot. Slots are lists in order of insertion and a cascade
///   keeps that order, so the timers of a tick fire in the order in which they were set, with no number to sort by.
///
/// Timers that are set when they are already due have no place in this: they wait in a heap until the next advance.
///
/// The lists run through one array of nodes, by index; free nodes are used again, and the array is given back when a
/// large wheel runs empty.
///
/// A tick is a millisecond wherever Stalk uses the wheel, but nothing here depends on it.
public struct TimingWheel: Sendable {
    /// A timer as the caller set it.
    public struct Timer: Hashable, Sendable {
        /// What the caller put in, for instance what kind of timer this is.
        public var tag: UInt32
        /// What the caller put in, for instance what the timer is for.
        public var key: UInt64
        /// The tick from which on the timer is due.
        public var deadline: Int64

        /// Makes a timer.
        public init(tag: UInt32, key: UInt64, deadline: Int64) {
            self.tag = tag
            self.key = key
            self.deadline = deadline
        }
    }

    /// Names a timer in the wheel that gave the handle out.
    ///
    /// The handle of a timer that has fired or was cancelled names nothing, ever again.
    public struct Handle: Hashable, Sendable {
        let index: UInt32
        let generation: UInt32
    }

    /// The tick up to which everything has fired, apart from timers set later for a time that was already over.
    public internal(set) var now: Int64

    var nodes = NodePool()
    var slots = SlotTable()
    var overdue = OverdueHeap()

    /// Makes an empty wheel.
    ///
    /// - Parameter now: The tick to begin at; any value.
    public init(now: Int64) {
        self.now = now
    }

    /// How many timers are set and have neither fired nor been cancelled.
    public var count: Int { self.nodes.count }

    /// The tick at which ``advance(to:limit:into:)`` next has something to do, or `nil` when no timer is set.
    ///
    /// Never later than the earliest deadline, and exact where that timer is overdue or on the lowest level. Otherwise it is
    /// the tick at which the timer's slot cascades, later than ``now``: who sleeps until this tick and then advances to it
    /// wakes up to ten times for a timer, once per level, and not at all while no timer is set.
    public var nextDeadline: Int64? {
        if let first = self.overdue.first { return first.deadline }
        return self.slots.next(after: self.front).map { Self.tick($0.start) }
    }
}

extension TimingWheel {
    /// The first tick that has not wholly fired, as an ordinal; every timer outside of the overdue heap is due then or later.
    ///
    /// It wraps around to 0 when `now` is the last tick there is: everything is overdue from then on.
    var front: UInt64 { Self.ordinal(self.now) &+ 1 }

    /// The position of a tick among all ticks, so that negative ones come first in digits as well.
    static func ordinal(_ tick: Int64) -> UInt64 { UInt64(bitPattern: tick) ^ (1 << 63) }

    /// The tick at a position.
    static func tick(_ ordinal: UInt64) -> Int64 { Int64(bitPattern: ordinal ^ (1 << 63)) }
}

extension TimingWheel {
    /// Sets a timer.
    ///
    /// - Parameters:
    ///   - tag: Handed back when the timer fires.
    ///   - key: Handed back when the timer fires.
    ///   - deadline: The tick from which on it is due; any value. Up to ``now`` it fires at the next advance.
    /// - Returns: What cancels it.
    /// - Complexity: O(1); O(log *n*) among *n* overdue timers where it is overdue itself and not the latest of them.
    public mutating func insert(tag: UInt32, key: UInt64, deadline: Int64) -> Handle {
        let index = self.nodes.take(tag: tag, key: key, deadline: deadline)
        if deadline > self.now {
            self.slots.append(index, at: Self.ordinal(deadline), front: self.front, in: &self.nodes)
        } else {
            self.overdue.insert(index, deadline: deadline, in: &self.nodes)
        }
        return Handle(index: index, generation: self.nodes[index].generation)
    }

    /// Takes a timer out before it fires.
    ///
    /// - Parameter handle: The handle that ``insert(tag:key:deadline:)`` of this wheel returned.
    /// - Returns: Whether the timer was still set; otherwise nothing has changed.
    /// - Complexity: O(1); O(log *n*) among *n* overdue timers where it is overdue.
    @discardableResult
    public mutating func cancel(_ handle: Handle) -> Bool {
        guard self.nodes.isCurrent(handle) else { return false }
        let deadline = self.nodes[handle.index].deadline
        if deadline > self.now {
            self.slots.remove(handle.index, at: Self.ordinal(deadline), front: self.front, in: &self.nodes)
        } else {
            self.overdue.remove(handle.index, in: &self.nodes)
        }
        self.nodes.giveBack(handle.index)
        return true
    }
}
