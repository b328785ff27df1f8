// What a client asks the owner of the store.

internal import StalkCore
internal import StalkPlatform

/// What a client says of itself when it connects, also of what it got from an owner that has gone.
struct WireGreeting: Sendable {
    struct Collector: Hashable, Sendable {
        var number: UInt64
        var state: CollectorRecord
    }

    /// The versions of the protocol that the client speaks.
    var versions = Wire.versions
    /// Chosen at random; the same at every owner.
    var client: UInt64
    var collectors: [Collector] = []
    /// The leases that it holds; each names one of its own collectors.
    var leases: [HeldLease] = []
}

/// One request.
enum WireRequest: Sendable {
    case greeting(WireGreeting)
    case publish(QueueName, [Message], Durability, answeredBelow: UInt64)
    case take(TakeRequest, collector: UInt64, Durability)
    /// Ends the wait of the call with this number; that one is answered.
    case cancel(UInt64)
    case finish([Completion], QueueName, errorQueue: QueueName?, Durability)
    case extend([Receipt], QueueName, lease: Duration)
    /// Makes a collector known; not answered.
    case addCollector(UInt64, CollectorRecord)
    /// Forgets one; not answered.
    case removeCollector(UInt64)
    case control(CollectorCommand, collector: UInt64)
    case drained(QueueName)
    case order(StoreOrder)
    /// Asks for a sign of life.
    case ping
    /// The client goes for good, and repeats nothing; what it holds comes again.
    case goodbye
}

extension WireRequest {
    fileprivate enum Kind: UInt8 {
        case greeting = 1
        case publish, take, cancel, finish, extend, addCollector, removeCollector, control, drained, order, ping,
            goodbye
    }

    fileprivate var kind: Kind {
        switch self {
        case .greeting: .greeting
        case .publish: .publish
        case .take: .take
        case .cancel: .cancel
        case .finish: .finish
        case .extend: .extend
        case .addCollector: .addCollector
        case .removeCollector: .removeCollector
        case .control: .control
        case .drained: .drained
        case .order: .order
        case .ping: .ping
        case .goodbye: .goodbye
        }
    }

    /// Writes the request as a frame.
    func write(call: UInt64, to writer: inout ByteWriter) {
        WireFrame.write(call, self.kind.rawValue, to: &writer) { writer in self.writeContents(to: &writer) }
    }

    private func writeContents(to writer: inout ByteWriter) {
        switch self {
        case .greeting(let greeting): greeting.write(to: &writer)
        case .publish(let queue, let messages, let durability, let answeredBelow):
            writer.writeQueue(queue)
            writer.write(durability)
            writer.write(answeredBelow)
            writer.write(UInt32(messages.count))
            for message in messages { writer.write(message) }
        case .take(let request, let collector, let durability):
            writer.write(collector)
            writer.write(UInt32(clamping: request.max))
            writer.writeDuration(request.wait)
            writer.writeDuration(request.lease)
            writer.write(durability)
        case .cancel(let call): writer.write(call)
        case .finish(let completions, let queue, let errorQueue, let durability):
            writer.writeQueue(queue)
            writer.writeShortText(errorQueue?.rawValue ?? "")
            writer.write(durability)
            writer.write(UInt32(completions.count))
            for completion in completions {
                writer.write(completion.receipt)
                writer.write(completion.disposition)
            }
        case .extend(let receipts, let queue, let lease):
            writer.writeQueue(queue)
            writer.writeDuration(lease)
            writer.write(UInt32(receipts.count))
            for receipt in receipts { writer.write(receipt) }
        case .addCollector(let number, let state):
            writer.write(number)
            state.write(to: &writer)
        case .removeCollector(let number): writer.write(number)
        case .control(let command, let collector):
            writer.write(collector)
            command.write(to: &writer)
        case .drained(let queue): writer.writeQueue(queue)
        case .order(let order): order.write(to: &writer)
        case .ping, .goodbye: break
        }
    }

    /// Reads the request that a frame holds.
    ///
    /// - Throws: ``Wire/Malformed`` for what no version of this protocol sends, or one that is not known here.
    init(_ frame: WireFrame) throws(Wire.Malformed) {
        guard let kind = Kind(rawValue: frame.kind) else { throw Wire.Malformed() }
        self = try frame.read { reader throws(Wire.Malformed) in try Self.read(kind, &reader) }
    }

    private static func read(_ kind: Kind, _ reader: inout ByteReader) throws(Wire.Malformed) -> WireRequest {
        switch kind {
        case .greeting: return .greeting(try WireGreeting(reading: &reader))
        case .publish:
            let queue = try reader.queue()
            let durability = try reader.durability()
            let answeredBelow = try reader.number(UInt64.self)
            var messages: [Message] = []
            let count = try reader.count(ofItemsFrom: 16)
            messages.reserveCapacity(count)
            for _ in 0..<count { messages.append(try reader.message()) }
            return .publish(queue, messages, durability, answeredBelow: answeredBelow)
        case .take:
            let collector = try reader.number(UInt64.self)
            let max = Int(try reader.number(UInt32.self))
            let wait = try reader.duration()
            let lease = try reader.duration()
            let request = TakeRequest(max: max, wait: wait, lease: lease)
            return .take(request, collector: collector, try reader.durability())
        case .cancel: return .cancel(try reader.number())
        case .finish:
            let queue = try reader.queue()
            let errorQueue = try reader.optionalQueue()
            let durability = try reader.durability()
            var completions: [Completion] = []
            for _ in 0..<(try reader.count(ofItemsFrom: 6)) {
                let receipt = try reader.receipt()
                completions.append(Completion(receipt, try reader.disposition()))
            }
            return .finish(completions, queue, errorQueue: errorQueue, durability)
        case .extend:
            let queue = try reader.queue()
            let lease = try reader.duration()
            var receipts: [Receipt] = []
            for _ in 0..<(try reader.count(ofItemsFrom: 5)) { receipts.append(try reader.receipt()) }
            return .extend(receipts, queue, lease: lease)
        case .addCollector:
            let number = try reader.number(UInt64.self)
            return .addCollector(number, try CollectorRecord(reading: &reader))
        case .removeCollector: return .removeCollector(try reader.number())
        case .control:
            let collector = try reader.number(UInt64.self)
            return .control(try CollectorCommand(reading: &reader), collector: collector)
        case .drained: return .drained(try reader.queue())
        case .order: return .order(try StoreOrder(reading: &reader))
        case .ping: return .ping
        case .goodbye: return .goodbye
        }
    }
}

extension WireFrame {
    /// Reads all of the contents.
    func read<Value>(
        _ body: (inout ByteReader) throws(Wire.Malformed) -> Value
    ) throws(Wire.Malformed) -> Value {
        do {
            return try self.contents.withUnsafeBytes { bytes in
                var reader = ByteReader(bytes)
                let value = try body(&reader)
                guard reader.remaining == 0 else { throw Wire.Malformed() }
                return value
            }
        } catch {
            throw Wire.Malformed()
        }
    }
}

extension WireGreeting {
    fileprivate func write(to writer: inout ByteWriter) {
        writer.write(Wire.magic)
        writer.write(self.versions.lowerBound)
        writer.write(self.versions.upperBound)
        writer.write(self.client)
        writer.write(UInt32(self.collectors.count))
        for collector in self.collectors {
            writer.write(collector.number)
            collector.state.write(to: &writer)
        }
        writer.write(UInt32(self.leases.count))
        for lease in self.leases {
            writer.write(lease.sequence)
            writer.write(lease.lease)
            writer.write(lease.deadline.nanoseconds)
            writer.write(lease.collector)
        }
    }

    fileprivate init(reading reader: inout ByteReader) throws(Wire.Malformed) {
        guard try reader.number(UInt32.self) == Wire.magic else { throw Wire.Malformed() }
        let lowest = try reader.number(UInt16.self)
        let highest = try reader.number(UInt16.self)
        guard lowest <= highest else { throw Wire.Malformed() }
        self.versions = lowest...highest
        guard self.versions.overlaps(Wire.versions) else {
            // What another version says of itself behind this may look different: it is told that they can't talk.
            self.client = 0
            reader.skipRest()
            return
        }
        self.client = try reader.number()
        for _ in 0..<(try reader.count(ofItemsFrom: 19)) {
            let number = try reader.number(UInt64.self)
            self.collectors.append(Collector(number: number, state: try CollectorRecord(reading: &reader)))
        }
        for _ in 0..<(try reader.count(ofItemsFrom: 32)) {
            let lease = HeldLease(
                sequence: try reader.number(),
                lease: try reader.number(),
                deadline: BootTime(nanoseconds: try reader.number()),
                collector: try reader.number()
            )
            self.leases.append(lease)
        }
    }
}

extension CollectorRecord {
    fileprivate func write(to writer: inout ByteWriter) {
        writer.writeQueue(self.queue)
        writer.write(UInt8(self.isAsleep ? 1 : 0))
        writer.writeOptional(self.maxInFlight)
    }

    fileprivate init(reading reader: inout ByteReader) throws(Wire.Malformed) {
        self.queue = try reader.queue()
        self.isAsleep = try reader.flag()
        self.maxInFlight = try reader.optionalNumber()
    }
}

extension CollectorCommand {
    fileprivate func write(to writer: inout ByteWriter) {
        switch self {
        case .report: writer.write(UInt8(0))
        case .sleep: writer.write(UInt8(1))
        case .wake: writer.write(UInt8(2))
        case .scale(let most):
            writer.write(UInt8(3))
            writer.write(Int64(most))
        }
    }

    fileprivate init(reading reader: inout ByteReader) throws(Wire.Malformed) {
        switch try reader.number(UInt8.self) {
        case 0: self = .report
        case 1: self = .sleep
        case 2: self = .wake
        case 3: self = .scale(Int(try reader.number(Int64.self)))
        default: throw Wire.Malformed()
        }
    }
}

extension ByteReader {
    fileprivate mutating func skipRest() { _ = try? self.readBuffer(self.remaining) }

    mutating func optionalQueue() throws(Wire.Malformed) -> QueueName? {
        let text = try self.shortText()
        guard !text.isEmpty else { return nil }
        do throws(StalkError) { return try QueueName(text) } catch { throw Wire.Malformed() }
    }
}
