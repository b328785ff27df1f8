// How the deliveries that may be out are shared among connections.

/// Shares a budget of deliveries among connections, as RDY counts.
///
/// nsqd counts what is out against RDY, so a connection's count is what it has out plus its part of what is free. What
/// one connection has out takes nothing from its part: messages may all be on one nsqd.
struct ReadyShares {
    struct Connection {
        /// The most that its nsqd allows.
        var maxReady: Int
        /// Deliveries of it that are not over.
        var unfinished: Int
        /// The count that it was sent last.
        var sentReady: Int
    }

    /// Where the turn is when fewer deliveries are free than there are connections.
    private var turn = 0

    mutating func rotate() { self.turn &+= 1 }

    /// Whether the turn must move on for every connection to get one.
    static func rotates(budget: Int, connections: [Connection]) -> Bool {
        let free = budget - connections.reduce(0) { $0 + $1.unfinished }
        return free > 0 && free < connections.count
    }

    /// The RDY count of each connection, in order; together they never exceed the budget, as long as what is out doesn't.
    func counts(budget: Int, connections: [Connection]) -> [Int] {
        guard budget > 0 else { return connections.map { _ in 0 } }
        if Self.isFair(budget: budget, connections) { return connections.map(\.sentReady) }
        var counts = connections.map { min($0.unfinished, $0.maxReady) }
        var free = max(budget - connections.reduce(0) { $0 + $1.unfinished }, 0)
        var open = connections.indices.map { (self.turn &+ $0) % connections.count }
        // What a small nsqd can't take goes to the others.
        while free > 0 {
            open.removeAll { counts[$0] >= connections[$0].maxReady }
            guard !open.isEmpty else { break }
            let (share, extra) = free.quotientAndRemainder(dividingBy: open.count)
            for (order, position) in open.enumerated() {
                let wanted = share + (order < extra ? 1 : 0)
                let more = min(wanted, connections[position].maxReady - counts[position])
                counts[position] += more
                free -= more
            }
        }
        return counts
    }

    /// Whether the counts that were sent can stay: they use the budget up, and each connection can send something.
    private static func isFair(budget: Int, _ connections: [Connection]) -> Bool {
        let sent = connections.reduce(0) { $0 + $1.sentReady }
        let most = connections.reduce(0) { $0 + $1.maxReady }
        return sent == min(budget, most) && connections.allSatisfy { $0.sentReady > $0.unfinished }
    }
}
