// The protocol of processes that share a store, both directions.

@testable import StalkCore
@testable import StalkLocal

/// Puts frames together from any bytes, in one piece and in several, and reads them as requests and answers.
///
/// How the bytes are cut may not matter. What was read is written again, and must be what was read.
struct WireFuzzer: Fuzzer {
    var name: String { "wire" }

    func complaint(about input: [UInt8], isPlanted: Bool) -> String? {
        var choices = Choices(input)
        let step = choices.next() % 13 + 1
        let bytes = choices.remaining
        let pieces = stride(from: 0, to: bytes.count, by: step).map {
            Array(bytes[$0..<min($0 + step, bytes.count)])
        }
        let whole = Self.frames(of: [bytes])
        let cut = Self.frames(of: pieces, losesShortRests: isPlanted)
        guard whole == cut else { return "in one piece: \(whole), in several: \(cut)" }
        for frame in whole.frames {
            if let complaint = Self.complaint(about: frame) { return complaint }
        }
        return nil
    }

    private struct Assembled: Equatable {
        var frames: [WireFrame] = []
        var isRefused = false
    }

    private static func frames(of pieces: [[UInt8]], losesShortRests: Bool = false) -> Assembled {
        var assembler = WireAssembler(maxFrameBytes: 1 << 16)
        var assembled = Assembled()
        do throws(Wire.Malformed) {
            for piece in pieces {
                // The planted bug forgets the beginning of a length.
                if losesShortRests, (1..<4).contains(assembler.waiting) {
                    assembler = WireAssembler(maxFrameBytes: 1 << 16)
                }
                piece.withUnsafeBytes { assembler.append($0) }
                while let frame = try assembler.next() { assembled.frames.append(frame) }
            }
        } catch {
            assembled.isRefused = true
        }
        return assembled
    }

    // MARK: Contents

    private static func complaint(about frame: WireFrame) -> String? {
        guard let again = Self.written(frame) else { return nil }
        guard Self.written(again) == again else { return "\(again) was written, and does not come back" }
        return again == frame || Self.mayDiffer(frame) ? nil : "\(frame) was read, and is written as \(again)"
    }

    /// What was read from a frame, as a frame; `nil` when it was refused.
    private static func written(_ frame: WireFrame) -> WireFrame? {
        var writer = ByteWriter()
        if let request = try? WireRequest(frame) {
            request.write(call: frame.call, to: &writer)
        } else if let answer = try? WireAnswer(frame) {
            answer.write(call: frame.call, to: &writer)
        } else {
            return nil
        }
        return Self.frames(of: [writer.bytes]).frames.first
    }

    /// Whether a frame may be read as something that is written in another way: text that is not UTF-8, the code of an
    /// error that is not known, the greeting of another version.
    private static func mayDiffer(_ frame: WireFrame) -> Bool {
        if case .greeting(let greeting)? = try? WireRequest(frame) {
            return !greeting.versions.overlaps(Wire.versions)
        }
        let text = "\((try? WireRequest(frame)).map { "\($0)" } ?? (try? WireAnswer(frame)).map { "\($0)" } ?? "")"
        return text.hasReplacement || text.contains("unsupported")
    }
}
