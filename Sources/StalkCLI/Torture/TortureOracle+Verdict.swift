// Judging what is in a store.

extension TortureOracle {
    /// A message as it stands in the store.
    struct Item: Hashable {
        var number: UInt64?
        var id: String
        var queue: String
        /// Where it goes back to when it is redriven.
        var home: String
        var state: String
        var attempts: Int
        /// Whether body and headers are what the number says.
        var isRight: Bool
        var lastReason: String?

        var place: TorturePlace { TorturePlace(queue: self.queue, isDead: self.state == "dead") }
    }

    /// The figures that the store itself gives of a queue.
    struct QueueFigures: Hashable {
        var ready: Int
        var delayed: Int
        var leased: Int
        var dead: Int
        var bytes: Int
    }

    /// Compares all that a store holds with what it may hold.
    ///
    /// - Parameter items: Every message of the store.
    /// - Returns: The verdict.
    func verdict(on items: [Item]) -> TortureVerdict {
        var verdict = TortureVerdict(problems: self.problems)
        var present: [UInt64: Item] = [:]
        for item in items {
            self.judge(item, &verdict)
            guard let number = item.number else { continue }
            if let other = present.updateValue(item, forKey: number) {
                verdict.add(.doubled, "message \(number) is there as \(other.id) and as \(item.id)")
            }
        }
        self.judgeAbsent(present, &verdict)
        self.judgeGroups(present, &verdict)
        verdict.figures = self.figures(present)
        return verdict
    }

    private func judge(_ item: Item, _ verdict: inout TortureVerdict) {
        guard let number = item.number, let record = self.records[number] else {
            let name = item.number.map { ", \($0)," } ?? ""
            return verdict.add(.invented, "message \(item.id)\(name) is there, and nobody had published it")
        }
        if !item.isRight { verdict.add(.wrong, "message \(item.id) is there, and is not what \(number) was") }
        if record.isRefused { verdict.add(.invented, "message \(number) was refused, and is there") }
        if record.end == .certain { return verdict.add(.revived, "message \(number) was done, and is there") }
        if let id = record.id, id != item.id {
            verdict.add(.doubled, "message \(number) was published as \(id), and is there as \(item.id)")
        }
        if !record.places.contains(item.place) || item.state == "leased" {
            verdict.add(.misplaced, "message \(number) is \(item.state) in \(item.queue), and was not left there")
        }
        if item.attempts < record.attempts {
            verdict.add(
                .forgotten,
                "message \(number) has \(item.attempts) attempts, and was delivered as attempt \(record.attempts)"
            )
        }
        if let attempt = record.failedAttempt, item.lastReason != TortureMessage.reason(number, attempt: attempt) {
            verdict.add(.forgotten, "message \(number) has forgotten why attempt \(attempt) failed")
        }
    }

    private func judgeAbsent(_ present: [UInt64: Item], _ verdict: inout TortureVerdict) {
        for (number, record) in self.records where present[number] == nil {
            guard record.isStored, record.end == .open else { continue }
            let queue = record.places.map(\.queue).sorted().joined(separator: " or ")
            verdict.add(.lost, "message \(number), \(record.id ?? "of unknown id"), is not in \(queue)")
        }
    }

    private func judgeGroups(_ present: [UInt64: Item], _ verdict: inout TortureVerdict) {
        for group in self.groups {
            // What happened to a part of it later says nothing about this moment.
            guard let parent = self.records[group.parent.number], parent.version == group.parent.version,
                group.children.allSatisfy({ self.records[$0]?.version == 0 })
            else { continue }
            let children = group.children.count { present[$0] != nil }
            let isDone = present[group.parent.number] == nil
            guard children != (isDone ? group.children.count : 0) else { continue }
            verdict.add(
                .halfDone,
                "message \(group.parent.number) is \(isDone ? "done" : "there"), and \(children) of "
                    + "\(group.children.count) messages that were published with its end are there"
            )
        }
    }

    private func figures(_ present: [UInt64: Item]) -> TortureVerdict.Figures {
        var figures = TortureVerdict.Figures(lives: self.lives, settled: self.settledCount, failures: self.failures)
        for (number, record) in self.records {
            let item = present[number]
            if record.holder == self.life { figures.held += 1 }
            if !record.isStored, !record.isRefused {
                if item != nil { figures.undecidedPresent += 1 } else { figures.undecidedAbsent += 1 }
            }
            if record.isStored, record.end == .perhaps {
                if item != nil { figures.undecidedAbsent += 1 } else { figures.undecidedPresent += 1 }
            }
            guard record.isStored || item != nil else { continue }
            figures.published += 1
            switch item?.state {
            case nil: figures.done += 1
            case "dead": figures.dead += 1
            case "delayed": figures.delayed += 1
            default: figures.ready += 1
            }
        }
        return figures
    }
}

extension TortureVerdict {
    mutating func add(_ kind: Kind, _ what: String) {
        self.problems.append(Problem(kind: kind, what: what))
    }
}
