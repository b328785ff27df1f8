// The values of the protocol as bytes: messages, deliveries, receipts, errors, figures.

internal import StalkCore
internal import StalkLog

extension ByteWriter {
    /// A text behind its length in bytes, as 32 bits.
    mutating func writeText(_ text: String) {
        self.write(UInt32(text.utf8.count))
        self.write(text)
    }

    mutating func writeBlob(_ bytes: [UInt8]) {
        self.write(UInt32(bytes.count))
        self.write(bytes)
    }

    /// A duration in nanoseconds; what lies beyond the end of time is its end.
    mutating func writeDuration(_ duration: Duration) {
        self.write(duration.clampedNanoseconds)
    }

    /// A number that may be missing; one below zero asks for as little as zero does, and must not be taken for none.
    mutating func writeOptional(_ number: Int?) {
        self.write(Int64(number.map { Swift.max($0, 0) } ?? -1))
    }

    mutating func writeQueue(_ queue: QueueName) { self.writeShortText(queue.rawValue) }

    mutating func writeID(_ id: MessageID) { self.writeShortText(id.rawValue) }

    mutating func write(_ durability: Durability) { self.write(UInt8(durability == .synced ? 1 : 0)) }

    mutating func write(_ message: Message) {
        self.writeHeaders(message.headers)
        self.writeDuration(message.delay)
        self.writeBlob(message.body)
    }

    /// The headers, which nobody has checked yet; a name that is longer than its length can say is cut, and refused by the
    /// owner all the same.
    mutating func writeHeaders(_ unchecked: Headers) {
        let headers = unchecked.withWritableNames
        self.write(UInt32(headers.isEmpty ? 0 : headers.encodedBytes))
        headers.write(to: &self)
    }

    /// A receipt; one that no local store issued is sent as it is, to be refused by the owner.
    mutating func write(_ receipt: Receipt) {
        switch receipt.token {
        case .local(let store, let sequence, let lease):
            self.write(UInt8(0))
            self.write(store)
            self.write(sequence)
            self.write(lease)
        case .opaque(let text):
            self.write(UInt8(1))
            self.writeText(text)
        }
    }

    mutating func write(_ error: StalkError) {
        self.writeShortText(error.code.description)
        self.writeText(error.message)
    }

    mutating func write(_ disposition: Disposition) {
        switch disposition {
        case .acknowledge: self.write(UInt8(0))
        case .acknowledgeAndPublish(let messages):
            self.write(UInt8(1))
            self.write(UInt32(messages.count))
            for outgoing in messages {
                self.writeQueue(outgoing.queue)
                self.write(outgoing.message)
            }
        case .retry(let delay, let reason):
            self.write(UInt8(2))
            self.writeDuration(delay)
            self.writeText(reason)
        case .deadLetter(let reason):
            self.write(UInt8(3))
            self.writeText(reason)
        case .release: self.write(UInt8(4))
        }
    }
}

extension Headers {
    /// The same with names whose lengths fit into 16 bits.
    fileprivate var withWritableNames: Headers {
        let most = Int(UInt16.max)
        guard self.fields.contains(where: { $0.name.utf8.count > most }) else { return self }
        return Headers(
            stored: self.fields.map { field in
                var field = field
                field.name = field.name.cut(toBytes: most)
                return field
            }
        )
    }
}

extension Duration {
    /// Nanoseconds, held to what 64 bits take.
    fileprivate var clampedNanoseconds: Int64 {
        let (seconds, attoseconds) = self.components
        let (whole, isTooLong) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, isOver) = whole.addingReportingOverflow(attoseconds / 1_000_000_000)
        return isTooLong || isOver ? (seconds < 0 ? .min : .max) : sum
    }
}

extension ByteReader {
    mutating func readLongText() throws(Wire.Malformed) -> String {
        String(decoding: try self.readBlob(), as: UTF8.self)
    }

    mutating func readBlob() throws(Wire.Malformed) -> [UInt8] {
        do throws(Truncated) {
            return try self.readBytes(Int(self.read(UInt32.self)))
        } catch {
            throw Wire.Malformed()
        }
    }

    // One for each type, as in `ByteReader`.
    mutating func number(_: UInt8.Type = UInt8.self) throws(Wire.Malformed) -> UInt8 {
        try self.next { reader throws(Truncated) in try reader.read() }
    }

    mutating func number(_: UInt16.Type = UInt16.self) throws(Wire.Malformed) -> UInt16 {
        try self.next { reader throws(Truncated) in try reader.read() }
    }

    mutating func number(_: UInt32.Type = UInt32.self) throws(Wire.Malformed) -> UInt32 {
        try self.next { reader throws(Truncated) in try reader.read() }
    }

    mutating func number(_: UInt64.Type = UInt64.self) throws(Wire.Malformed) -> UInt64 {
        try self.next { reader throws(Truncated) in try reader.read() }
    }

    mutating func number(_: Int32.Type = Int32.self) throws(Wire.Malformed) -> Int32 {
        try self.next { reader throws(Truncated) in try reader.read() }
    }

    mutating func number(_: Int64.Type = Int64.self) throws(Wire.Malformed) -> Int64 {
        try self.next { reader throws(Truncated) in try reader.read() }
    }

    private mutating func next<Value>(
        _ read: (inout ByteReader) throws(Truncated) -> Value
    ) throws(Wire.Malformed) -> Value {
        do throws(Truncated) { return try read(&self) } catch { throw Wire.Malformed() }
    }

    /// How many items follow; each takes at least some bytes, so that a count can't ask for more memory than was sent.
    mutating func count(ofItemsFrom least: Int) throws(Wire.Malformed) -> Int {
        let count = Int(try self.number(UInt32.self))
        guard count <= self.remaining / least else { throw Wire.Malformed() }
        return count
    }

    mutating func optionalNumber() throws(Wire.Malformed) -> Int? {
        let number = try self.number(Int64.self)
        guard number >= -1 else { throw Wire.Malformed() }
        return number == -1 ? nil : Int(number)
    }

    mutating func flag() throws(Wire.Malformed) -> Bool {
        let byte = try self.number(UInt8.self)
        guard byte <= 1 else { throw Wire.Malformed() }
        return byte == 1
    }

    mutating func duration() throws(Wire.Malformed) -> Duration { .nanoseconds(try self.number(Int64.self)) }

    mutating func timestamp() throws(Wire.Malformed) -> Timestamp {
        Timestamp(millisecondsSince1970: try self.number())
    }

    mutating func shortText() throws(Wire.Malformed) -> String {
        do throws(Truncated) { return try self.readShortText() } catch { throw Wire.Malformed() }
    }

    mutating func queue() throws(Wire.Malformed) -> QueueName {
        let text = try self.shortText()
        do throws(StalkError) { return try QueueName(text) } catch { throw Wire.Malformed() }
    }

    mutating func id() throws(Wire.Malformed) -> MessageID { MessageID(try self.shortText()) }

    mutating func durability() throws(Wire.Malformed) -> Durability { try self.flag() ? .synced : .written }

    mutating func headers() throws(Wire.Malformed) -> Headers {
        do {
            let count = try Int(self.read(UInt32.self))
            return count == 0 ? [:] : try Headers(reading: self.readBuffer(count))
        } catch {
            throw Wire.Malformed()
        }
    }

    mutating func message() throws(Wire.Malformed) -> Message {
        let headers = try self.headers()
        let delay = try self.duration()
        return Message(try self.readBlob(), headers: headers, delay: delay)
    }

    mutating func receipt() throws(Wire.Malformed) -> Receipt {
        guard try self.flag() else {
            return Receipt(
                token: .local(store: try self.number(), sequence: try self.number(), lease: try self.number())
            )
        }
        return Receipt(token: .opaque(try self.readLongText()))
    }

    /// An error; a code that this version does not know is one that can't be acted on.
    mutating func error() throws(Wire.Malformed) -> StalkError {
        let code = StalkError.Code(named: try self.shortText()) ?? .unsupported
        return StalkError(code, try self.readLongText())
    }

    mutating func disposition() throws(Wire.Malformed) -> Disposition {
        switch try self.number(UInt8.self) {
        case 0: return .acknowledge
        case 1:
            var messages: [OutgoingMessage] = []
            for _ in 0..<(try self.count(ofItemsFrom: 18)) {
                let queue = try self.queue()
                messages.append(OutgoingMessage(try self.message(), to: queue))
            }
            return .acknowledgeAndPublish(messages)
        case 2:
            let delay = try self.duration()
            return .retry(after: delay, reason: try self.readLongText())
        case 3: return .deadLetter(reason: try self.readLongText())
        case 4: return .release
        default: throw Wire.Malformed()
        }
    }
}
