// How the tables' keys and values stand in bytes. Layout: docs/format.md, "Tables".

internal import StalkCore
internal import StalkIndex
internal import StalkLog

/// A value that can't be what this version wrote although its checksum holds.
private func malformed(_ table: String) -> StalkError {
    StalkError(.corruptValue, "A value of the table \(table) contradicts itself although its checksum holds.")
}

private enum Flags {
    static var scheduled: UInt8 { 1 }
    static var dead: UInt8 { 2 }
    static var leased: UInt8 { 4 }
    static var paused: UInt8 { 1 }
}

/// The record of a message in the table `messages`: what never changes, and where it stood when it was settled.
struct MessageValue {
    var standing: MessageStanding
    var publishedAt: Int64
    var headers: Headers
    var extensions: [UInt8]

    /// Writes what stands before the body's envelope.
    static func write(_ standing: MessageStanding, _ content: MessageContent, to writer: inout ByteWriter) {
        let headerBytes = content.headers.isEmpty ? 0 : content.headers.encodedBytes
        writer.write(standing.queue)
        writer.write(standing.key.priority)
        writer.write(standing.isScheduled ? Flags.scheduled : 0)
        writer.write(content.publishedAt)
        writer.write(standing.key.dueAt)
        writer.write(UInt32(headerBytes))
        writer.write(UInt16(content.extensions.count))
        content.headers.write(to: &writer)
        writer.write(content.extensions)
    }

    /// Reads a record; the envelope is handed to a closure, so that it is not copied.
    static func read<R>(
        _ buffer: UnsafeRawBufferPointer,
        sequence: UInt64,
        _ body: (MessageValue, _ envelope: UnsafeRawBufferPointer) throws(StalkError) -> R
    ) throws(StalkError) -> R {
        var reader = ByteReader(buffer)
        let value: MessageValue
        do throws(ByteReader.Truncated) {
            value = try MessageValue(reading: &reader, sequence: sequence)
        } catch {
            throw malformed("messages")
        }
        return try body(value, UnsafeRawBufferPointer(rebasing: buffer[reader.offset...]))
    }

    private init(reading reader: inout ByteReader, sequence: UInt64) throws(ByteReader.Truncated) {
        let queue = try reader.read(UInt32.self)
        let priority = try reader.read(UInt8.self)
        let flags = try reader.read(UInt8.self)
        self.publishedAt = try reader.read()
        let dueAt = try reader.read(Int64.self)
        let headerBytes = try Int(reader.read(UInt32.self))
        let extensionBytes = try Int(reader.read(UInt16.self))
        self.headers = try Headers(reading: reader.readBuffer(headerBytes))
        self.extensions = try reader.readBytes(extensionBytes)
        self.standing = MessageStanding(
            queue: queue,
            key: OrderKey(priority: priority, dueAt: dueAt, sequence: sequence),
            isScheduled: flags & Flags.scheduled != 0
        )
    }
}

extension MessageStanding {
    /// Whether the record in `messages` can't say all of it, so that one in `states` must.
    var needsState: Bool { self.attempts > 0 || self.isDead || self.diedIn != 0 || !self.failures.isEmpty }

    func write(to writer: inout ByteWriter) {
        writer.write(self.queue)
        writer.write(self.key.priority)
        writer.write(
            (self.isScheduled ? Flags.scheduled : 0) | (self.isDead ? Flags.dead : 0)
                | (self.lease != 0 ? Flags.leased : 0)
        )
        writer.write(self.attempts)
        writer.write(self.key.dueAt)
        writer.write(self.diedIn)
        writer.write(UInt8(self.failures.count))
        for failure in self.failures {
            writer.write(failure.attempt)
            writer.write(failure.at)
            writer.writeShortText(failure.reason)
        }
        if self.lease != 0 { writer.write(self.lease) }
    }

    init(reading buffer: UnsafeRawBufferPointer, sequence: UInt64) throws(StalkError) {
        var reader = ByteReader(buffer)
        do throws(ByteReader.Truncated) {
            try self.init(reading: &reader, sequence: sequence)
        } catch {
            throw malformed("states")
        }
    }

    private init(reading reader: inout ByteReader, sequence: UInt64) throws(ByteReader.Truncated) {
        let queue = try reader.read(UInt32.self)
        let priority = try reader.read(UInt8.self)
        let flags = try reader.read(UInt8.self)
        let attempts = try reader.read(UInt32.self)
        let dueAt = try reader.read(Int64.self)
        let diedIn = try reader.read(UInt32.self)
        var failures: [FailureRecord] = []
        for _ in 0..<(try reader.read(UInt8.self)) {
            let attempt = try reader.read(UInt32.self)
            let at = try reader.read(Int64.self)
            failures.append(FailureRecord(attempt: attempt, at: at, reason: try reader.readShortText()))
        }
        self.init(
            queue: queue,
            key: OrderKey(priority: priority, dueAt: dueAt, sequence: sequence),
            isScheduled: flags & Flags.scheduled != 0,
            isDead: flags & Flags.dead != 0,
            attempts: attempts,
            lease: flags & Flags.leased != 0 ? try reader.read() : 0,
            diedIn: diedIn,
            failures: failures
        )
    }
}

extension SettledQueue {
    func write(to writer: inout ByteWriter) {
        writer.writeShortText(self.name.rawValue)
        for figure in [self.ready, self.delayed, self.dead, self.bytes] { writer.write(Int64(figure)) }
        // Left out where nothing is set, so that a queue that was never paused stands as it always did.
        if self.isPaused { writer.write(Flags.paused) }
    }

    init(reading buffer: UnsafeRawBufferPointer, number: UInt32) throws(StalkError) {
        var reader = ByteReader(buffer)
        do throws(ByteReader.Truncated) {
            let name = QueueName(stored: try reader.readShortText())
            self.init(number: number, name: name)
            self.ready = try Int(reader.read(Int64.self))
            self.delayed = try Int(reader.read(Int64.self))
            self.dead = try Int(reader.read(Int64.self))
            self.bytes = try Int(reader.read(Int64.self))
            if reader.remaining > 0 { self.isPaused = try reader.read(UInt8.self) & Flags.paused != 0 }
        } catch {
            throw malformed("queues")
        }
    }
}

extension StoreMeta {
    func write(to writer: inout ByteWriter) {
        writer.write(Self.formatVersion)
        writer.write(self.store)
        writer.write(self.settledFrame)
        writer.write(self.nextSequence)
        writer.write(self.nextQueue)
        writer.write(self.epoch)
        writer.write(self.releasedThrough.dueAt)
        writer.write(self.releasedThrough.sequence)
        writer.write(self.storeTime)
        writer.write(self.clockOffset)
        writer.writeShortText(self.bootID)
        writer.write(self.nextLease)
        for record in self.calls.records { record.write(to: &writer) }
    }

    init(reading buffer: UnsafeRawBufferPointer) throws(StalkError) {
        var reader = ByteReader(buffer)
        guard let version = try? reader.read(UInt32.self) else { throw malformed("meta") }
        guard version <= Self.formatVersion else { throw StalkError.newerStore(found: version) }
        do throws(ByteReader.Truncated) {
            try self.init(reading: &reader)
        } catch {
            throw malformed("meta")
        }
    }

    private init(reading reader: inout ByteReader) throws(ByteReader.Truncated) {
        self.init(store: try reader.read())
        self.settledFrame = try reader.read()
        self.nextSequence = try reader.read()
        self.nextQueue = try reader.read()
        self.epoch = try reader.read()
        self.releasedThrough.dueAt = try reader.read()
        self.releasedThrough.sequence = try reader.read()
        self.storeTime = try reader.read()
        self.clockOffset = try reader.read()
        self.bootID = try reader.readShortText()
        // Early stores of format 1 end here.
        guard reader.remaining > 0 else { return }
        self.nextLease = try reader.read()
        while reader.remaining > 0 { self.calls.note(try CallRecord(reading: &reader)) }
    }
}

extension StalkError {
    static func newerStore(found: UInt32) -> StalkError {
        StalkError(
            .newerFormat,
            "The store has format \(found), this version of Stalk reads up to \(StoreMeta.formatVersion): "
                + "use the newer version of Stalk. Nothing was changed."
        )
    }
}

// MARK: - Keys

extension KeyBuilder {
    /// Builds the key of a message: its number.
    mutating func setMessage(_ sequence: UInt64) {
        self.reset()
        self.append(sequence)
    }

    /// Builds the key of a place in line: queue, priority, due time, number.
    mutating func setPlace(_ queue: UInt32, _ key: OrderKey) {
        self.reset()
        self.append(queue)
        self.append(key.priority)
        self.append(key.dueAt)
        self.append(key.sequence)
    }

    /// Builds the key of a place in the schedule: due time, number.
    mutating func setSchedule(_ key: ScheduleKey) {
        self.reset()
        self.append(key.dueAt)
        self.append(key.sequence)
    }

    /// The key of a message.
    static func message(_ sequence: UInt64) -> [UInt8] {
        var builder = KeyBuilder()
        builder.setMessage(sequence)
        return builder.bytes
    }

    /// The key of a queue: its number.
    static func queue(_ number: UInt32) -> [UInt8] {
        var builder = KeyBuilder()
        builder.append(number)
        return builder.bytes
    }

    /// The key of a place in line.
    static func place(_ queue: UInt32, _ key: OrderKey) -> [UInt8] {
        var builder = KeyBuilder()
        builder.setPlace(queue, key)
        return builder.bytes
    }

    /// The key of a place in the schedule.
    static func schedule(_ key: ScheduleKey) -> [UInt8] {
        var builder = KeyBuilder()
        builder.setSchedule(key)
        return builder.bytes
    }
}

extension KeyReader {
    /// The queue and the place in line that a key says.
    static func place(_ key: UnsafeRawBufferPointer) throws(StalkError) -> (queue: UInt32, key: OrderKey) {
        var reader = KeyReader(key)
        let queue = try reader.readUInt32()
        let priority = try reader.readUInt8()
        let dueAt = try reader.readInt64()
        return (queue, OrderKey(priority: priority, dueAt: dueAt, sequence: try reader.readUInt64()))
    }

    /// The place in the schedule that a key says.
    static func schedule(_ key: UnsafeRawBufferPointer) throws(StalkError) -> ScheduleKey {
        var reader = KeyReader(key)
        let dueAt = try reader.readInt64()
        return ScheduleKey(dueAt: dueAt, sequence: try reader.readUInt64())
    }
}
