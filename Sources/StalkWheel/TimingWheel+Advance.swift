extension TimingWheel {
    /// Lets time pass, and takes out the timers that are due.
    ///
    /// Timers fire in order of their deadlines, those of one tick in the order in which they were set; never early.
    ///
    /// - Parameters:
    ///   - tick: The time that has come. Time never goes back: a tick before ``now`` counts as ``now``.
    ///   - limit: The most timers to take out; zero or less takes none.
    ///   - due: Where they are appended.
    /// - Returns: Whether everything up to `tick` has fired, so that ``now`` is there. Otherwise the limit cut it short:
    ///   call again; ``now`` has gone as far as everything has fired, and timers may be set and cancelled in between.
    /// - Complexity: O(1) for empty time of any length, and for each timer that fires as many moves as it lay levels up,
    ///   in all its time, usually two or three. The limit does not bound these moves.
    public mutating func advance(to tick: Int64, limit: Int, into due: inout [Timer]) -> Bool {
        let end = max(tick, self.now)
        let mostDue = due.count + min(max(limit, 0), self.count)
        while let first = self.overdue.first {
            guard due.count < mostDue else { return false }
            self.overdue.remove(first.index, in: &self.nodes)
            self.fire(first.index, into: &due)
        }
        while let next = self.slots.next(after: self.front), Self.tick(next.start) <= end {
            self.moveFront(to: next.start)
            guard next.level == 0 else { continue }
            // The front stays at this tick until the next turn of the loop: if the limit is reached, the rest of the tick
            // is not over, and timers set meanwhile for the same tick come after it.
            while let index = self.slots.first(at: next.start) {
                guard due.count < mostDue else { return false }
                self.slots.removeFirst(at: next.start, in: &self.nodes)
                self.fire(index, into: &due)
            }
        }
        self.moveFront(to: Self.ordinal(end) &+ 1)
        return true
    }

    /// Hands a timer out that lies in no list any more.
    private mutating func fire(_ index: UInt32, into due: inout [Timer]) {
        let node = self.nodes[index]
        due.append(Timer(tag: node.tag, key: node.key, deadline: node.deadline))
        self.nodes.giveBack(index)
    }

    /// Moves the front over ticks that have no timers left, and takes the slot apart that it enters.
    ///
    /// Lower levels are empty then, since their timers lay before the slot; higher ones see the same digits as before.
    private mutating func moveFront(to front: UInt64) {
        let level = SlotTable.level(of: front, front: self.front)
        self.now = Self.tick(front &- 1)
        if level > 0 {
            self.slots.cascade(level: level, front: front, in: &self.nodes)
        }
    }
}
