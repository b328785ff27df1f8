package import StalkCore

extension LogRecord {
    fileprivate enum Kind: UInt8 {
        case session = 1
        case createQueue, publish, take, acknowledge, retry, release, deadLetter, redrive, move, call
    }

    /// Why a record can't be read.
    package enum Unreadable: Error, Hashable {
        /// Its bytes contradict themselves.
        case malformed
        /// It uses something that this version does not know.
        case unknown(kind: UInt8, flags: UInt8)
    }

    fileprivate static let scheduledFlag: UInt8 = 1

    /// Writes the record behind its length.
    package func write(to writer: inout ByteWriter) {
        let start = writer.count
        writer.write(UInt32(0))
        switch self {
        case .session(let record): record.write(to: &writer)
        case .createQueue(let number, let name):
            writer.write(Kind.createQueue.rawValue)
            writer.write(number)
            writer.write(name.rawValue)
        case .publish(let record): record.write(to: &writer)
        case .take(let sequences): Self.write(.take, sequences, to: &writer)
        case .acknowledge(let sequences): Self.write(.acknowledge, sequences, to: &writer)
        case .retry(let record): record.write(to: &writer)
        case .release(let sequences): Self.write(.release, sequences, to: &writer)
        case .deadLetter(let record): record.write(to: &writer)
        case .redrive(let time, let sequences):
            writer.write(Kind.redrive.rawValue)
            writer.write(time)
            for sequence in sequences { writer.write(sequence) }
        case .move(let time, let target, let sequences):
            writer.write(Kind.move.rawValue)
            writer.write(time)
            writer.write(target)
            for sequence in sequences { writer.write(sequence) }
        case .call(let record):
            writer.write(Kind.call.rawValue)
            record.write(to: &writer)
        }
        writer.overwrite(at: start, with: UInt32(writer.count - start - 4))
    }

    private static func write(_ kind: Kind, _ sequences: [UInt64], to writer: inout ByteWriter) {
        writer.write(kind.rawValue)
        for sequence in sequences { writer.write(sequence) }
    }

    /// Reads the record that stands next.
    package init(reading reader: inout ByteReader) throws(Unreadable) {
        do {
            let length = try reader.read(UInt32.self)
            var contents = ByteReader(try reader.readBuffer(Int(length)))
            let kind = try contents.read(UInt8.self)
            self = try Self.read(kind, &contents)
            guard contents.remaining == 0 else { throw Unreadable.malformed }
        } catch let error as Unreadable {
            throw error
        } catch {
            throw .malformed
        }
    }

    private static func read(_ kind: UInt8, _ reader: inout ByteReader) throws -> LogRecord {
        switch Kind(rawValue: kind) {
        case .session: return try .session(SessionRecord(reading: &reader))
        case .createQueue:
            let number = try reader.read(UInt32.self)
            let text = try reader.readText(reader.remaining)
            guard let name = try? QueueName(text) else { throw Unreadable.malformed }
            return .createQueue(number: number, name: name)
        case .publish: return try .publish(PublishRecord(reading: &reader))
        case .take: return try .take(Self.readSequences(&reader))
        case .acknowledge: return try .acknowledge(Self.readSequences(&reader))
        case .retry: return try .retry(RetryRecord(reading: &reader))
        case .release: return try .release(Self.readSequences(&reader))
        case .deadLetter: return try .deadLetter(DeadLetterRecord(reading: &reader))
        case .redrive:
            let time = try reader.read(Int64.self)
            return try .redrive(at: time, messages: Self.readSequences(&reader))
        case .move:
            let time = try reader.read(Int64.self)
            let target = try reader.read(UInt32.self)
            return try .move(at: time, to: target, messages: Self.readSequences(&reader))
        case .call: return try .call(CallRecord(reading: &reader))
        case nil: throw Unreadable.unknown(kind: kind, flags: 0)
        }
    }

    private static func readSequences(_ reader: inout ByteReader) throws -> [UInt64] {
        guard reader.remaining % 8 == 0 else { throw Unreadable.malformed }
        var sequences: [UInt64] = []
        sequences.reserveCapacity(reader.remaining / 8)
        while reader.remaining > 0 { sequences.append(try reader.read()) }
        return sequences
    }
}

extension SessionRecord {
    fileprivate func write(to writer: inout ByteWriter) {
        writer.write(LogRecord.Kind.session.rawValue)
        writer.write(self.epoch)
        writer.write(self.clockOffset)
        writer.write(self.bootID)
    }

    fileprivate init(reading reader: inout ByteReader) throws {
        self.epoch = try reader.read()
        self.clockOffset = try reader.read()
        self.bootID = try reader.readText(reader.remaining)
    }
}

extension PublishRecord {
    /// An upper bound of what the record takes in the log.
    package static func encodedBytes(headers: Headers, bodyBytes: Int) -> Int {
        48 + (headers.isEmpty ? 0 : headers.encodedBytes) + bodyBytes
    }

    fileprivate func write(to writer: inout ByteWriter) {
        writer.write(LogRecord.Kind.publish.rawValue)
        writer.write(self.isScheduled ? LogRecord.scheduledFlag : 0)
        writer.write(self.priority)
        writer.write(self.queue)
        writer.write(self.sequence)
        writer.write(self.publishedAt)
        writer.write(self.dueAt)
        writer.write(UInt32(self.headers.isEmpty ? 0 : self.headers.encodedBytes))
        writer.write(UInt16(self.extensions.count))
        self.headers.write(to: &writer)
        writer.write(self.extensions)
        writer.write(self.body)
    }

    fileprivate init(reading reader: inout ByteReader) throws {
        let flags = try reader.read(UInt8.self)
        guard flags & ~LogRecord.scheduledFlag == 0 else {
            throw LogRecord.Unreadable.unknown(kind: LogRecord.Kind.publish.rawValue, flags: flags)
        }
        self.isScheduled = flags & LogRecord.scheduledFlag != 0
        self.priority = try reader.read()
        self.queue = try reader.read()
        self.sequence = try reader.read()
        self.publishedAt = try reader.read()
        self.dueAt = try reader.read()
        let headerBytes = try Int(reader.read(UInt32.self))
        let extensionBytes = try Int(reader.read(UInt16.self))
        self.headers = try Headers(reading: reader.readBuffer(headerBytes))
        self.extensions = try reader.readBytes(extensionBytes)
        self.body = try reader.readBytes(reader.remaining)
    }
}

extension CallRecord {
    package func write(to writer: inout ByteWriter) {
        writer.write(self.client)
        writer.write(self.call)
        writer.write(self.answeredBelow)
        writer.write(self.position)
        writer.write(self.first)
        writer.write(self.count)
    }

    package init(reading reader: inout ByteReader) throws(ByteReader.Truncated) {
        self.client = try reader.read()
        self.call = try reader.read()
        self.answeredBelow = try reader.read()
        self.position = try reader.read()
        self.first = try reader.read()
        self.count = try reader.read()
    }
}

extension RetryRecord {
    fileprivate func write(to writer: inout ByteWriter) {
        writer.write(LogRecord.Kind.retry.rawValue)
        writer.write(self.sequence)
        writer.write(self.failedAt)
        writer.write(self.dueAt)
        writer.write(self.reason)
    }

    fileprivate init(reading reader: inout ByteReader) throws {
        self.sequence = try reader.read()
        self.failedAt = try reader.read()
        self.dueAt = try reader.read()
        self.reason = try reader.readText(reader.remaining)
    }
}

extension DeadLetterRecord {
    fileprivate func write(to writer: inout ByteWriter) {
        writer.write(LogRecord.Kind.deadLetter.rawValue)
        writer.write(self.sequence)
        writer.write(self.failedAt)
        writer.write(self.dueAt)
        writer.write(self.target)
        writer.write(self.reason)
    }

    fileprivate init(reading reader: inout ByteReader) throws {
        self.sequence = try reader.read()
        self.failedAt = try reader.read()
        self.dueAt = try reader.read()
        self.target = try reader.read()
        self.reason = try reader.readText(reader.remaining)
    }
}
