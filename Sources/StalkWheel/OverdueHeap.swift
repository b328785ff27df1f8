/// The timers that were already due when they were set: a binary heap in order of deadline, then of insertion.
///
/// A node in the heap keeps its position there in `next`, so that it can be taken out of the middle.
struct OverdueHeap: Sendable {
    /// A timer in the heap.
    struct Entry: Sendable {
        var deadline: Int64
        var sequence: UInt64
        var index: UInt32

        func comes(before other: Entry) -> Bool {
            (self.deadline, self.sequence) < (other.deadline, other.sequence)
        }
    }

    private var entries: ContiguousArray<Entry> = []
    private var nextSequence: UInt64 = 0

    /// The timer that fires next.
    var first: Entry? { self.entries.first }

    /// Adds a timer.
    mutating func insert(_ index: UInt32, deadline: Int64, in nodes: inout NodePool) {
        let entry = Entry(deadline: deadline, sequence: self.nextSequence, index: index)
        self.nextSequence += 1
        self.entries.append(entry)
        self.siftUp(entry, from: self.entries.count - 1, in: &nodes)
    }

    /// Takes a timer out that is in the heap.
    mutating func remove(_ index: UInt32, in nodes: inout NodePool) {
        let hole = Int(nodes[index].next)
        guard let last = self.entries.popLast(), hole < self.entries.count else { return }
        if hole > 0 && last.comes(before: self.entries[(hole - 1) / 2]) {
            self.siftUp(last, from: hole, in: &nodes)
        } else {
            self.siftDown(last, from: hole, in: &nodes)
        }
    }

    private mutating func siftUp(_ entry: Entry, from start: Int, in nodes: inout NodePool) {
        var hole = start
        while hole > 0 {
            let parent = (hole - 1) / 2
            guard entry.comes(before: self.entries[parent]) else { break }
            self.place(self.entries[parent], at: hole, in: &nodes)
            hole = parent
        }
        self.place(entry, at: hole, in: &nodes)
    }

    private mutating func siftDown(_ entry: Entry, from start: Int, in nodes: inout NodePool) {
        var hole = start
        while true {
            var child = 2 * hole + 1
            guard child < self.entries.count else { break }
            if child + 1 < self.entries.count && self.entries[child + 1].comes(before: self.entries[child]) {
                child += 1
            }
            guard self.entries[child].comes(before: entry) else { break }
            self.place(self.entries[child], at: hole, in: &nodes)
            hole = child
        }
        self.place(entry, at: hole, in: &nodes)
    }

    private mutating func place(_ entry: Entry, at position: Int, in nodes: inout NodePool) {
        self.entries[position] = entry
        nodes[entry.index].next = UInt32(position)
    }
}
