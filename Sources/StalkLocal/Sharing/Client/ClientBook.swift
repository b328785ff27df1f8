// What a process must know to go on at the next owner of a store.

internal import StalkCore
internal import StalkPlatform

/// The collectors of a process, the leases it holds, and the calls that it may have to repeat.
final class ClientBook: Sendable {
    /// The number by which owners know this process; chosen at random.
    let client = UInt64.random(in: 1...UInt64.max)

    private struct State {
        var nextCollector: UInt64 = 1
        var collectors: [UInt64: CollectorRecord] = [:]
        var nextCall: UInt64 = 1
        /// The answers of all calls below this one are there.
        var answeredBelow: UInt64 = 1
        var answered: Set<UInt64> = []
        var leases: [Lease: HeldLease] = [:]
        /// What the last new owner said of the leases.
        var verdicts: [Lease: LeaseVerdict] = [:]

        mutating func advance() {
            while self.answered.remove(self.answeredBelow) != nil { self.answeredBelow += 1 }
        }
    }

    private struct Lease: Hashable {
        var sequence: UInt64
        var lease: UInt64

        init(_ held: HeldLease) { (self.sequence, self.lease) = (held.sequence, held.lease) }

        init?(_ receipt: Receipt) {
            guard case .local(_, let sequence, let lease) = receipt.token else { return nil }
            (self.sequence, self.lease) = (sequence, lease)
        }
    }

    private let state = Locked<State>(State())

    // MARK: Collectors

    func addCollector(_ record: CollectorRecord) -> UInt64 {
        self.state.withLock { state in
            defer { state.nextCollector += 1 }
            state.collectors[state.nextCollector] = record
            return state.nextCollector
        }
    }

    func removeCollector(_ number: UInt64) {
        self.state.withLock { $0.collectors[number] = nil }
    }

    func note(_ status: CollectorStatus, of collector: UInt64) {
        self.state.withLock { state in
            state.collectors[collector]?.isAsleep = status.isAsleep
            state.collectors[collector]?.maxInFlight = status.maxInFlight
        }
    }

    /// The collectors, for an owner that does not know them.
    var collectors: [UInt64: CollectorRecord] { self.state.withLock { $0.collectors } }

    // MARK: Calls

    /// A number that no other call of this process has.
    func nextCall() -> UInt64 {
        self.state.withLock { state in
            // Only calls that publish are waited for.
            let number = state.nextCall
            state.nextCall += 1
            state.answered.insert(number)
            state.advance()
            return number
        }
    }

    /// Names a call that may be repeated, until ``noteAnswered(_:)``.
    func nextOrigin() -> CallOrigin {
        self.state.withLock { state in
            defer { state.nextCall += 1 }
            return CallOrigin(client: self.client, call: state.nextCall, answeredBelow: state.answeredBelow)
        }
    }

    func noteAnswered(_ origin: CallOrigin) {
        self.state.withLock { state in
            state.answered.insert(origin.call)
            state.advance()
        }
    }

    // MARK: Leases

    func note(_ deliveries: [LeasedDelivery], collector: UInt64) {
        self.state.withLock { state in
            for leased in deliveries {
                guard let lease = Lease(leased.delivery.receipt) else { continue }
                state.leases[lease] = HeldLease(
                    sequence: lease.sequence,
                    lease: lease.lease,
                    deadline: leased.deadline,
                    collector: collector
                )
            }
        }
    }

    func noteEnded(_ outcomes: some Sequence<(Completion, Result<Void, StalkError>)>) {
        self.state.withLock { state in
            for (completion, outcome) in outcomes {
                guard let lease = Lease(completion.receipt) else { continue }
                switch outcome {
                case .success: state.leases[lease] = nil
                case .failure(let error) where error.code == .staleReceipt: state.leases[lease] = nil
                case .failure: break
                }
            }
        }
    }

    func noteExtended(_ outcomes: some Sequence<(Receipt, Result<Void, StalkError>)>, until deadline: BootTime) {
        self.state.withLock { state in
            for case (let receipt, .success) in outcomes {
                if let lease = Lease(receipt) { state.leases[lease]?.deadline = deadline }
            }
        }
    }

    /// The leases that are not over.
    func leases(at now: BootTime) -> [HeldLease] {
        self.state.withLock { state in
            state.leases = state.leases.filter { $0.value.deadline > now }
            return state.leases.values.sorted { $0.lease < $1.lease }
        }
    }

    /// Keeps what a new owner said of leases.
    func note(_ verdicts: [LeaseVerdict], of leases: [HeldLease]) {
        self.state.withLock { state in
            // What is not asked for soon is not asked for any more.
            if state.verdicts.count > 65_536 { state.verdicts = [:] }
            for (held, verdict) in zip(leases, verdicts) where verdict != .adopted {
                state.verdicts[Lease(held)] = verdict
                state.leases[Lease(held)] = nil
            }
        }
    }

    /// Whether an earlier owner ended a delivery, so that ending it again is done.
    func wasEnded(_ receipt: Receipt) -> Bool {
        guard let lease = Lease(receipt) else { return false }
        return self.state.withLock { $0.verdicts[lease] == .ended }
    }

    /// What to tell a new owner.
    func greeting(at now: BootTime) -> WireGreeting {
        WireGreeting(
            client: self.client,
            collectors: self.collectors.sorted { $0.key < $1.key }.map { number, record in
                WireGreeting.Collector(number: number, state: record)
            },
            leases: self.leases(at: now)
        )
    }
}
