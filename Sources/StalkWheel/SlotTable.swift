/// The levels of the wheel: a list of timers for each slot, and bitmaps that say where there are any.
///
/// Positions are ordinals of ticks. `front` is the wheel's front at the time of the call; by it alone, a deadline's slot
/// is known, so no node has to say where it lies.
struct SlotTable: Sendable {
    private struct Slot {
        var first = TimerNode.none
        var last = TimerNode.none
    }

    private static var bitsPerDigit: Int { 6 }
    private static var slotsPerLevel: Int { 64 }
    /// Eleven digits of 6 bits hold every position.
    private static var levelCount: Int { 11 }

    private var slots = ContiguousArray(repeating: Slot(), count: Self.levelCount * Self.slotsPerLevel)
    /// For each level, which of its slots hold timers.
    private var occupiedSlots = ContiguousArray<UInt64>(repeating: 0, count: Self.levelCount)
    /// Which levels hold timers.
    private var occupiedLevels: UInt64 = 0

    /// The level of a position: that of the highest digit in which it differs from the front.
    static func level(of position: UInt64, front: UInt64) -> Int {
        (63 - ((position ^ front) | 1).leadingZeroBitCount) / Self.bitsPerDigit
    }

    /// The slot on a level that holds a position.
    private static func slotIndex(level: Int, position: UInt64) -> Int {
        level * Self.slotsPerLevel + Int(truncatingIfNeeded: position &>> (level * Self.bitsPerDigit)) & 63
    }

    /// The earliest slot that holds timers, and the position where it begins.
    func next(after front: UInt64) -> (level: Int, start: UInt64)? {
        guard self.occupiedLevels != 0 else { return nil }
        let level = self.occupiedLevels.trailingZeroBitCount
        let digit = UInt64(self.occupiedSlots[level].trailingZeroBitCount)
        let shift = level * Self.bitsPerDigit
        // Above the level, the digits of the front. There are none above the highest level: `>>` gives zero then.
        let higherDigits = (front >> (shift + Self.bitsPerDigit)) << (shift + Self.bitsPerDigit)
        return (level, higherDigits | digit << shift)
    }

    /// The first timer of a position that is on the lowest level.
    func first(at position: UInt64) -> UInt32? {
        let first = self.slots[Self.slotIndex(level: 0, position: position)].first
        return first == TimerNode.none ? nil : first
    }

    /// Adds a timer behind all others of its slot.
    mutating func append(_ index: UInt32, at position: UInt64, front: UInt64, in nodes: inout NodePool) {
        let level = Self.level(of: position, front: front)
        let slot = Self.slotIndex(level: level, position: position)
        let last = self.slots[slot].last
        nodes[index].previous = last
        nodes[index].next = TimerNode.none
        self.slots[slot].last = index
        if last != TimerNode.none {
            nodes[last].next = index
        } else {
            self.slots[slot].first = index
            self.occupiedSlots[level] |= 1 &<< UInt64(slot & 63)
            self.occupiedLevels |= 1 &<< UInt64(level)
        }
    }

    /// Takes a timer out of its slot.
    mutating func remove(_ index: UInt32, at position: UInt64, front: UInt64, in nodes: inout NodePool) {
        let level = Self.level(of: position, front: front)
        let slot = Self.slotIndex(level: level, position: position)
        let (previous, next) = (nodes[index].previous, nodes[index].next)
        if previous != TimerNode.none { nodes[previous].next = next } else { self.slots[slot].first = next }
        if next != TimerNode.none { nodes[next].previous = previous } else { self.slots[slot].last = previous }
        if previous == TimerNode.none && next == TimerNode.none { self.markEmpty(level: level, slot: slot) }
    }

    /// Takes the first timer of a position out that is on the lowest level and has one.
    mutating func removeFirst(at position: UInt64, in nodes: inout NodePool) {
        // The front is there already, so that the level is 0.
        let index = self.slots[Self.slotIndex(level: 0, position: position)].first
        self.remove(index, at: position, front: position, in: &nodes)
    }

    /// Moves the timers of the slot on a level that the front has entered down to the levels below, in order.
    mutating func cascade(level: Int, front: UInt64, in nodes: inout NodePool) {
        let slot = Self.slotIndex(level: level, position: front)
        var index = self.slots[slot].first
        guard index != TimerNode.none else { return }
        self.slots[slot] = Slot()
        self.markEmpty(level: level, slot: slot)
        while index != TimerNode.none {
            let next = nodes[index].next
            self.append(index, at: TimingWheel.ordinal(nodes[index].deadline), front: front, in: &nodes)
            index = next
        }
    }

    private mutating func markEmpty(level: Int, slot: Int) {
        self.occupiedSlots[level] &= ~(1 &<< UInt64(slot & 63))
        if self.occupiedSlots[level] == 0 { self.occupiedLevels &= ~(1 &<< UInt64(level)) }
    }
}
