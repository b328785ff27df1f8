/// One timer in the pool, 32 bytes: two fill a cache line.
struct TimerNode: Sendable {
    /// The index that stands for no node.
    static var none: UInt32 { .max }

    var key: UInt64
    var deadline: Int64
    var tag: UInt32
    /// Counts the uses of this node up: odd while it holds a timer, even while it is free.
    var generation: UInt32
    /// The node before this one in its slot.
    var previous: UInt32
    /// The node behind this one in its slot or among the free ones; in the overdue heap, the position there.
    var next: UInt32
}

/// The nodes of all timers, in one array.
struct NodePool: Sendable {
    /// A pool of up to this many nodes (2 MiB) is kept for the next timers when the last one is gone.
    static var keptCount: Int { 65_536 }

    /// How many nodes hold a timer.
    private(set) var count = 0
    private var nodes: ContiguousArray<TimerNode> = []
    private var firstFree = TimerNode.none
    /// Where the generation of new nodes begins: even, and no handle was ever given out with this or a higher one whose
    /// node is not in the array any more.
    private var firstGeneration: UInt32
    private var highestGeneration: UInt32

    /// Makes an empty pool.
    ///
    /// - Parameter firstGeneration: Where the nodes' generations begin: an even number.
    init(firstGeneration: UInt32 = 0) {
        self.firstGeneration = firstGeneration
        self.highestGeneration = firstGeneration
    }

    /// How many nodes the pool has memory for in use or free.
    var nodeCount: Int { self.nodes.count }

    /// The node at an index.
    subscript(index: UInt32) -> TimerNode {
        get { self.nodes[Int(index)] }
        _modify { yield &self.nodes[Int(index)] }
    }

    /// Whether the timer of a handle has neither fired nor been cancelled.
    func isCurrent(_ handle: TimingWheel.Handle) -> Bool {
        Int(handle.index) < self.nodes.count && self.nodes[Int(handle.index)].generation == handle.generation
    }

    /// Puts a timer into a free node, or a new one.
    mutating func take(tag: UInt32, key: UInt64, deadline: Int64) -> UInt32 {
        self.count += 1
        let index = self.firstFree
        guard index != TimerNode.none else {
            let generation = self.firstGeneration + 1
            self.nodes.append(
                TimerNode(
                    key: key,
                    deadline: deadline,
                    tag: tag,
                    generation: generation,
                    previous: TimerNode.none,
                    next: TimerNode.none
                )
            )
            return UInt32(self.nodes.count - 1)
        }
        self.firstFree = self.nodes[Int(index)].next
        self.nodes[Int(index)].key = key
        self.nodes[Int(index)].deadline = deadline
        self.nodes[Int(index)].tag = tag
        self.nodes[Int(index)].generation += 1
        return index
    }

    /// Frees a node that lies in no list.
    mutating func giveBack(_ index: UInt32) {
        self.count -= 1
        let generation = self.nodes[Int(index)].generation &+ 1
        self.nodes[Int(index)].generation = generation
        self.highestGeneration = max(self.highestGeneration, generation)
        // After 2³¹ uses a node is left unused, or an old handle could name its timer.
        if generation != 0 {
            self.nodes[Int(index)].next = self.firstFree
            self.firstFree = index
        }
        if self.count == 0 && self.nodes.count > Self.keptCount { self.giveBackMemory() }
    }

    /// Drops all nodes.
    ///
    /// New ones go on above every generation that a handle can have. When half of all generations are used up, the nodes
    /// are kept instead, so that there is always enough left for each node.
    private mutating func giveBackMemory() {
        guard self.highestGeneration < .max / 2 else { return }
        self.firstGeneration = self.highestGeneration
        self.nodes = []
        self.firstFree = TimerNode.none
    }
}
