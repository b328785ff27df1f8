// Which nsqds there are, and when each is to be connected to.

internal import StalkCore

/// The nsqds that are named directly or by nsqlookupd, with the wait after each failure.
///
/// What nsqlookupd names no longer keeps its connection until that ends by itself: nsqlookupd forgets nodes when it is
/// restarted, and messages may still be there.
struct NodeBook {
    struct Node {
        var isDirect: Bool
        var isListed: Bool
        var connection: ConnectionID?
        var failures = 0
        var nextTry: Duration = .zero
    }

    static let firstWait = Duration.milliseconds(200)

    private let cap: Duration
    private(set) var nodes: [NSQAddress: Node] = [:]
    /// In the order in which they were named.
    private(set) var order: [NSQAddress] = []

    init(direct: [NSQAddress], reconnectCap: Duration) {
        self.cap = reconnectCap
        for address in direct { self.add(address, isDirect: true, isListed: false) }
    }

    private mutating func add(_ address: NSQAddress, isDirect: Bool, isListed: Bool) {
        guard self.nodes[address] == nil else { return }
        self.nodes[address] = Node(isDirect: isDirect, isListed: isListed)
        self.order.append(address)
    }

    /// What the nsqlookupds name together, by those that answered.
    mutating func listed(_ addresses: [NSQAddress]) {
        let names = Set(addresses)
        for address in addresses { self.add(address, isDirect: false, isListed: true) }
        for address in self.order {
            self.nodes[address]?.isListed = names.contains(address)
            self.dropIfGone(address)
        }
    }

    /// The nodes to connect to now; they count as connecting from here on.
    mutating func due(now: Duration, nextID: () -> ConnectionID) -> [(NSQAddress, ConnectionID)] {
        var due: [(NSQAddress, ConnectionID)] = []
        for address in self.order {
            guard let node = self.nodes[address], node.connection == nil, node.nextTry <= now else { continue }
            let id = nextID()
            self.nodes[address]?.connection = id
            due.append((address, id))
        }
        return due
    }

    mutating func connected(_ id: ConnectionID) {
        guard let address = self.address(of: id) else { return }
        self.nodes[address]?.failures = 0
    }

    /// A connection failed or ended; the next try comes after a wait with full jitter.
    mutating func ended(_ id: ConnectionID, now: Duration, using generator: inout some RandomNumberGenerator) {
        guard let address = self.address(of: id), var node = self.nodes[address] else { return }
        node.connection = nil
        node.failures += 1
        var longest = Self.firstWait
        for _ in 1..<node.failures where longest < self.cap { longest = longest * 2 }
        let millis = min(longest, self.cap).wholeMillisecondsRoundedUp
        // The first try after a loss comes soon, but never at once: a server that closes each connection is spared.
        node.nextTry = now + .milliseconds(Int64.random(in: millis / 4...millis, using: &generator))
        self.nodes[address] = node
        self.dropIfGone(address)
    }

    private mutating func dropIfGone(_ address: NSQAddress) {
        guard let node = self.nodes[address], !node.isDirect, !node.isListed, node.connection == nil else { return }
        self.nodes[address] = nil
        self.order.removeAll { $0 == address }
    }

    /// When ``due(now:nextID:)`` is to be called next.
    var nextMoment: Duration? { self.nodes.values.filter { $0.connection == nil }.map(\.nextTry).min() }

    func address(of id: ConnectionID) -> NSQAddress? {
        self.nodes.first { $0.value.connection == id }?.key
    }
}
