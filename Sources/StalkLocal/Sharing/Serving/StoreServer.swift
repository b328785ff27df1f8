// The owner's side of a shared store: one thread that listens, reads, answers.

internal import Glibc
internal import StalkCore
internal import StalkFiles
internal import StalkPlatform
internal import Synchronization

/// Serves a store to the other processes of the machine.
final class StoreServer: Sendable {
    /// The most connections at a time.
    static let maxConnections = 256
    /// The most orders that are carried out at a time for all clients: each may read LMDB, which has 126 places for that.
    static let maxOrders = 64
    /// How long a new owner waits for those that the last one served, in nanoseconds.
    static let holdersWait: Int64 = 5_000_000_000

    let owned: OwnedStore
    private let place: SharingPlace
    private let listener: LocalListener
    private let waker: Waker
    private let thread = Locked<DedicatedThread?>(nil)
    private let orders = Atomic<Int>(0)
    private let isSignalled = Atomic<Bool>(false)
    private let isClosing = Atomic<Bool>(false)
    private let isStopping = Atomic<Bool>(false)

    /// Begins to listen; nobody is served before ``start()``.
    ///
    /// What the clients of the last owner may still work on is held back from now on.
    init(_ owned: OwnedStore, at place: SharingPlace) throws(StalkError) {
        self.owned = owned
        self.place = place
        self.waker = try Waker()
        self.listener = try place.listen()
        if try place.hasClients(besides: owned.epoch) { owned.core.look { $0.awaitHolders() } }
    }

    /// Starts the thread that serves.
    func start() throws(StalkError) {
        let thread = try DedicatedThread(name: "stalk-serve") { self.serve() }
        self.thread.withLock { $0 = thread }
    }

    /// Takes no more requests, and tells nobody that the store closes: who is not answered asks the next owner.
    func beginClosing() {
        self.isClosing.store(true, ordering: .releasing)
        self.signal()
    }

    /// Lets nobody connect any more.
    func withdraw() { self.place.withdraw() }

    /// Sends what is answered and ends all connections; waits for the thread unless told otherwise.
    func stop(waiting: Bool = true) {
        self.isStopping.store(true, ordering: .releasing)
        self.waker.signal()
        let thread = self.thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        if waiting { thread?.join() }
    }

    /// Lets the thread look again; cheap when it was told already.
    func signal() {
        if !self.isSignalled.exchange(true, ordering: .acquiringAndReleasing) { self.waker.signal() }
    }

    /// Notes that orders began, or ended.
    func noteOrders(_ change: Int) { self.orders.add(change, ordering: .acquiringAndReleasing) }

    var hasRoomForOrders: Bool { self.orders.load(ordering: .acquiring) < Self.maxOrders }

    var isOpenForRequests: Bool { !self.isClosing.load(ordering: .acquiring) }

    // MARK: The thread

    private func serve() {
        var connections: [ServedConnection] = []
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 16)
        defer { buffer.deallocate() }
        let started = SystemStoreClock().bootTime().nanoseconds
        var isAwaiting = self.owned.core.look { $0.isAwaitingHolders }
        var isDeaf = false
        while !self.isStopping.load(ordering: .acquiring) {
            var waits = [
                SocketWait(self.waker.descriptor, reads: true), SocketWait(self.listener.number, reads: !isDeaf),
            ]
            waits += connections.map { SocketWait($0.socket.number, reads: $0.wantsRequests, writes: $0.hasUnsent) }
            let isClosing = !self.isOpenForRequests
            SocketWait.wait(for: &waits, milliseconds: isAwaiting ? 5 : isDeaf ? 100 : isClosing ? 1000 : -1)
            if waits[0].canRead { self.waker.clear() }
            self.isSignalled.store(false, ordering: .releasing)
            // Without a descriptor for whoever wants to connect, it is tried again a little later.
            isDeaf = waits[1].canRead && !self.accept(&connections)
            if isClosing { for connection in connections { connection.giveSignOfLife() } }
            for (position, connection) in connections.enumerated() where position + 2 < waits.count {
                if waits[position + 2].canRead { connection.receive(buffer) }
            }
            for connection in connections { connection.flush() }
            for connection in connections where connection.isOver { connection.end() }
            connections.removeAll { $0.isOver }
            if isAwaiting { isAwaiting = !self.endAwaitingIfOver(since: started) }
        }
        self.sendRest(of: connections)
        for connection in connections { connection.socket.end() }
    }

    /// - Returns: Whether somebody came.
    private func accept(_ connections: inout [ServedConnection]) -> Bool {
        let count = connections.count
        while let socket = self.listener.accept() {
            let connection = ServedConnection(socket, self)
            connections.append(connection)
            if connections.count > Self.maxConnections {
                connection.refuse(
                    StalkError(
                        .unavailable,
                        "\(Self.maxConnections) processes use the store already: end some, or use another store."
                    )
                )
            } else if socket.peerUser != geteuid(), socket.peerUser != 0 {
                connection.refuse(
                    StalkError(.permissionDenied, "The store belongs to another user: only that one may use it.")
                )
            }
        }
        return connections.count > count
    }

    /// Gives out what was held back, once everybody who may come back for it is back or gone, or the wait is over.
    private func endAwaitingIfOver(since started: Int64) -> Bool {
        let isLate = SystemStoreClock().bootTime().nanoseconds - started > Self.holdersWait
        let hasClients = (try? self.place.hasClients(besides: self.owned.epoch)) ?? true
        guard isLate || !hasClients else { return false }
        self.owned.core.step { engine, now in engine.stopAwaitingHolders(now: now) }
        return true
    }

    /// Sends what was answered before the store was closed, for as long as a client takes it without delay.
    private func sendRest(of connections: [ServedConnection]) {
        for _ in 0..<20 {
            for connection in connections { connection.flush() }
            var waits = connections.filter(\.hasUnsent).map { SocketWait($0.socket.number, reads: false, writes: true) }
            if waits.isEmpty { return }
            SocketWait.wait(for: &waits, milliseconds: 5)
        }
    }
}

extension OwnedStore {
    /// Counts the owners of the store.
    var epoch: UInt32 { self.core.look { $0.meta.epoch } }
}
