// What the owner of the store answers.

internal import StalkCore
internal import StalkPlatform

/// What the owner says to a client that greets it.
struct WireWelcome: Hashable, Sendable {
    /// The version that both speak from now on.
    var version: UInt16 = Wire.versions.upperBound
    /// The store's number.
    var store: UInt64
    /// Counts the owners of the store.
    var epoch: UInt32
    /// The largest body that this owner takes, in bytes.
    var maxBodyBytes: Int
    /// What became of the leases in the greeting, in their order.
    var verdicts: [LeaseVerdict]
}

/// A delivery, and when its lease ends.
struct LeasedDelivery: Sendable {
    var delivery: Delivery
    var deadline: BootTime
}

/// One answer.
enum WireAnswer: Sendable {
    case welcome(WireWelcome)
    /// The call failed as a whole.
    case failure(StalkError)
    /// The call was cancelled.
    case cancelled
    case published([Result<MessageID, StalkError>])
    case deliveries([LeasedDelivery])
    case outcomes([Result<Void, StalkError>])
    /// What became of an extension, and when the leases end now.
    case extended([Result<Void, StalkError>], deadline: BootTime)
    case status(CollectorStatus)
    case reply(StoreReply)
    /// Messages that belong to the reply, which follows.
    case part(StoreReply)
    /// The number done so far; the reply follows.
    case progress(Int)
}

extension WireAnswer {
    private enum Kind: UInt8 {
        case welcome = 128
        case failure, cancelled, published, deliveries, outcomes, extended, status, reply, part, progress
    }

    private var kind: Kind {
        switch self {
        case .welcome: .welcome
        case .failure: .failure
        case .cancelled: .cancelled
        case .published: .published
        case .deliveries: .deliveries
        case .outcomes: .outcomes
        case .extended: .extended
        case .status: .status
        case .reply: .reply
        case .part: .part
        case .progress: .progress
        }
    }

    /// Whether the call goes on after this answer.
    var isPartial: Bool {
        switch self {
        case .part, .progress: true
        default: false
        }
    }

    /// Writes the answer as a frame.
    func write(call: UInt64, to writer: inout ByteWriter) {
        WireFrame.write(call, self.kind.rawValue, to: &writer) { writer in self.writeContents(to: &writer) }
    }

    private func writeContents(to writer: inout ByteWriter) {
        switch self {
        case .welcome(let welcome): welcome.write(to: &writer)
        case .failure(let error): writer.write(error)
        case .cancelled: break
        case .published(let results):
            writer.write(UInt32(results.count))
            for result in results {
                writer.writeResult(result) { writer, id in writer.write(id.sequence ?? 0) }
            }
        case .deliveries(let deliveries):
            writer.write(UInt32(deliveries.count))
            for leased in deliveries { leased.write(to: &writer) }
        case .outcomes(let results): writer.writeOutcomes(results)
        case .extended(let results, let deadline):
            writer.write(deadline.nanoseconds)
            writer.writeOutcomes(results)
        case .status(let status):
            writer.write(UInt8(status.isAsleep ? 1 : 0))
            writer.writeOptional(status.maxInFlight)
            writer.write(Int64(status.inFlight))
        case .reply(let reply), .part(let reply): reply.write(to: &writer)
        case .progress(let count): writer.write(Int64(count))
        }
    }

    /// Reads the answer that a frame holds.
    ///
    /// - Throws: ``Wire/Malformed`` for what this version of the protocol does not know.
    init(_ frame: WireFrame) throws(Wire.Malformed) {
        guard let kind = Kind(rawValue: frame.kind) else { throw Wire.Malformed() }
        self = try frame.read { reader throws(Wire.Malformed) in try Self.read(kind, &reader) }
    }

    private static func read(_ kind: Kind, _ reader: inout ByteReader) throws(Wire.Malformed) -> WireAnswer {
        switch kind {
        case .welcome: return .welcome(try WireWelcome(reading: &reader))
        case .failure: return .failure(try reader.error())
        case .cancelled: return .cancelled
        case .published:
            var results: [Result<MessageID, StalkError>] = []
            let count = try reader.count(ofItemsFrom: 7)
            results.reserveCapacity(count)
            for _ in 0..<count {
                let result = try reader.result { reader throws(Wire.Malformed) in
                    MessageID(sequence: try reader.number())
                }
                results.append(result)
            }
            return .published(results)
        case .deliveries:
            var deliveries: [LeasedDelivery] = []
            for _ in 0..<(try reader.count(ofItemsFrom: 54)) { deliveries.append(try LeasedDelivery(reading: &reader)) }
            return .deliveries(deliveries)
        case .outcomes: return .outcomes(try reader.outcomes())
        case .extended:
            let deadline = BootTime(nanoseconds: try reader.number())
            return .extended(try reader.outcomes(), deadline: deadline)
        case .status:
            let isAsleep = try reader.flag()
            let most = try reader.optionalNumber()
            return .status(CollectorStatus(isAsleep: isAsleep, maxInFlight: most, inFlight: try reader.int()))
        case .reply: return .reply(try StoreReply(reading: &reader))
        case .part: return .part(try StoreReply(reading: &reader))
        case .progress: return .progress(try reader.int())
        }
    }
}

extension WireWelcome {
    fileprivate func write(to writer: inout ByteWriter) {
        writer.write(self.version)
        writer.write(self.store)
        writer.write(self.epoch)
        writer.write(Int64(self.maxBodyBytes))
        writer.write(UInt32(self.verdicts.count))
        for verdict in self.verdicts { writer.write(verdict.rawValue) }
    }

    fileprivate init(reading reader: inout ByteReader) throws(Wire.Malformed) {
        self.version = try reader.number()
        self.store = try reader.number()
        self.epoch = try reader.number()
        self.maxBodyBytes = try reader.int()
        self.verdicts = []
        for _ in 0..<(try reader.count(ofItemsFrom: 1)) {
            guard let verdict = LeaseVerdict(rawValue: try reader.number()) else { throw Wire.Malformed() }
            self.verdicts.append(verdict)
        }
    }
}

extension LeasedDelivery {
    fileprivate func write(to writer: inout ByteWriter) {
        writer.write(self.delivery.receipt)
        writer.write(self.deadline.nanoseconds)
        writer.writeQueue(self.delivery.queue)
        writer.write(UInt32(clamping: self.delivery.attempt))
        writer.write(self.delivery.publishedAt.millisecondsSince1970)
        writer.writeHeaders(self.delivery.headers)
        writer.writeBlob(self.delivery.body)
    }

    fileprivate init(reading reader: inout ByteReader) throws(Wire.Malformed) {
        let receipt = try reader.receipt()
        guard case .local(_, let sequence, _) = receipt.token else { throw Wire.Malformed() }
        self.deadline = BootTime(nanoseconds: try reader.number())
        let queue = try reader.queue()
        let attempt = Int(try reader.number(UInt32.self))
        let publishedAt = try reader.timestamp()
        let headers = try reader.headers()
        self.delivery = Delivery(
            id: MessageID(sequence: sequence),
            queue: queue,
            body: try reader.readBlob(),
            headers: headers,
            attempt: attempt,
            publishedAt: publishedAt,
            receipt: receipt
        )
    }
}

extension ByteWriter {
    fileprivate mutating func writeResult<Value>(
        _ result: Result<Value, StalkError>,
        _ contents: (inout ByteWriter, Value) -> Void
    ) {
        switch result {
        case .success(let value):
            self.write(UInt8(1))
            contents(&self, value)
        case .failure(let error):
            self.write(UInt8(0))
            self.write(error)
        }
    }

    fileprivate mutating func writeOutcomes(_ results: [Result<Void, StalkError>]) {
        self.write(UInt32(results.count))
        for result in results { self.writeResult(result) { _, _ in } }
    }
}

extension ByteReader {
    fileprivate mutating func result<Value>(
        _ contents: (inout ByteReader) throws(Wire.Malformed) -> Value
    ) throws(Wire.Malformed) -> Result<Value, StalkError> {
        try self.flag() ? .success(contents(&self)) : .failure(self.error())
    }

    fileprivate mutating func outcomes() throws(Wire.Malformed) -> [Result<Void, StalkError>] {
        var results: [Result<Void, StalkError>] = []
        for _ in 0..<(try self.count(ofItemsFrom: 1)) {
            results.append(try self.result { _ throws(Wire.Malformed) in })
        }
        return results
    }
}
