// Which way a message goes: at once to the remote, or behind those that wait in the spool.

internal import StalkCore

/// What waits in the spool, by ordering group, and what follows for the next message.
///
/// A message is counted before it is stored and until its leaving is recorded, so that nothing overtakes it. What an
/// earlier process left, and what was delayed, is not counted: as long as the former may be there, nothing goes directly.
/// The same holds once more groups wait than are worth their memory.
struct RoutingStateMachine: Sendable {
    /// The most groups that are told apart.
    static let mostGroups = 10_000

    private let limits: FailoverOptions
    private(set) var waiting: [String: Int] = [:]
    /// Whether messages may wait that are not counted by group: those of an earlier process, or of too many groups.
    private var mayHoldOlder = true
    /// How many stores were begun, and how many of them are not done.
    private var begun: UInt64 = 0
    private var underWay = 0
    private var begunAtLook: UInt64 = 0
    /// What the spool holds, as far as that is known here.
    private(set) var messages = 0
    private(set) var bytes = 0
    private var ages: SpoolAges

    init(limits: FailoverOptions) {
        self.limits = limits
        self.ages = SpoolAges(limit: limits.maxOldestAge ?? .seconds(3600))
    }

    /// What was found in the spool at the beginning.
    mutating func opened(messages: Int, bytes: Int, waiting: Int = 0, since: Timestamp? = nil) {
        self.ages.opened(count: waiting, since: since)
        self.messages += messages
        self.bytes += bytes
        self.mayHoldOlder = messages > 0
    }

    /// Whether nothing of the group waits.
    func isFree(_ group: String) -> Bool {
        !self.mayHoldOlder && self.waiting[group] == nil
    }

    /// Whether the first in line is older than it may be.
    func isTooOld(at wall: Timestamp) -> Bool {
        guard let limit = self.limits.maxOldestAge, let oldest = self.ages.oldest else { return false }
        return wall.remaining(at: oldest) > limit
    }

    /// Whether the spool may take so much more.
    func hasRoom(bytes: Int) -> Bool {
        self.messages < self.limits.maxMessages ?? .max
            && (self.limits.maxBytes.map { self.bytes + bytes <= $0 } ?? true)
    }

    /// A message is about to be stored.
    mutating func begin(_ group: String, bytes: Int, isCounted: Bool, at wall: Timestamp = .epoch) {
        self.begun += 1
        self.underWay += 1
        self.messages += 1
        self.bytes += bytes
        guard isCounted else { return }
        if self.limits.maxOldestAge != nil { self.ages.add(at: wall) }
        if self.waiting[group] == nil, self.waiting.count >= Self.mostGroups {
            self.mayHoldOlder = true
        } else {
            self.waiting[group, default: 0] += 1
        }
    }

    /// It is stored, or could not be.
    mutating func end(_ group: String, bytes: Int, isCounted: Bool, isStored: Bool) {
        self.underWay -= 1
        guard !isStored else { return }
        if isCounted { self.ages.takeBack() }
        self.forget(group, bytes: bytes, isCounted: isCounted)
    }

    /// A message has left the spool.
    mutating func left(_ group: String, bytes: Int, isCounted: Bool) {
        self.ages.left(isCounted: isCounted)
        self.forget(group, bytes: bytes, isCounted: isCounted)
    }

    private mutating func forget(_ group: String, bytes: Int, isCounted: Bool) {
        self.messages = max(self.messages - 1, 0)
        self.bytes = max(self.bytes - bytes, 0)
        guard isCounted, let count = self.waiting[group] else { return }
        self.waiting[group] = count > 1 ? count - 1 : nil
    }

    /// The spool is about to be looked into.
    mutating func looking() {
        self.begunAtLook = self.underWay == 0 ? self.begun : .max
    }

    /// That look found nothing, and nothing is held any more.
    mutating func foundNothing() {
        guard self.begunAtLook == self.begun, self.underWay == 0 else { return }
        self.mayHoldOlder = false
        self.waiting = [:]
        self.ages.clear()
    }
}
