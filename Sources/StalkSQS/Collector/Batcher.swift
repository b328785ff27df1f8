// Gathers single entries into batches, so that ten of them cost one request.

internal import StalkCore

/// Decides when a batch is sent: when it is full, or when its first entry has lingered long enough.
struct BatchStateMachine: Sendable {
    /// An entry by its number and size.
    struct Item: Hashable, Sendable {
        var number: Int
        var bytes: Int
    }

    /// What to do.
    enum Action: Hashable, Sendable {
        case send([Int])
        /// Call ``lingered(_:)`` with this when the linger is over.
        case linger(round: Int)
    }

    var maxCount = QueueLimits.maxBatchEntries
    var maxBytes = QueueLimits.maxBatchBytes
    /// How many batches are under way at a time; 1 keeps the order.
    var maxInFlight: Int
    var lingers: Bool

    private var gathered: [Item] = []
    private var gatheredBytes = 0
    private var due: [[Int]] = []
    private var inFlight = 0
    /// Counts the batches that were begun, so that a late alarm sends nothing.
    private var round = 0

    init(maxInFlight: Int, lingers: Bool) {
        self.maxInFlight = maxInFlight
        self.lingers = lingers
    }

    /// Entries have come.
    mutating func add(_ items: [Item]) -> [Action] {
        for item in items {
            if self.gatheredBytes + item.bytes > self.maxBytes, !self.gathered.isEmpty { self.close() }
            self.gathered.append(item)
            self.gatheredBytes += item.bytes
            if self.gathered.count == self.maxCount { self.close() }
        }
        guard !self.gathered.isEmpty, self.lingers else {
            self.close()
            return self.start()
        }
        return self.start() + [.linger(round: self.round)]
    }

    /// A linger is over.
    mutating func lingered(_ round: Int) -> [Action] {
        guard round == self.round else { return [] }
        self.close()
        return self.start()
    }

    /// A batch has come back.
    mutating func returned() -> [Action] {
        self.inFlight -= 1
        return self.start()
    }

    private mutating func close() {
        guard !self.gathered.isEmpty else { return }
        self.due.append(self.gathered.map(\.number))
        self.gathered = []
        self.gatheredBytes = 0
        self.round += 1
    }

    private mutating func start() -> [Action] {
        var actions: [Action] = []
        while self.inFlight < self.maxInFlight, !self.due.isEmpty {
            self.inFlight += 1
            actions.append(.send(self.due.removeFirst()))
        }
        return actions
    }
}

/// Sends entries in batches and gives each its outcome.
final class Batcher<Entry: Sendable, Outcome: Sendable>: Sendable {
    private struct Waiting {
        var entry: Entry
        /// The call that it came with.
        var call: Int
        var continuation: @Sendable (Outcome) -> Void
    }

    private struct State {
        var machine: BatchStateMachine
        var waiting: [Int: Waiting] = [:]
        var next = 0
        var calls = 0
    }

    private let state: Locked<State>
    private let linger: Duration
    private let consequence: @Sendable (Outcome) -> Outcome?
    private let send: @Sendable ([Entry]) async -> [Outcome]
    private let size: @Sendable (Entry) -> Int

    /// Makes a batcher.
    ///
    /// - Parameters:
    ///   - maxInFlight: How many batches are under way at a time.
    ///   - linger: How long a batch waits for more.
    ///   - size: How many bytes an entry takes.
    ///   - consequence: What becomes of the entries of a call that are not sent yet when an earlier one of the same call
    ///     ends so; `nil` sends them all the same. With one batch at a time nothing overtakes what failed then.
    ///   - send: Sends a batch.
    init(
        maxInFlight: Int = 32,
        linger: Duration,
        size: @escaping @Sendable (Entry) -> Int = { _ in 0 },
        consequence: @escaping @Sendable (Outcome) -> Outcome? = { _ in nil },
        send: @escaping @Sendable ([Entry]) async -> [Outcome]
    ) {
        self.state = Locked(State(machine: BatchStateMachine(maxInFlight: maxInFlight, lingers: linger > .zero)))
        self.linger = linger
        self.size = size
        self.consequence = consequence
        self.send = send
    }

    /// Sends entries, perhaps together with those of others, and returns when each has its outcome.
    func add(_ entries: [Entry]) async -> [Outcome] {
        guard !entries.isEmpty else { return [] }
        return await withCheckedContinuation { continuation in
            let gathering = Gathering(count: entries.count) { continuation.resume(returning: $0) }
            let actions = self.state.withLock { state in
                state.calls += 1
                let call = state.calls
                let items = entries.enumerated().map { position, entry in
                    state.next += 1
                    state.waiting[state.next] = Waiting(entry: entry, call: call) { gathering.put($0, at: position) }
                    return BatchStateMachine.Item(number: state.next, bytes: self.size(entry))
                }
                return state.machine.add(items)
            }
            self.perform(actions)
        }
    }

    /// In tasks of their own: a batch holds entries of several callers, of whom one may be cancelled.
    private func perform(_ actions: [BatchStateMachine.Action]) {
        for action in actions {
            switch action {
            case .send(let numbers):
                Task { await self.send(numbers) }
            case .linger(let round):
                Task {
                    try? await ContinuousClock().sleep(for: self.linger)
                    self.perform(self.state.withLock { $0.machine.lingered(round) })
                }
            }
        }
    }

    private func send(_ numbers: [Int]) async {
        let batch = self.state.withLock { state in numbers.compactMap { state.waiting.removeValue(forKey: $0) } }
        // All of it may have been let go with an earlier batch.
        let outcomes = batch.isEmpty ? [] : await self.send(batch.map(\.entry))
        let (actions, skipped) = self.state.withLock { state in
            (state.machine.returned(), self.takeOut(behind: zip(batch, outcomes), &state))
        }
        self.perform(actions)
        for (waiting, outcome) in zip(batch, outcomes) { waiting.continuation(outcome) }
        for (waiting, outcome) in skipped { waiting.continuation(outcome) }
    }

    /// Takes out what must not be sent any more, since an earlier entry of its call failed.
    private func takeOut(
        behind sent: some Sequence<(Waiting, Outcome)>,
        _ state: inout State
    ) -> [(Waiting, Outcome)] {
        var consequences: [Int: Outcome] = [:]
        for (waiting, outcome) in sent {
            if let consequence = self.consequence(outcome) { consequences[waiting.call] = consequence }
        }
        guard !consequences.isEmpty else { return [] }
        var skipped: [(Waiting, Outcome)] = []
        for (number, waiting) in state.waiting {
            guard let consequence = consequences[waiting.call] else { continue }
            skipped.append((waiting, consequence))
            state.waiting[number] = nil
        }
        return skipped
    }
}

/// Collects the outcomes of one call.
private final class Gathering<Outcome: Sendable>: Sendable {
    private let outcomes: Locked<[Outcome?]>
    private let done: @Sendable ([Outcome]) -> Void

    init(count: Int, done: @escaping @Sendable ([Outcome]) -> Void) {
        self.outcomes = Locked(Array(repeating: nil, count: count))
        self.done = done
    }

    func put(_ outcome: Outcome, at position: Int) {
        let all = self.outcomes.withLock { outcomes -> [Outcome]? in
            outcomes[position] = outcome
            return outcomes.allSatisfy { $0 != nil } ? outcomes.compactMap(\.self) : nil
        }
        if let all { self.done(all) }
    }
}
