// Changes by hand in a simulated store: what is there before and after tells whether they did what they say.

import StalkCore
import StalkTesting

@testable import StalkLocal

extension Simulation {
    /// Changes a message by hand, or some of a queue.
    mutating func changeSome() throws {
        guard let store = self.store, store.core.look({ $0.failure }) == nil else { return }
        let contents = try store.contents()
        if self.random.below(2) == 0 {
            try self.changeOne(contents, store)
        } else {
            try self.changeQueue(contents, store)
        }
    }

    // MARK: One message

    private mutating func changeOne(_ contents: [StoredMessage], _ store: SimulatedStore) throws {
        let known = self.model.items.compactMap(\.id)
        guard !known.isEmpty else { return }
        // Mostly one that is there, or else one that may be finished.
        let id =
            contents.isEmpty || self.random.below(8) == 0
            ? known[self.random.below(known.count)] : contents[self.random.below(contents.count)].id
        let old = contents.first { $0.id == id }
        let change = self.randomChange(of: old)
        let firstLease = store.core.look { $0.nextLease }
        self.note("\(change) \(id)")
        let isChanged: Bool
        do {
            guard let outcome = try MessageChanges(core: store.core, change: change).attempt(id) else { return }
            isChanged = outcome
        } catch {
            switch (error.code, old?.state) {
            case (.noSuchMessage, nil), (.messageLeased, .leased?): return
            default: return try self.judge(error)
            }
        }
        guard let old, old.state != .leased else { throw Violation("\(change) of \(id), which is leased or gone") }
        try self.compare(contents, change, count: isChanged ? 1 : 0, firstLease) { $0.id == id }
        guard change != .kick else { return }
        guard isChanged else { throw Violation("\(change) of \(old.id), \(old.state), changed nothing") }
    }

    private mutating func randomChange(of message: StoredMessage?) -> MessageChange {
        switch self.random.below(3) {
        case 0: return .kick
        case 1: return .delete
        default:
            // A delivery that nobody was told of yet must be told from those after the move: so it goes elsewhere.
            let others = Self.queues.filter { message?.state == .dead || $0 != message?.queue }
            return .move(to: others[self.random.below(others.count)])
        }
    }

    // MARK: A queue

    private mutating func changeQueue(_ contents: [StoredMessage], _ store: SimulatedStore) throws {
        let queue = Self.queues[self.random.below(Self.queues.count)]
        guard let number = store.core.look({ $0.queueNumbers[queue] }) else { return }
        let isKick = self.random.below(3) > 0
        let choices: [Set<MessageState>] = [[.ready, .delayed, .dead], [.delayed], [.dead], [.ready]]
        let states = isKick ? [.delayed] : choices[self.random.below(choices.count)]
        let changes = MessageChanges(core: store.core, change: isKick ? .kick : .delete)
        let end = store.core.look { $0.meta.nextSequence }
        let selection = MessageChanges.Selection(queue: number, states: states, end: end)
        let limit = 1 + self.random.below(6)
        let firstLease = store.core.look { $0.nextLease }
        self.note("\(changes.change) \(queue) \(states.map(\.rawValue).sorted()), \(limit) at a time")
        var count = 0
        var isWhole = true
        for isDead in [false, true] {
            var place: MessageChanges.Place? = MessageChanges.Place(isDead: isDead)
            while let from = place, isWhole {
                do {
                    guard let part = try changes.attempt(selection, from: from, limit: limit) else {
                        isWhole = false
                        break
                    }
                    count += part.count
                    place = part.next
                } catch {
                    try self.judge(error)
                    isWhole = false
                }
            }
        }
        let isMeant = { (old: StoredMessage) in old.queue == queue && states.contains(old.state) }
        try self.compare(contents, changes.change, count: count, firstLease, isMeant)
        guard isWhole, changes.change == .delete else { return }
        if let left = try store.contents().first(where: isMeant) { throw Violation("a purge left \(left.id)") }
    }

    // MARK: Comparing

    /// Tells the model what was changed, and makes sure that nothing else was.
    private mutating func compare(
        _ contents: [StoredMessage],
        _ change: MessageChange,
        count: Int,
        _ firstLease: UInt64,
        _ isMeant: (StoredMessage) -> Bool
    ) throws {
        guard let store = self.store, store.core.look({ $0.failure }) == nil else { return }
        let after = Dictionary(uniqueKeysWithValues: try store.contents().map { ($0.id, $0) })
        var facts: [(number: Int, fact: Int)] = []
        for old in contents {
            let new = after[old.id]
            let isMoved = new.map { $0.queue != old.queue || $0.dueAt != old.dueAt } ?? true
            let isFreed = [.dead, .delayed].contains(old.state) && new?.state != old.state
            guard isMoved || isFreed else { continue }
            guard isMeant(old) else { throw Violation("\(change) took \(old.id) along") }
            let number = try self.model.number(of: old.body)
            try self.revertEnd(of: number)
            let state = try self.state(of: number, old, after: change)
            if let new { try Self.check(new, old, is: state) }
            guard (new == nil) == (state.place == .nowhere) else { throw Violation("\(change) lost \(old.id)") }
            facts.append((number, self.model.askChange(number, state, firstLease: firstLease)))
        }
        guard facts.count == count else { throw Violation("\(change) says \(count), \(facts.count) changed") }
        if !facts.isEmpty { self.sync(facts) }
    }

    /// What a message must be after a change.
    private func state(of number: Int, _ old: StoredMessage, after change: MessageChange) throws -> ItemState {
        var state = self.model.items[number].current
        switch change {
        case .delete:
            state.place = .nowhere
        case .move(let queue):
            state = ItemState(queue: queue.rawValue, place: .alive(dueAt: .min), attempts: 0)
        case .kick where old.state == .delayed:
            state.place = .alive(dueAt: .min)
        case .kick:
            guard old.state == .dead || old.diedIn != nil else {
                throw Violation("\(old.id) was kicked, but was ready")
            }
            let queue = old.diedIn ?? old.queue
            state = ItemState(queue: queue.rawValue, place: .alive(dueAt: .min), attempts: 0)
        }
        return state
    }

    /// It is what it must be, or a waiting taker got it at once.
    private static func check(_ new: StoredMessage, _ old: StoredMessage, is state: ItemState) throws {
        guard new.state == .ready || new.state == .leased, new.queue.rawValue == state.queue,
            new.attempts == state.attempts + (new.state == .leased ? 1 : 0),
            new.failures == old.failures, new.body == old.body
        else { throw Violation("\(new.id) is \(new.queue) \(new.state) \(new.attempts), must be \(state)") }
    }
}
