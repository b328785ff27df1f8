// What the oracle finds when it compares a store with a journal.

/// The result of a comparison: what is wrong, and how much was looked at.
struct TortureVerdict: Hashable {
    /// What can be wrong.
    enum Kind: String, CaseIterable {
        /// A message that was acknowledged as stored, and not as done, is not there.
        case lost
        /// A message is there, or was delivered, that nobody had published, or that had been refused.
        case invented
        /// Other bytes than were published.
        case wrong
        /// A message that was acknowledged as done is there, or was delivered again.
        case revived
        /// A message is there twice.
        case doubled
        /// It is in another queue or state than where it was left.
        case misplaced
        /// Attempts, or the reason of the last failure, are gone.
        case forgotten
        /// Of an acknowledge-and-publish, only a part happened.
        case halfDone
        /// The figures of the store contradict its messages.
        case accounting
        /// Opening a second time gave something else.
        case unstable
        /// A call succeeded that began after a write or sync had failed.
        case acknowledgedAfterFailure
        /// A delivery before its time, or while somebody else held the message.
        case early
        /// The store can't be opened, or is damaged.
        case damaged
        /// The journal itself makes no sense: the harness is at fault.
        case journal
    }

    /// One thing that is wrong.
    struct Problem: Hashable {
        var kind: Kind
        var what: String
    }

    /// How much was looked at.
    struct Figures: Hashable {
        var lives = 0
        var published = 0
        var done = 0
        var ready = 0
        var delayed = 0
        var dead = 0
        /// Calls under way at the end of a process, or failed, that turned out to have happened.
        var undecidedPresent = 0
        /// Such calls that turned out not to have happened.
        var undecidedAbsent = 0
        /// Messages that were known from before the journal's first life.
        var settled = 0
        /// Messages that a worker held when the last process ended.
        var held = 0
        var failures = 0
    }

    var problems: [Problem] = []
    var figures = Figures()

    var isGood: Bool { self.problems.isEmpty }

    /// How many problems there are of a kind.
    func count(_ kind: Kind) -> Int { self.problems.count { $0.kind == kind } }
}

extension TortureVerdict {
    /// The verdict for scripts: a count for each kind, figures, and the first problems.
    var json: JSONValue {
        let kinds = Kind.allCases.map { JSONValue.Member($0.rawValue, .number(self.count($0))) }
        let problems = self.problems.prefix(20).map { JSONValue.string("\($0.kind.rawValue): \($0.what)") }
        return .object(
            [.init("good", .bool(self.isGood))] + kinds + [
                .init("lives", .number(self.figures.lives)),
                .init("published", .number(self.figures.published)),
                .init("done", .number(self.figures.done)),
                .init("ready", .number(self.figures.ready)),
                .init("delayed", .number(self.figures.delayed)),
                .init("dead", .number(self.figures.dead)),
                .init("undecidedPresent", .number(self.figures.undecidedPresent)),
                .init("undecidedAbsent", .number(self.figures.undecidedAbsent)),
                .init("settled", .number(self.figures.settled)),
                .init("held", .number(self.figures.held)),
                .init("failures", .number(self.figures.failures)),
                .init("problems", .array(problems)),
            ]
        )
    }

    /// The verdict for a person.
    var text: String {
        let figures = self.figures
        let head =
            "\(counted(figures.published, "message")) published = \(figures.done) done + \(figures.dead) dead + "
            + "\(figures.ready) ready + \(figures.delayed) delayed\n"
        if self.isGood { return "good: nothing lost, invented, changed or revived; \(head)" }
        let kinds = Kind.allCases.filter { self.count($0) > 0 }.map { "\(self.count($0)) \($0.rawValue)" }
        let problems = self.problems.prefix(20).map { "  \($0.kind.rawValue): \($0.what)\n" }
        return "BAD: \(kinds.joined(separator: ", "))\n" + problems.joined() + head
    }
}
