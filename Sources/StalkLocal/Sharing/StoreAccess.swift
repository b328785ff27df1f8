// Who owns an open store at this moment, and how its calls get there.

internal import Glibc
internal import StalkCore
internal import StalkFiles
internal import StalkPlatform

/// The way of a store's calls to its owner, whoever that is.
///
/// A store begins as its owner's or as a client's. When the owner goes, each client tries to become the owner: one gets
/// the lock, the others connect to it. Calls wait meanwhile, and what was not answered is repeated.
final class StoreAccess: Sendable {
    private typealias Waiting = [UInt64: CheckedContinuation<any StoreService, any Error>]

    private enum State {
        case open(any StoreService)
        /// The owner has gone; these wait for the next one.
        case changing(Waiting)
        case closed(StalkError)
    }

    let book: ClientBook
    private let entrance: StoreEntrance
    private let state: Locked<State>
    private let server = Locked<StoreServer?>(nil)
    /// The process that opened the store: one that was forked from it has none of its threads.
    private let process = getpid()

    private init(_ entrance: StoreEntrance, _ first: any StoreService) {
        self.entrance = entrance
        self.book = entrance.book
        self.state = Locked(.open(first))
    }

    deinit {
        // A store that is let go without being closed loses nothing: its threads end, and the log says the rest.
        self.state.withLock { state in
            guard case .open(let service) = state else { return }
            (service as? OwnedStore)?.core.stop()
            (service as? StoreClient)?.end()
        }
        self.server.withLock { $0?.stop(waiting: false) }
    }

    /// Opens the store; blocks.
    static func open(_ opening: StoreOpening) throws(StalkError) -> (StoreAccess, RecoveryReport) {
        let entrance = StoreEntrance(opening: opening, book: ClientBook())
        switch try entrance.enter() {
        case .owner(let owned, let server):
            let access = StoreAccess(entrance, owned)
            access.begin(server)
            return (access, owned.report)
        case .client(let client, _):
            let access = StoreAccess(entrance, client)
            try access.begin(client)
            return (access, RecoveryReport(replayedFrames: 0, replayedRecords: 0, tornBytes: 0, quarantinedFrames: 0))
        }
    }

    private func begin(_ server: StoreServer?) {
        guard let server else { return }
        self.server.withLock { $0 = server }
        guard (try? server.start()) == nil else { return }
        // Nobody can come back for what was held back.
        self.server.withLock { $0 = nil }
        server.owned.core.step { engine, now in engine.stopAwaitingHolders(now: now) }
    }

    private func begin(_ client: StoreClient) throws(StalkError) {
        try client.start { [weak self, weak client] in self?.ownerHasGone(client) }
    }

    // MARK: Calls

    /// The store, as soon as somebody owns it.
    private func service() async throws -> any StoreService {
        guard getpid() == self.process else { throw StalkError.forked(from: self.process) }
        let ready = self.state.withLock { state -> (any StoreService)? in
            if case .open(let service) = state { service } else { nil }
        }
        if let ready { return ready }
        let number = self.book.nextCall()
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let answer = self.state.withLock { state -> Result<any StoreService, any Error>? in
                    switch state {
                    case .open(let service): return .success(service)
                    case .closed(let error): return .failure(error)
                    case .changing(var waiting):
                        waiting[number] = continuation
                        state = .changing(waiting)
                        return nil
                    }
                }
                if let answer { return continuation.resume(with: answer) }
                // Cancelled before it waited: the handler found nobody.
                if Task.isCancelled { self.endWait(number) }
            }
        } onCancel: {
            self.endWait(number)
        }
    }

    /// Lets a cancelled caller wait for the next owner no longer.
    private func endWait(_ number: UInt64) {
        let continuation = self.state.withLock { state -> Waiting.Value? in
            guard case .changing(var waiting) = state else { return nil }
            defer { state = .changing(waiting) }
            return waiting.removeValue(forKey: number)
        }
        continuation?.resume(throwing: CancellationError())
    }

    /// Runs a call, again at the next owner for as long as owners go before it is answered.
    ///
    /// - Parameter body: The call; told whether an earlier owner may have carried it out.
    func perform<Value>(_ body: (any StoreService, _ isRepeated: Bool) async throws -> Value) async throws -> Value {
        var isRepeated = false
        while true {
            let service = try await self.service()
            do {
                return try await body(service, isRepeated)
            } catch is OwnerGone {
                isRepeated = true
                self.changeIfGone(service)
            }
        }
    }

    /// The store, if this process owns it.
    var owned: OwnedStore? {
        self.state.withLock { state in
            if case .open(let service) = state { service as? OwnedStore } else { nil }
        }
    }

    // MARK: Collectors

    func addCollector(of queue: QueueName) -> UInt64 {
        let record = CollectorRecord(queue: queue)
        let number = self.book.addCollector(record)
        self.state.withLock { state in
            if case .open(let service) = state { service.addCollector(number, record) }
        }
        return number
    }

    func removeCollector(_ number: UInt64) {
        self.book.removeCollector(number)
        self.state.withLock { state in
            if case .open(let service) = state { service.removeCollector(number) }
        }
    }

    // MARK: Another owner

    /// Lets calls wait, since what they would ask has gone.
    private func changeIfGone(_ service: any StoreService) {
        self.state.withLock { state in
            if case .open(let current) = state, current === service { state = .changing([:]) }
        }
    }

    /// The owner has gone: the thread that heard of it looks for the next one, or becomes it.
    private func ownerHasGone(_ last: StoreClient?) {
        let isWanted = self.state.withLock { state in
            switch state {
            case .open(let service) where service === last:
                state = .changing([:])
                return true
            case .changing: return true
            case .open, .closed: return false
            }
        }
        if isWanted { self.enterAgain(after: last) }
    }

    private var isClosed: Bool {
        self.state.withLock { if case .closed = $0 { true } else { false } }
    }

    private func enterAgain(after last: StoreClient?) {
        while true {
            do throws(StalkError) {
                switch try self.entrance.enter(while: { !self.isClosed }, leave: { last?.leave() }) {
                case .owner(let owned, let server): return self.goOn(asOwner: owned, server)
                case .client(let client, let greeting):
                    self.book.note(client.welcome.verdicts, of: greeting.leases)
                    last?.leave()
                    // First known, then heard: when this owner goes too, its end finds the client in its place.
                    self.goOn(with: client)
                    do throws(StalkError) {
                        return try self.begin(client)
                    } catch {
                        self.changeIfGone(client)
                        client.fail()
                        throw error
                    }
                }
            } catch {
                // Who calls is told why; who calls later finds the store if somebody opens it meanwhile.
                self.fail(error)
                if self.isClosed { return }
                usleep(100_000)
            }
        }
    }

    private func goOn(asOwner owned: OwnedStore, _ server: StoreServer?) {
        for (number, record) in self.book.collectors { owned.addCollector(number, record) }
        let leases = self.book.leases(at: owned.core.clock.bootTime())
        let verdicts = leases.map { held in
            var held = held
            held.collector = owned.engineNumber(of: held.collector)
            return owned.adopt(held)
        }
        self.book.note(verdicts, of: leases)
        self.begin(server)
        self.goOn(with: owned)
    }

    private func goOn(with service: any StoreService) {
        let waiting = self.state.withLock { state -> Waiting? in
            guard case .changing(let waiting) = state else { return nil }
            // Some may be new since the service was told of them.
            for (number, record) in self.book.collectors { service.addCollector(number, record) }
            state = .open(service)
            return waiting
        }
        guard let waiting else { return self.giveUp(service) }
        for continuation in waiting.values { continuation.resume(returning: service) }
    }

    private func fail(_ error: StalkError) {
        let waiting = self.state.withLock { state -> Waiting in
            guard case .changing(let waiting) = state else { return [:] }
            state = .changing([:])
            return waiting
        }
        for continuation in waiting.values { continuation.resume(throwing: error) }
    }

    // MARK: The end

    /// The store was closed while another owner was looked for.
    private func giveUp(_ service: any StoreService) {
        let server = self.takeServer()
        server?.beginClosing()
        (service as? OwnedStore)?.core.step { engine, _ in engine.fail(.storeClosed) }
        (service as? OwnedStore)?.giveUpNow { server?.withdraw() }
        server?.stop()
        (service as? StoreClient)?.end()
    }

    /// Gives the store up; closing twice is harmless.
    func close() async throws {
        let last = self.state.withLock { state -> State? in
            if case .closed = state { return nil }
            defer { state = .closed(.storeClosed) }
            return state
        }
        switch last {
        case nil, .closed?: return
        case .changing(let waiting)?:
            for continuation in waiting.values { continuation.resume(throwing: StalkError.storeClosed) }
        case .open(let service)?:
            if let owned = service as? OwnedStore { try await self.close(owned) }
            if let client = service as? StoreClient {
                client.endWaits()
                var failed: StalkError?
                do {
                    _ = try await client.carryOut(.sync, progress: nil)
                } catch {
                    // Without an owner the next one is asked for nothing: what was acknowledged is in the log.
                    failed = error as? StalkError
                }
                await client.sayGoodbye()
                if let failed { throw failed }
            }
        }
    }

    /// Ends as a kill would: nothing is written any more, and nobody is told.
    func abandon() async {
        let last = self.state.withLock { state in
            defer { state = .closed(.storeClosed) }
            return state
        }
        guard case .open(let service) = last else { return }
        let server = self.takeServer()
        server?.beginClosing()
        if let owned = service as? OwnedStore {
            owned.core.step { engine, _ in engine.fail(.storeClosed) }
            await owned.giveUp()
        }
        (service as? StoreClient)?.end()
        _ = try? await onOwnThread("stalk-close") { () throws(StalkError) in server?.stop() }
    }

    private func takeServer() -> StoreServer? {
        self.server.withLock { server in
            defer { server = nil }
            return server
        }
    }

    private func close(_ owned: OwnedStore) async throws {
        let server = self.takeServer()
        server?.beginClosing()
        let outcome: (any Error)?
        do {
            try await owned.finishWork()
            outcome = nil
        } catch {
            outcome = error
        }
        await owned.giveUp { server?.withdraw() }
        _ = try? await onOwnThread("stalk-close") { () throws(StalkError) in server?.stop() }
        if let outcome { throw outcome }
    }
}

extension StalkError {
    fileprivate static func forked(from process: Int32) -> StalkError {
        StalkError(
            .closed,
            "The store was opened by process \(process), from which this one was forked: open it again here."
        )
    }
}
