// All that a store holds, as its own users see it.

internal import StalkCore
internal import StalkLocal

/// The content of a store at one moment.
struct TortureContent {
    /// Every message.
    var items: [TortureOracle.Item] = []
    /// What contradicts itself.
    var problems: [TortureVerdict.Problem] = []
    /// What opening found.
    var recovery: RecoveryReport

    /// Opens a store, reads all of it, and lets go of it.
    ///
    /// - Parameters:
    ///   - path: The store's directory.
    ///   - closes: Whether to close the store, which moves all of the log into LMDB; otherwise it is left as a process
    ///     that dies would leave it.
    static func read(at path: String, closes: Bool) async throws -> TortureContent {
        let store = try await Self.open(at: path)
        let content: Self
        do {
            content = try await Self.read(store)
        } catch {
            try? await store.close()
            throw error
        }
        if closes { try await store.close() }
        return content
    }

    /// Opens a store once its last owner is gone.
    private static func open(at path: String) async throws -> LocalStore {
        let deadline = ContinuousClock.now + .seconds(10)
        while true {
            do {
                // Without a checkpoint by time, so that looking changes nothing.
                return try await LocalStore.open(
                    at: path,
                    options: TortureLoad.storeOptions(seed: 0, isSingle: true)
                )
            } catch let error as StalkError where error.code == .storeBusy && ContinuousClock.now < deadline {
                try await Task.sleep(for: .milliseconds(2))
            }
        }
    }

    private static func read(_ store: LocalStore) async throws -> TortureContent {
        var content = TortureContent(recovery: store.recovery)
        let stats = try await store.stats()
        if stats.setAside > 0 {
            content.add(.damaged, "\(counted(stats.setAside, "value")) failed their checksum")
        }
        for queue in stats.queues {
            var items: [MessageID: StoredMessage] = [:]
            // Delayed ones first: what becomes ready meanwhile is seen twice, not missed.
            for state in [MessageState.delayed, .ready, .leased, .dead] {
                for message in try await store.peek(queue.name, state: state, max: .max) { items[message.id] = message }
            }
            content.check(queue, Array(items.values))
            content.items += items.values.map(Self.item)
        }
        if try await store.stats().setAside > stats.setAside { content.add(.damaged, "values failed their checksum") }
        return content
    }

    private mutating func add(_ kind: TortureVerdict.Kind, _ what: String) {
        self.problems.append(TortureVerdict.Problem(kind: kind, what: what))
    }

    /// Compares the figures of a queue with its messages.
    private mutating func check(_ queue: QueueStats, _ messages: [StoredMessage]) {
        func count(_ states: MessageState...) -> Int { messages.count { states.contains($0.state) } }
        let bytes = messages.reduce(0) { $0 + $1.body.count }
        let pairs = [
            ("alive", queue.ready + queue.delayed, count(.ready, .delayed)),
            ("leased", queue.leased, count(.leased)),
            ("dead", queue.dead, count(.dead)),
            ("bytes", queue.bytes, bytes),
        ]
        for (what, figure, found) in pairs where figure != found {
            self.add(.accounting, "\(queue.name) says \(figure) \(what), and \(found) are there")
        }
    }

    private static func item(_ message: StoredMessage) -> TortureOracle.Item {
        let number = TortureMessage.number(in: message.headers)
        return TortureOracle.Item(
            number: number,
            id: message.id.rawValue,
            queue: message.queue.rawValue,
            home: (message.diedIn ?? message.queue).rawValue,
            state: message.state.rawValue,
            attempts: message.attempts,
            isRight: number.map { TortureMessage.isRight($0, body: message.body, headers: message.headers) } ?? false,
            lastReason: message.failures.last?.reason
        )
    }

    /// What may not differ between two openings: all but the time that has passed.
    private var lasting: Set<TortureOracle.Item> {
        Set(
            self.items.map { item in
                var item = item
                if item.state == "delayed" { item.state = "ready" }
                return item
            }
        )
    }

    /// Reads a store twice, and judges it by a journal.
    ///
    /// - Parameters:
    ///   - path: The store's directory.
    ///   - oracle: The journal, as it was followed.
    ///   - closes: Whether to close the store at the end.
    /// - Returns: The verdict, and what was found.
    static func judge(
        at path: String,
        by oracle: TortureOracle,
        closes: Bool
    ) async -> (verdict: TortureVerdict, content: TortureContent?) {
        do {
            let first = try await Self.read(at: path, closes: false)
            let second = try await Self.read(at: path, closes: closes)
            var verdict = oracle.verdict(on: first.items)
            verdict.problems += first.problems
            let difference = first.lasting.symmetricDifference(second.lasting)
            for item in difference.sorted(by: { $0.id < $1.id }) {
                verdict.add(.unstable, "message \(item.id) is not the same when the store is opened again")
            }
            return (verdict, second)
        } catch {
            var verdict = oracle.verdict(on: [])
            verdict.problems = [
                TortureVerdict.Problem(kind: .damaged, what: "the store can't be opened or read: \(error)")
            ]
            return (verdict, nil)
        }
    }

    /// What the next journal may begin with instead of everything that has been so far.
    var settled: [TortureEvent] {
        self.items.compactMap { item in
            guard let number = item.number else { return nil }
            return .settled(
                TortureEvent.Settled(
                    number: number,
                    id: item.id,
                    queue: item.queue,
                    home: item.home,
                    isDead: item.state == "dead",
                    attempts: item.attempts
                )
            )
        }
    }
}
