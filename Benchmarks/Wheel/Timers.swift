// Two ways to keep timers, behind the same three calls.

import HeapModule
import StalkWheel

/// A queue of timers that begins at tick 0.
protocol Timers {
    associatedtype Handle

    mutating func insert(key: UInt64, deadline: Int64) -> Handle
    mutating func cancel(_ handle: Handle)
    /// Lets time pass and returns how many timers were due.
    mutating func advance(to tick: Int64) -> Int
}

/// The wheel as Stalk uses it, a limited number of due timers at a time.
struct WheelTimers: Timers {
    private var wheel = TimingWheel(now: 0)
    private var due: [TimingWheel.Timer] = []

    mutating func insert(key: UInt64, deadline: Int64) -> TimingWheel.Handle {
        self.wheel.insert(tag: 0, key: key, deadline: deadline)
    }

    mutating func cancel(_ handle: TimingWheel.Handle) {
        self.wheel.cancel(handle)
    }

    mutating func advance(to tick: Int64) -> Int {
        var fired = 0
        var isDone = false
        while !isDone {
            self.due.removeAll(keepingCapacity: true)
            isDone = self.wheel.advance(to: tick, limit: 1_000, into: &self.due)
            fired += self.due.count
        }
        return fired
    }
}

/// A heap by deadline.
///
/// It can't take out what is cancelled, so that is marked, and dropped when its turn comes.
struct HeapTimers: Timers {
    private struct Entry: Comparable {
        var deadline: Int64
        /// Counts up, which keeps timers of one tick in the order in which they were set.
        var number: UInt32
        var key: UInt64

        static func < (left: Entry, right: Entry) -> Bool {
            (left.deadline, left.number) < (right.deadline, right.number)
        }
    }

    private var heap = Heap<Entry>()
    private var isCancelled: [Bool] = []

    mutating func insert(key: UInt64, deadline: Int64) -> UInt32 {
        let number = UInt32(self.isCancelled.count)
        self.isCancelled.append(false)
        self.heap.insert(Entry(deadline: deadline, number: number, key: key))
        return number
    }

    mutating func cancel(_ handle: UInt32) {
        self.isCancelled[Int(handle)] = true
    }

    mutating func advance(to tick: Int64) -> Int {
        var fired = 0
        while let first = self.heap.min, first.deadline <= tick {
            self.heap.removeMin()
            if !self.isCancelled[Int(first.number)] { fired += 1 }
        }
        return fired
    }
}
