// The envelopes of stored bodies.

import Synchronization

@testable import StalkCore
@testable import StalkZstd

/// Opens envelopes of any bytes, never to more than a limit, and takes any bytes as a body through one and back.
struct EnvelopeFuzzer: Fuzzer {
    /// Bodies declare up to 4 GiB; libFuzzer refuses every allocation of 32 MiB and more.
    private static let limits = [0, 63, 1000, 64 << 10, 1 << 20]
    private static let dictionaryText = Array(
        #"{"id":"0123456789ABC","queue":"mail","state":"ready","headers":{"Lang":"en"},"body":"hello, world"}"#.utf8
    )

    /// What zstd needs is made once.
    // SAFETY: used only while `lock` is held.
    private nonisolated(unsafe) static let tools = try? Tools()
    private static let lock = Mutex(())

    private struct Tools {
        let compressor: Compressor
        let decompressor: Decompressor
        let compression: CompressionDictionary
        let decompression: DecompressionDictionary

        init() throws(StalkError) {
            self.compressor = try Compressor()
            self.decompressor = try Decompressor()
            self.compression = try CompressionDictionary(id: 7, bytes: dictionaryText)
            self.decompression = try DecompressionDictionary(id: 7, bytes: dictionaryText)
        }
    }

    var name: String { "envelope" }

    func complaint(about input: [UInt8], isPlanted: Bool) -> String? {
        var choices = Choices(input)
        let choice = choices.next()
        let bytes = choices.remaining
        guard let tools = Self.tools else { return "zstd can't be set up" }
        return Self.lock.withLock { _ in
            if choice & 0x80 != 0 { return Self.roundTrip(bytes, usingDictionary: choice & 1 == 1, tools) }
            // The planted bug lets the envelope say how long the body may be.
            return Self.open(bytes, limit: Self.limits[choice % Self.limits.count], tools, believing: isPlanted)
        }
    }

    private static func open(_ envelope: [UInt8], limit: Int, _ tools: Tools, believing: Bool) -> String? {
        envelope.withUnsafeBytes { buffer in
            do throws(StalkError) {
                let body = try tools.decompressor.body(of: buffer, maxBytes: believing ? .max : limit) {
                    id throws(StalkError) in
                    guard id == 7 else { throw StalkError(.corruptValue, "There is no dictionary \(id).") }
                    return tools.decompression
                }
                guard body.count <= limit else { return "\(body.count) bytes came out, and the limit is \(limit)" }
                let declared = try Envelope(parsing: buffer).bodyBytes
                return body.count == declared ? nil : "\(body.count) bytes came out, and \(declared) were declared"
            } catch {
                return error.code == .corruptValue ? nil : "\(error)"
            }
        }
    }

    private static func roundTrip(_ body: [UInt8], usingDictionary: Bool, _ tools: Tools) -> String? {
        do {
            let dictionary = usingDictionary ? tools.compression : nil
            let envelope = try tools.compressor.envelope(for: body, dictionary: dictionary)
            let again = try envelope.withUnsafeBytes { buffer in
                try tools.decompressor.body(of: buffer, maxBytes: body.count) {
                    _ throws(StalkError) in tools.decompression
                }
            }
            return again == body ? nil : "\(body) came back as \(again)"
        } catch {
            return "\(error)"
        }
    }
}
