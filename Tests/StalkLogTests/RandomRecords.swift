import StalkCore
import StalkLog
import StalkTesting

extension LogRecord {
    /// The record as it stands in a frame.
    var encoded: [UInt8] {
        var writer = ByteWriter()
        self.write(to: &writer)
        return writer.bytes
    }

    static func decode(_ bytes: [UInt8]) -> Result<LogRecord, Unreadable> {
        bytes.withUnsafeBytes { buffer in
            var reader = ByteReader(buffer)
            do throws(Unreadable) {
                return .success(try LogRecord(reading: &reader))
            } catch {
                return .failure(error)
            }
        }
    }

    /// One record of each kind.
    static func randomOfEachKind(using generator: inout SeededGenerator) -> [LogRecord] {
        [
            .session(
                SessionRecord(
                    epoch: UInt32(truncatingIfNeeded: generator.next()),
                    bootID: .random(40, using: &generator),
                    clockOffset: Int64(bitPattern: generator.next())
                )
            ),
            .createQueue(
                number: UInt32(truncatingIfNeeded: generator.next()),
                name: QueueName(stored: .randomName(1 + generator.below(200), using: &generator))
            ),
            .publish(.random(using: &generator)),
            .take(.random(using: &generator)),
            .acknowledge(.random(using: &generator)),
            .retry(
                RetryRecord(
                    sequence: generator.next(),
                    failedAt: Int64(bitPattern: generator.next()),
                    dueAt: Int64(bitPattern: generator.next()),
                    reason: .random(60, using: &generator)
                )
            ),
            .release(.random(using: &generator)),
            .deadLetter(
                DeadLetterRecord(
                    sequence: generator.next(),
                    failedAt: Int64(bitPattern: generator.next()),
                    dueAt: Int64(bitPattern: generator.next()),
                    target: UInt32(truncatingIfNeeded: generator.next()),
                    reason: .random(60, using: &generator)
                )
            ),
            .redrive(at: Int64(bitPattern: generator.next()), messages: .random(using: &generator)),
            .move(
                at: Int64(bitPattern: generator.next()),
                to: UInt32(truncatingIfNeeded: generator.next()),
                messages: .random(using: &generator)
            ),
            .call(
                CallRecord(
                    client: generator.next(),
                    call: generator.next(),
                    answeredBelow: generator.next(),
                    position: UInt32(truncatingIfNeeded: generator.next()),
                    first: generator.next(),
                    count: UInt32(truncatingIfNeeded: generator.next())
                )
            ),
        ]
    }
}

extension PublishRecord {
    static func random(using generator: inout SeededGenerator) -> PublishRecord {
        var headers = Headers()
        for _ in 0..<generator.below(4) {
            headers[.randomName(1 + generator.below(10), using: &generator)] = .random(20, using: &generator)
        }
        return PublishRecord(
            sequence: generator.next(),
            queue: UInt32(truncatingIfNeeded: generator.next()),
            publishedAt: Int64(bitPattern: generator.next()),
            dueAt: Int64(bitPattern: generator.next()),
            isScheduled: generator.below(2) == 0,
            priority: UInt8(generator.below(256)),
            headers: headers,
            extensions: (0..<generator.below(8)).map { _ in UInt8(generator.below(256)) },
            body: (0..<generator.below(100)).map { _ in UInt8(generator.below(256)) }
        )
    }
}

extension [UInt64] {
    fileprivate static func random(using generator: inout SeededGenerator) -> [UInt64] {
        (0..<generator.below(12)).map { _ in generator.next() }
    }
}

extension String {
    /// Up to so many characters, of one to four bytes.
    fileprivate static func random(_ count: Int, using generator: inout SeededGenerator) -> String {
        let characters = Array("abc \n\u{0}äß€語🐇")
        return String((0..<generator.below(count + 1)).map { _ in characters[generator.below(characters.count)] })
    }

    fileprivate static func randomName(_ count: Int, using generator: inout SeededGenerator) -> String {
        let characters = Array("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_")
        return String((0..<count).map { _ in characters[generator.below(characters.count)] })
    }
}
