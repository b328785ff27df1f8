// The records of a frame.

@testable import StalkCore
@testable import StalkLog

/// Reads records from any bytes; what was read must come out of its own bytes again.
struct RecordFuzzer: Fuzzer {
    var name: String { "record" }

    func complaint(about input: [UInt8], isPlanted: Bool) -> String? {
        input.withUnsafeBytes { buffer in
            var reader = ByteReader(buffer)
            while reader.remaining > 0 {
                let start = reader.offset
                guard let record = try? LogRecord(reading: &reader) else { return nil }
                // The planted bug reads behind the end of a list.
                if isPlanted, case .release(let messages) = record, messages.count > 2 { _ = messages[messages.count] }
                if let complaint = Self.complaint(about: record, from: Array(buffer[start..<reader.offset])) {
                    return complaint
                }
            }
            return nil
        }
    }

    private static func complaint(about record: LogRecord, from bytes: [UInt8]) -> String? {
        var writer = ByteWriter()
        record.write(to: &writer)
        let again = writer.bytes.withUnsafeBytes { buffer in
            var reader = ByteReader(buffer)
            return try? LogRecord(reading: &reader)
        }
        guard again == record else { return "\(record) came back as \(String(describing: again))" }
        // Text that is not UTF-8 can't have been written, and is the one thing that may be read as something else.
        guard writer.bytes == bytes || record.hasReplacedText else {
            return "\(record) was read from \(bytes), but is written as \(writer.bytes)"
        }
        if case .publish(let record) = record {
            let bound = PublishRecord.encodedBytes(headers: record.headers, bodyBytes: record.body.count)
            guard bytes.count <= bound + record.extensions.count || record.headers.hasReplacedText else {
                return "a record of \(bytes.count) bytes has the bound \(bound)"
            }
        }
        return nil
    }
}

extension LogRecord {
    /// Whether a text of it may stand for bytes that are not UTF-8.
    fileprivate var hasReplacedText: Bool {
        switch self {
        case .session(let record): record.bootID.hasReplacement
        case .publish(let record): record.headers.hasReplacedText
        case .retry(let record): record.reason.hasReplacement
        case .deadLetter(let record): record.reason.hasReplacement
        case .createQueue, .take, .acknowledge, .release, .redrive, .move, .call: false
        }
    }
}

extension Headers {
    /// Whether a text of them may stand for bytes that are not UTF-8.
    var hasReplacedText: Bool { self.fields.contains { $0.name.hasReplacement || $0.value.hasReplacement } }
}

extension String {
    /// Whether it has the character that stands for bytes which are not UTF-8.
    var hasReplacement: Bool { self.unicodeScalars.contains("\u{FFFD}") }
}
