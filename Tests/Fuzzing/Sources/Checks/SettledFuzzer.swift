// The values and keys that LMDB holds.

@testable import StalkCore
@testable import StalkIndex
@testable import StalkLocal

/// Reads values of each table from any bytes; what was read must come out of its own bytes again.
struct SettledFuzzer: Fuzzer {
    var name: String { "settled" }

    func complaint(about input: [UInt8], isPlanted: Bool) -> String? {
        var choices = Choices(input)
        let table = choices.next() % 6
        let bytes = choices.remaining
        return bytes.withUnsafeBytes { buffer in
            switch table {
            case 0: Self.message(buffer)
            case 1: Self.state(buffer, isPlanted)
            case 2: Self.queue(buffer)
            case 3: Self.meta(buffer)
            case 4: Self.dictionary(buffer)
            default: Self.keys(buffer)
            }
        }
    }

    /// What was read from `bytes` is written as `again`: the same, unless a text was not UTF-8.
    private static func compare(_ bytes: UnsafeRawBufferPointer, _ again: [UInt8], _ texts: [String]) -> String? {
        guard !texts.contains(where: \.hasReplacement), Array(bytes.prefix(again.count)) != again else { return nil }
        return "\(Array(bytes)) was read, and is written as \(again)"
    }

    private static func message(_ bytes: UnsafeRawBufferPointer) -> String? {
        let read = try? MessageValue.read(bytes, sequence: 5) { value, envelope throws(StalkError) in
            (value, envelope: [UInt8](envelope))
        }
        guard let (value, envelope) = read else { return nil }
        let content = MessageContent(
            publishedAt: value.publishedAt,
            headers: value.headers,
            extensions: value.extensions,
            body: []
        )
        var writer = ByteWriter()
        MessageValue.write(value.standing, content, to: &writer)
        writer.write(envelope)
        // Flags that this version does not know are dropped: they are no part of what was read.
        var known = Array(bytes)
        known[5] &= 1
        let texts = value.headers.flatMap { [$0.name, $0.value] }
        return known.withUnsafeBytes { Self.compare($0, writer.bytes, texts) }
    }

    private static func state(_ bytes: UnsafeRawBufferPointer, _ isPlanted: Bool) -> String? {
        guard let standing = try? MessageStanding(reading: bytes, sequence: 5) else { return nil }
        // The planted bug does not expect that many attempts.
        if isPlanted { _ = Int32(standing.attempts) }
        var writer = ByteWriter()
        standing.write(to: &writer)
        let again = writer.bytes.withUnsafeBytes { try? MessageStanding(reading: $0, sequence: 5) }
        let texts = standing.failures.map(\.reason)
        guard again == standing || texts.contains(where: \.hasReplacement) else {
            return "\(standing) came back changed"
        }
        var known = Array(bytes)
        // A lease without a number is none.
        known[5] &= standing.lease == 0 ? 3 : 7
        return known.withUnsafeBytes { Self.compare($0, writer.bytes, texts) }
    }

    private static func queue(_ bytes: UnsafeRawBufferPointer) -> String? {
        guard let queue = try? SettledQueue(reading: bytes, number: 3) else { return nil }
        var writer = ByteWriter()
        queue.write(to: &writer)
        let again = writer.bytes.withUnsafeBytes { try? SettledQueue(reading: $0, number: 3) }
        guard again == queue || queue.name.rawValue.hasReplacement else { return "\(queue) came back changed" }
        // Behind the name and four figures may stand flags; those that this version does not know are dropped.
        var known = Array(bytes)
        let place = 2 + (Int(known[0]) | Int(known[1]) << 8) + 4 * 8
        if place < known.count { known[place] &= 1 }
        return known.withUnsafeBytes { Self.compare($0, writer.bytes, [queue.name.rawValue]) }
    }

    private static func meta(_ bytes: UnsafeRawBufferPointer) -> String? {
        guard let meta = try? StoreMeta(reading: bytes) else { return nil }
        var writer = ByteWriter()
        meta.write(to: &writer)
        let again = writer.bytes.withUnsafeBytes { try? StoreMeta(reading: $0) }
        guard again == meta || meta.bootID.hasReplacement else { return "\(meta) came back changed" }
        // Versions below the first were never written.
        guard bytes[0] == 1 else { return nil }
        // Calls that their client has the answers of are not kept, and those of one client stand together.
        guard meta.calls.isEmpty else { return nil }
        // Early stores end behind the boot's identity.
        return Self.compare(bytes, Array(writer.bytes.prefix(bytes.count)), [meta.bootID])
    }

    private static func dictionary(_ bytes: UnsafeRawBufferPointer) -> String? {
        guard let codec = try? BodyCodec(maxBodyBytes: 1 << 20) else { return "there is no memory" }
        do throws(StalkError) {
            try codec.add(dictionary: 1, record: bytes)
            return codec.dictionaryCount == 1 ? nil : "the dictionary was lost"
        } catch {
            return error.code == .corruptValue ? nil : "\(error)"
        }
    }

    private static func keys(_ bytes: UnsafeRawBufferPointer) -> String? {
        if let place = try? KeyReader.place(bytes) {
            let again = KeyBuilder.place(place.queue, place.key)
            guard again == Array(bytes.prefix(21)) else { return "the key \(Array(bytes)) is written as \(again)" }
        }
        if let key = try? KeyReader.schedule(bytes) {
            let again = KeyBuilder.schedule(key)
            guard again == Array(bytes.prefix(16)) else { return "the key \(Array(bytes)) is written as \(again)" }
        }
        return nil
    }
}
