// One client of a shared store, as its owner sees it.

internal import Glibc
internal import StalkCore
internal import StalkFiles
internal import StalkPlatform

/// A connection to a client; belongs to the thread that serves.
///
/// Requests are carried out as they come, so those of one client stay in order. Answers come from any thread, through
/// the ``Outbox``.
final class ServedConnection {
    /// The most requests of a client that are carried out at a time.
    static let maxRequests = 1024
    /// How many of them may be orders, each of which may show many messages.
    static let maxOrders = 16
    /// How much of a client's requests, and of answers to it, is kept at a time, in bytes.
    static let maxPendingBytes = 64 << 20

    let socket: LocalSocket
    private let server: StoreServer
    private let owned: OwnedStore
    private let outbox: Outbox
    private var assembler: WireAssembler
    /// What is on its way to the client, and how much of it is sent.
    private var unsent: [UInt8] = []
    private var sentBytes = 0
    /// The client's number, once it has greeted.
    private var client: UInt64?
    /// The engine's numbers of the client's collectors.
    private var collectors: [UInt64: (id: UInt64, queue: QueueName)] = [:]
    /// Collectors that the client forgot while they held something.
    private var formerCollectors: Set<UInt64> = []
    private var hasEnded = false
    /// Whether it is told why it is not served: nothing more is carried out.
    private var isRefused = false

    init(_ socket: LocalSocket, _ server: StoreServer) {
        self.socket = socket
        self.server = server
        self.owned = server.owned
        self.outbox = Outbox(server)
        let bodies = server.owned.capabilities.maxBodyBytes
        self.assembler = WireAssembler(maxFrameBytes: Wire.maxFrameBytes(bodies: bodies))
    }

    var isOver: Bool { self.hasEnded }
    var hasUnsent: Bool { self.sentBytes < self.unsent.count }

    /// Whether more requests are read now: what is not read waits in the socket, and then in the client.
    var wantsRequests: Bool {
        self.server.isOpenForRequests && self.outbox.hasRoom && self.unsent.count < Self.maxPendingBytes
            && self.assembler.waiting <= max(Self.maxPendingBytes, self.assembler.maxFrameBytes)
    }

    // MARK: Bytes

    /// Reads what has arrived and carries it out.
    func receive(_ buffer: UnsafeMutableRawBufferPointer) {
        // A few pieces at a time, so that one client does not keep the others waiting.
        for _ in 0..<4 where !self.hasEnded {
            switch self.socket.receive(into: buffer) {
            case .bytes(let count): self.assembler.append(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            case .later: return self.proceed()
            case .ended: self.hasEnded = true
            }
        }
        self.proceed()
    }

    /// Carries out the requests that are there, as many as there is room for.
    private func proceed() {
        do throws(Wire.Malformed) {
            while !self.hasEnded, !self.isRefused, self.server.isOpenForRequests, self.outbox.hasRoom,
                let frame = try self.assembler.next()
            {
                self.handle(try WireRequest(frame), call: frame.call)
            }
        } catch {
            self.refuse(
                StalkError(
                    .unsupported,
                    "Process \(getpid()), which owns the store, can't read what process \(self.socket.peer) sends: use "
                        + "the same version of Stalk in both."
                )
            )
        }
    }

    /// Sends what is answered, as much as goes now.
    func flush() {
        self.proceed()
        repeat {
            if !self.hasUnsent {
                self.unsent.removeAll(keepingCapacity: self.unsent.capacity <= 1 << 20)
                self.sentBytes = 0
                var writer = ByteWriter(reusing: self.unsent)
                for (call, answer) in self.outbox.take() { answer.write(call: call, to: &writer) }
                self.unsent = writer.take()
            }
            guard self.hasUnsent, !self.hasEnded else { return }
            let sent = self.unsent.withUnsafeBytes { bytes in
                self.socket.send(UnsafeRawBufferPointer(rebasing: bytes[self.sentBytes...]))
            }
            switch sent {
            case .bytes(let count): self.sentBytes += count
            case .later: return
            case .ended: self.hasEnded = true
            }
        } while true
    }

    /// Tells the client why it is not served, and ends the connection.
    func refuse(_ error: StalkError) {
        self.isRefused = true
        self.outbox.answer(0, .failure(error))
        self.flush()
        self.hasEnded = true
    }

    /// Says that the owner is alive, to a client that may wait for an answer.
    func giveSignOfLife() { self.outbox.tell(0, .progress(0)) }

    /// Gives back what the client held: the system says that it has gone.
    func end() {
        self.outbox.end()
        self.abandon()
    }

    private func abandon() {
        let collectors = Set(self.collectors.values.map(\.id)).union(self.formerCollectors)
        (self.collectors, self.formerCollectors) = ([:], [])
        guard !collectors.isEmpty else { return }
        self.owned.core.step { engine, now in engine.abandon(collectors, now: now) }
    }

    // MARK: Requests

    private func handle(_ request: WireRequest, call: UInt64) {
        if case .greeting(let greeting) = request { return self.welcome(greeting, call) }
        guard let client = self.client else { return self.hasEnded = true }
        switch request {
        case .greeting: break
        case .publish(let queue, let messages, let durability, let answeredBelow):
            let origin = CallOrigin(client: client, call: call, answeredBelow: answeredBelow)
            self.publish(PublishCall(queue: queue, messages: messages, durability: durability, origin: origin), call)
        case .take(let request, let collector, let durability): self.take(request, collector, durability, call)
        case .cancel(let other): self.outbox.cancel(other)
        case .finish(let completions, let queue, let errorQueue, let durability):
            let outbox = self.outbox
            outbox.begin(bytes: 0)
            let finish = FinishCall(
                queue: queue,
                errorQueue: errorQueue,
                completions: completions,
                durability: durability
            )
            self.owned.finish(finish) { outbox.answer(call, $0.map { .outcomes($0) }) }
        case .extend(let receipts, let queue, let lease): self.extend(receipts, queue, lease, call)
        case .addCollector(let number, let record): self.add(number, record)
        case .removeCollector(let number): self.remove(number)
        case .control(let command, let collector):
            let id = self.collectors[collector]?.id ?? 0
            let status = self.owned.core.step { engine, now in engine.control(command, of: id, now: now) }
            self.answer(call, .status(status))
        case .drained(let queue): self.drained(queue, call)
        case .order(let order): self.carryOut(order, call)
        case .ping: self.answer(call, .reply(.done))
        case .goodbye:
            self.abandon()
            self.owned.core.look { $0.meta.calls.forget(client) }
            self.answer(call, .reply(.done))
        }
    }

    private func answer(_ call: UInt64, _ answer: WireAnswer) {
        self.outbox.begin(bytes: 0)
        self.outbox.answer(call, answer)
    }

    private func welcome(_ greeting: WireGreeting, _ call: UInt64) {
        let lowest = max(greeting.versions.lowerBound, Wire.versions.lowerBound)
        let highest = min(greeting.versions.upperBound, Wire.versions.upperBound)
        guard lowest <= highest else {
            return self.refuse(.noCommonVersion(greeting.versions, peer: self.socket.peer))
        }
        self.client = greeting.client
        for collector in greeting.collectors { self.add(collector.number, collector.state) }
        let verdicts = greeting.leases.map { lease in
            var lease = lease
            lease.collector = self.collectors[lease.collector]?.id ?? 0
            return self.owned.adopt(lease)
        }
        let (store, epoch) = self.owned.core.look { ($0.meta.store, $0.meta.epoch) }
        let welcome = WireWelcome(
            version: highest,
            store: store,
            epoch: epoch,
            maxBodyBytes: self.owned.capabilities.maxBodyBytes,
            verdicts: verdicts
        )
        self.answer(call, .welcome(welcome))
    }

    private func publish(_ publish: PublishCall, _ call: UInt64) {
        let outbox = self.outbox
        let bytes = publish.messages.reduce(0) { $0 + $1.body.count }
        outbox.begin(bytes: bytes)
        self.owned.publish(publish) { outcome in
            outbox.answer(call, outcome.map { .published($0) }.mapError { $0 }, bytes: bytes)
        }
    }

    private func take(_ request: TakeRequest, _ collector: UInt64, _ durability: Durability, _ call: UInt64) {
        let outbox = self.outbox
        let core = self.owned.core
        outbox.begin(bytes: 0)
        guard let holder = self.collectors[collector] else { return outbox.answer(call, .deliveries([])) }
        let id = core.look { $0.makeID() }
        let taker = Taker(
            id: id,
            collector: holder.id,
            max: request.max,
            maxBytes: Wire.answerBytes,
            lease: request.lease,
            durability: durability,
            isImmediate: request.wait == .zero
        ) { outcome in
            // Later than the lease began, never earlier: nobody else has the message before it is really over.
            let deadline = BootTime(nanoseconds: core.clock.bootTime().nanoseconds).adding(request.lease)
            outbox.answer(
                call,
                outcome.map { .deliveries($0.map { LeasedDelivery(delivery: $0, deadline: deadline) }) }
            )
        }
        let queue = holder.queue
        outbox.note(call) { core.step { engine, _ in engine.cancelTaker(id, of: queue, with: CancellationError()) } }
        core.step { engine, now in engine.take(taker, from: queue, wait: request.wait, now: now) }
    }

    private func extend(_ receipts: [Receipt], _ queue: QueueName, _ lease: Duration, _ call: UInt64) {
        let deadline = self.owned.core.clock.bootTime().adding(lease)
        do throws(StalkError) {
            let results = try self.owned.extendNow(receipts, of: queue, lease: lease)
            self.answer(call, .extended(results, deadline: deadline))
        } catch {
            self.answer(call, .failure(error))
        }
    }

    private func add(_ number: UInt64, _ record: CollectorRecord) {
        guard self.collectors[number] == nil else { return }
        self.collectors[number] = (self.owned.core.look { $0.addCollector(record) }, record.queue)
    }

    private func remove(_ number: UInt64) {
        guard let (id, _) = self.collectors.removeValue(forKey: number) else { return }
        let holdsSomething = self.owned.core.look { engine in
            defer { engine.removeCollector(id) }
            return engine.collectors[id].map { $0.inFlight > 0 } ?? false
        }
        if holdsSomething { self.formerCollectors.insert(id) }
    }

    private func drained(_ queue: QueueName, _ call: UInt64) {
        let outbox = self.outbox
        let core = self.owned.core
        outbox.begin(bytes: 0)
        let id = core.look { $0.makeID() }
        outbox.note(call) { core.step { engine, _ in engine.cancelDrainWait(id, of: queue) } }
        core.step { engine, _ in
            engine.waitUntilDrained(queue, id: id) { outcome in outbox.answer(call, outcome.map { .reply(.done) }) }
        }
    }

    /// Carries out what takes longer than an answer may: in a task that the connection owns.
    private func carryOut(_ order: StoreOrder, _ call: UInt64) {
        let outbox = self.outbox
        let owned = self.owned
        outbox.beginOrder(call)
        let running = OrderTask()
        // Noted first: the task may be over before this thread goes on.
        outbox.note(call) { running.task.withLock { $0?.cancel() } }
        let task = Task {
            do {
                let reply = try await owned.carryOut(order) { outbox.tell(call, .progress($0)) }
                outbox.answer(call, .success(.reply(outbox.tellParts(of: reply, call))))
            } catch {
                outbox.answer(call, .failure(error))
            }
        }
        running.task.withLock { $0 = task }
    }
}

/// Holds the task of an order, for whoever ends it.
private final class OrderTask: Sendable {
    let task = Locked<Task<Void, Never>?>(nil)
}

extension BootTime {
    /// A moment so much later; what lies beyond the end of time is its end.
    func adding(_ duration: Duration) -> BootTime {
        let (seconds, attoseconds) = duration.components
        let (whole, isTooLong) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (part, isOver) = whole.addingReportingOverflow(attoseconds / 1_000_000_000)
        let (sum, isTooLate) = self.nanoseconds.addingReportingOverflow(part)
        return BootTime(nanoseconds: isTooLong || isOver || isTooLate ? .max : sum)
    }
}

extension OwnedStore {
    /// Lets a lease of the last owner go on; blocks for a moment when LMDB must be asked.
    func adopt(_ lease: HeldLease) -> LeaseVerdict {
        let (nanoseconds, isOver) = lease.deadline.nanoseconds.addingReportingOverflow(self.core.clockOffset)
        let deadline = (isOver ? Int64.max : nanoseconds) / 1_000_000
        while true {
            let (epoch, isKnown) = self.core.look { engine in
                (engine.epoch, engine.entries[lease.sequence] != nil)
            }
            let found: SettledMessage?
            do throws(StalkError) {
                found = isKnown ? nil : try self.core.tables.message(lease.sequence)
            } catch {
                return .lost
            }
            let verdict = self.core.step { engine, _ in
                engine.adopt(lease, found: found, epoch: epoch, deadline: deadline)
            }
            if let verdict { return verdict }
        }
    }
}

extension StalkError {
    static func noCommonVersion(_ versions: ClosedRange<UInt16>, peer: Int32) -> StalkError {
        func list(_ range: ClosedRange<UInt16>) -> String {
            range.count == 1 ? "version \(range.lowerBound)" : "versions \(range.lowerBound) to \(range.upperBound)"
        }
        return StalkError(
            .unsupported,
            "Process \(getpid()), which owns the store, speaks \(list(Wire.versions)) of the protocol, and process \(peer) "
                + "\(list(versions)): use the same version of Stalk in both, or end the first one."
        )
    }
}
