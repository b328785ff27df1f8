// Writing the journal: each event leaves the process before the next step is made.

internal import StalkCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// Writes events to standard output at once, and watches over what is held.
final class TortureJournal: Sendable {
    private struct Held {
        var lease: ContinuousClock.Instant
        /// Which delivery it is; an older one must not end a newer one's time.
        var attempt: Int
    }

    private struct State {
        /// When messages may come at the earliest, by their numbers.
        var due: [UInt64: ContinuousClock.Instant] = [:]
        var held: [UInt64: Held] = [:]
        var ended = 0
        var outstanding = 0
        var hasFailed = false
    }

    private let descriptor: Int32
    /// What each line begins with when several processes write the journal.
    private let mark: String
    private let state = Locked(State())
    private let lock = Locked(())

    /// Begins a journal.
    ///
    /// - Parameter speaker: The number of this process, when several write the journal.
    init(descriptor: Int32 = STDOUT_FILENO, speaker: UInt64? = nil) {
        self.descriptor = descriptor
        self.mark = speaker.map { "@\($0) " } ?? ""
    }

    /// Writes events, with one write of the system as long as nothing is in its way.
    ///
    /// A journal that can't be written is worth nothing, so that ends the process.
    func note(_ events: [TortureEvent]) {
        var text = ""
        for event in events {
            if case .life = event { text += "\n" }
            text += "\(self.mark)\(event)\n"
        }
        let bytes = Array(text.utf8)
        self.lock.withLock { _ in
            var written = 0
            while written < bytes.count {
                let count = bytes.withUnsafeBytes { buffer in
                    let rest = UnsafeRawBufferPointer(rebasing: buffer[written...])
                    return write(self.descriptor, rest.baseAddress, rest.count)
                }
                if count < 0, errno == EINTR { continue }
                guard count > 0 else {
                    StandardError.note("The journal can't be written: \(errorText(errno)).")
                    _exit(3)
                }
                written += count
            }
        }
    }

    func note(_ event: TortureEvent) { self.note([event]) }

    /// Notes that a call failed as a whole.
    ///
    /// - Returns: The code; `nil` for a cancelled call, which is no failure.
    @discardableResult
    func noteFailure(_ error: any Error) -> StalkError.Code? {
        guard let error = error as? StalkError else { return nil }
        self.state.withLock { $0.hasFailed = true }
        self.note(.failed(code: error.code.description, message: error.message))
        return error.code
    }

    /// Whether a call failed.
    var hasFailed: Bool { self.state.withLock { $0.hasFailed } }

    // MARK: Backlog

    /// How many messages wait in the store, as far as this process knows.
    var outstanding: Int { self.state.withLock { $0.outstanding } }
    /// How many messages ended in this process.
    var ended: Int { self.state.withLock { $0.ended } }

    func addOutstanding(_ count: Int) { self.state.withLock { $0.outstanding += count } }

    /// Notes how many messages wait in the store, when others end them too.
    func setOutstanding(_ count: Int) { self.state.withLock { $0.outstanding = count } }

    func addEnded(_ count: Int) {
        self.state.withLock { state in
            state.ended += count
            state.outstanding -= count
        }
    }

    // MARK: Time

    /// Remembers that a message may not come before its delay is over.
    func expect(_ number: UInt64, notBefore instant: ContinuousClock.Instant) {
        self.state.withLock { $0.due[number] = instant }
    }

    /// Notes deliveries, and says so if one came too early.
    func noteTaken(_ deliveries: [Delivery], lease: ContinuousClock.Instant) {
        let now = ContinuousClock.now
        var events: [TortureEvent] = []
        for delivery in deliveries {
            let id = delivery.id.rawValue
            guard let number = TortureMessage.number(in: delivery.headers) else {
                events.append(.wrong(id: id, number: 0))
                continue
            }
            events.append(
                .taken(id: id, attempt: delivery.attempt, number: number, queue: delivery.queue.rawValue)
            )
            if !TortureMessage.isRight(number, body: delivery.body, headers: delivery.headers) {
                events.append(.wrong(id: id, number: number))
            }
            let early = self.state.withLock { state -> String? in
                let due = state.due.removeValue(forKey: number)
                let held = state.held.updateValue(Held(lease: lease, attempt: delivery.attempt), forKey: number)
                if let due, due > now { return "delivered \(now.duration(to: due)) before its time" }
                if let held, held.lease > now { return "delivered \(now.duration(to: held.lease)) before a lease ends" }
                return nil
            }
            if let early { events.append(.early(id: id, number: number, what: early)) }
        }
        self.note(events)
    }

    /// Forgets that a message is held, before its finish begins.
    func letGo(_ delivery: Delivery) {
        guard let number = TortureMessage.number(in: delivery.headers) else { return }
        self.state.withLock { state in
            if state.held[number]?.attempt == delivery.attempt { state.held[number] = nil }
        }
    }
}
