// What a store must hold, told by nothing but what its callers asked and were answered.

import StalkCore

@testable import StalkLocal

/// How sure it is that something happened.
enum Certainty: Int, Comparable {
    /// Somebody asked for it.
    case asked
    /// It was answered: it survives the process.
    case written
    /// It survives a power cut.
    case synced

    init(_ durability: Durability) {
        self = durability == .synced ? .synced : .written
    }

    static func < (left: Certainty, right: Certainty) -> Bool { left.rawValue < right.rawValue }
}

/// What a message is, as far as its callers can know.
struct ItemState: Hashable {
    enum Place: Hashable {
        /// Not published, or finished.
        case nowhere
        /// Ready or leased; delayed until it is due.
        case alive(dueAt: Int64)
        case dead
    }

    var queue: String
    var place: Place
    var attempts = 0

    static let missing = ItemState(queue: "", place: .nowhere)
}

/// One message of the model.
struct Item {
    /// Something that changed a message.
    struct Fact {
        var after: ItemState
        var certainty: Certainty
        /// The messages that came into being together with this end, or not at all.
        var published: [Int] = []
    }

    let number: Int
    let body: [UInt8]
    /// What it was when this life of the store began.
    var base = ItemState.missing
    var facts: [Fact] = []
    var id: MessageID?
    /// Who holds it, and until when at least.
    var receipt: Receipt?
    var leasedUntil: Int64 = .min
    /// The first lease that was given out since it was last changed by hand.
    var firstLease: UInt64 = 0

    /// What it is if everything that was asked for happened.
    var current: ItemState { self.facts.last?.after ?? self.base }

    /// What it may be after a crash that spares what is at least this certain, most first.
    func possible(sparing certainty: Certainty) -> [(state: ItemState, facts: Int)] {
        let floor = self.facts.lastIndex { $0.certainty >= certainty }.map { $0 + 1 } ?? 0
        return (floor...self.facts.count).reversed().map { count in
            (count == 0 ? self.base : self.facts[count - 1].after, count)
        }
    }
}

/// Something that must not be.
struct Violation: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) {
        self.description = description
    }
}

/// All messages of a store.
struct StoreModel {
    private(set) var items: [Item] = []

    // MARK: What happens

    /// A message is to be published.
    ///
    /// - Returns: Its number, and a body that says it.
    mutating func ask(to queue: String, dueAt: Int64, bytes: Int) -> (number: Int, body: [UInt8]) {
        let number = self.items.count
        let body = Self.body(number, bytes)
        var item = Item(number: number, body: body)
        item.facts.append(Item.Fact(after: ItemState(queue: queue, place: .alive(dueAt: dueAt)), certainty: .asked))
        self.items.append(item)
        return (number, body)
    }

    /// The number in front, then what follows from it.
    static func body(_ number: Int, _ bytes: Int) -> [UInt8] {
        let digits = Array("\(number);".utf8)
        let seed = UInt64(bitPattern: Int64(number)) &* 0x9E37_79B9_7F4A_7C15
        return digits + (0..<bytes).map { UInt8(truncatingIfNeeded: (seed &+ UInt64($0 / 7)) >> 13) }
    }

    /// A publish was answered.
    mutating func notePublished(_ number: Int, _ id: MessageID, _ certainty: Certainty) throws(Violation) {
        if let known = self.items[number].id, known != id { throw Violation("message \(number) got two ids") }
        self.items[number].id = id
        self.raise(number, fact: 0, certainty)
    }

    /// A publish was refused: it must not be there.
    mutating func noteRefused(_ number: Int) {
        self.items[number].facts = []
    }

    /// A message was handed out.
    ///
    /// - Returns: Whether that says anything of how it is now.
    mutating func noteTaken(
        _ delivery: Delivery,
        askedAt: Int64,
        lease: Int64,
        now: Int64,
        _ certainty: Certainty
    ) throws(Violation) -> Bool {
        let number = try self.number(of: delivery.body)
        let item = self.items[number]
        let state = item.current
        // Its lease was over before it arrived, and meanwhile the message went another way.
        if askedAt + lease <= now, delivery.queue.rawValue != state.queue, item.body == delivery.body { return false }
        if case .local(_, _, let number) = delivery.receipt.token, number < item.firstLease { return false }
        guard case .alive(let dueAt) = state.place else { throw Violation("\(number) was delivered, but is \(state)") }
        guard delivery.body == item.body else { throw Violation("\(number) has wrong bytes") }
        guard item.id == nil || item.id == delivery.id else { throw Violation("\(number) has another id") }
        guard delivery.queue.rawValue == state.queue else {
            throw Violation("\(number), \(delivery.id), is in \(delivery.queue), must be \(item.facts)")
        }
        guard dueAt <= now else { throw Violation("\(number) came \(dueAt - now) ms early") }
        guard item.leasedUntil <= now else { throw Violation("\(number) was handed out twice") }
        guard delivery.attempt == state.attempts + 1 else {
            throw Violation("\(number) came as attempt \(delivery.attempt), \(state.attempts) were before")
        }
        var after = state
        after.attempts += 1
        self.items[number].id = delivery.id
        self.items[number].facts.append(Item.Fact(after: after, certainty: certainty))
        self.items[number].receipt = delivery.receipt
        self.items[number].leasedUntil = askedAt + lease
        return true
    }

    /// A delivery is to end; what is visible changes at once.
    ///
    /// - Returns: Which fact the answer will make certain.
    mutating func askEnd(_ number: Int, _ after: ItemState, publishing published: [Int] = []) -> Int {
        self.items[number].facts.append(Item.Fact(after: after, certainty: .asked, published: published))
        self.items[number].receipt = nil
        self.items[number].leasedUntil = .min
        return self.items[number].facts.count - 1
    }

    /// A message that nobody held was changed by hand.
    ///
    /// - Parameter firstLease: The first lease that may be given out after the change.
    /// - Returns: Which fact the answer will make certain.
    mutating func askChange(_ number: Int, _ after: ItemState, firstLease: UInt64) -> Int {
        self.items[number].firstLease = firstLease
        return self.askEnd(number, after)
    }

    /// The end of a delivery was refused.
    mutating func noteEndRefused(_ number: Int, fact: Int, _ receipt: Receipt, leasedUntil: Int64) throws(Violation) {
        guard self.items[number].facts.count == fact + 1 else {
            throw Violation("\(number) went on although the end of its delivery was refused")
        }
        self.items[number].facts.removeLast()
        self.items[number].receipt = receipt
        self.items[number].leasedUntil = leasedUntil
    }

    /// An answer came: this fact, and with it what was before it, is certain.
    mutating func raise(_ number: Int, fact: Int, _ certainty: Certainty) {
        guard fact < self.items[number].facts.count else { return }
        for index in 0...fact {
            self.items[number].facts[index].certainty = max(self.items[number].facts[index].certainty, certainty)
        }
    }

    /// Everything answered until now survives a power cut: a later frame was synced.
    mutating func syncWhatIsWritten() {
        for number in self.items.indices {
            for index in self.items[number].facts.indices where self.items[number].facts[index].certainty == .written {
                self.items[number].facts[index].certainty = .synced
            }
        }
    }

    mutating func extendLease(_ number: Int, until time: Int64) {
        self.items[number].leasedUntil = time
    }

    /// The lease of a delivery is over.
    mutating func forgetReceipt(_ number: Int) {
        self.items[number].receipt = nil
    }

    func number(of body: [UInt8]) throws(Violation) -> Int {
        let digits = String(decoding: body.prefix { $0 != UInt8(ascii: ";") }, as: UTF8.self)
        guard let number = Int(digits), self.items.indices.contains(number) else {
            throw Violation("a message was invented: \(digits)")
        }
        return number
    }

    // MARK: What must be there

    /// The queues' figures must be what the callers know, give or take what is not answered yet.
    func check(_ figures: [String: QueueStats], unanswered: Set<Int>, now: Int64) throws(Violation) {
        var alive: [String: Int] = [:]
        var dead: [String: Int] = [:]
        var waiting: [String: Int] = [:]
        var bytes: [String: Int] = [:]
        var openAlive: [String: Int] = [:]
        for item in self.items {
            let state = item.current
            if unanswered.contains(item.number) {
                openAlive[state.queue, default: 0] += 1
                continue
            }
            switch state.place {
            case .nowhere: continue
            case .dead: dead[state.queue, default: 0] += 1
            case .alive(let dueAt):
                alive[state.queue, default: 0] += 1
                if dueAt > now { waiting[state.queue, default: 0] += 1 }
            }
            bytes[state.queue, default: 0] += item.body.count
        }
        for name in Set(alive.keys).union(dead.keys).union(figures.keys).sorted() {
            guard let found = figures[name] else { throw Violation("queue \(name) is not there") }
            let total = found.ready + found.delayed + found.leased
            let least = alive[name] ?? 0
            let slack = openAlive[name] ?? 0
            guard (least...least + slack).contains(total) else {
                throw Violation("\(name) holds \(total) alive, must be \(least) to \(least + slack): \(found)")
            }
            guard found.dead == dead[name] ?? 0 else { throw Violation("\(name) holds \(found.dead) dead: \(dead)") }
            guard found.delayed >= waiting[name] ?? 0 else {
                throw Violation("\(name) has \(found.delayed) delayed, \(waiting[name] ?? 0) are not due")
            }
            guard slack > 0 || found.bytes == bytes[name] ?? 0 else {
                throw Violation("\(name) counts \(found.bytes) bytes, must be \(bytes[name] ?? 0)")
            }
        }
    }

    /// What is there after a crash must be possible; from now on it is what was.
    ///
    /// - Parameters:
    ///   - contents: Everything that the store holds.
    ///   - certainty: What the crash must have spared.
    ///   - openTakes: How many deliveries per queue may have been counted without anybody being told.
    mutating func adopt(
        _ contents: [StoredMessage],
        sparing certainty: Certainty,
        openTakes: [String: Int]
    ) throws(Violation) {
        var found: [Int: StoredMessage] = [:]
        for message in contents {
            let number = try self.number(of: message.body)
            guard message.body == self.items[number].body else { throw Violation("\(number) has wrong bytes") }
            guard found.updateValue(message, forKey: number) == nil else { throw Violation("\(number) is there twice") }
            guard message.state != .leased else { throw Violation("\(number) is leased by nobody") }
            if let id = self.items[number].id, id != message.id { throw Violation("\(number) has another id") }
        }
        var openTakes = openTakes
        // What is gone may never have been there, or may have been removed: one explanation that fits is enough.
        var (mayExist, mayLack) = (Set<Int>(), Set<Int>())
        var ends: [(number: Int, published: [Int], mayBeDone: Bool, mayBeOpen: Bool)] = []
        for number in self.items.indices {
            let state = found[number].map { Self.state(of: $0) } ?? .missing
            let item = self.items[number]
            let possible = item.possible(sparing: certainty)
            // Only what nothing else explains is put down to deliveries that nobody was told of.
            let open = openTakes[state.queue] ?? 0
            let match =
                possible.first { Self.untoldTakes($0.state, state) == 0 }
                ?? possible.first { Self.untoldTakes($0.state, state).map { (1...max(open, 1)) ~= $0 } ?? false }
            let untold = match.flatMap { Self.untoldTakes($0.state, state) } ?? 0
            guard match != nil, untold <= open else {
                throw Violation("\(number) is \(state), must be one of \(possible.map(\.state)): \(item.facts)")
            }
            if untold > 0 { openTakes[state.queue] = open - untold }
            let counts = possible.filter { Self.untoldTakes($0.state, state) == untold }.map(\.facts)
            for (index, fact) in item.facts.enumerated() where !fact.published.isEmpty {
                ends.append((number, fact.published, counts.contains { $0 > index }, counts.contains { $0 <= index }))
            }
            if item.base != .missing || counts.contains(where: { $0 > 0 }) { mayExist.insert(number) }
            if item.base == .missing, counts.contains(0) { mayLack.insert(number) }
            self.items[number].base = state
            self.items[number].facts = []
            self.items[number].receipt = nil
            self.items[number].leasedUntil = .min
            self.items[number].firstLease = 0
            if let message = found[number] { self.items[number].id = message.id }
        }
        for end in ends {
            for number in end.published {
                let areBoth = end.mayBeDone && mayExist.contains(number)
                let areNeither = end.mayBeOpen && mayLack.contains(number)
                guard areBoth || areNeither else {
                    throw Violation("\(end.number) and \(number), one record, came apart")
                }
            }
        }
    }

    private static func state(of message: StoredMessage) -> ItemState {
        let dueAt = message.dueAt.millisecondsSince1970
        let place: ItemState.Place = message.state == .dead ? .dead : .alive(dueAt: dueAt)
        return ItemState(queue: message.queue.rawValue, place: place, attempts: message.attempts)
    }

    /// How many deliveries more than expected were counted; `nil` when the states differ in anything else.
    private static func untoldTakes(_ expected: ItemState, _ found: ItemState) -> Int? {
        switch (expected.place, found.place) {
        case (.nowhere, .nowhere): return 0
        case (.dead, .dead): break
        // When exactly it is due depends on when the engine was asked, and what was handed out is due no more.
        case (.alive, .alive): break
        default: return nil
        }
        guard expected.queue == found.queue, found.attempts >= expected.attempts else { return nil }
        return found.attempts - expected.attempts
    }
}
