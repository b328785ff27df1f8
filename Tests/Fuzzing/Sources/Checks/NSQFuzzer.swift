// NSQ's protocol V2, both directions.

import NIOCore

@testable import StalkNSQ

/// Decodes any bytes as frames of nsqd, or as commands of a client, in one piece and in several.
///
/// How the network cuts them may not matter. What was decoded is written again, and must be what was read.
struct NSQFuzzer: Fuzzer {
    private static let maxBytes = 1 << 16

    var name: String { "nsq" }

    func complaint(about input: [UInt8], isPlanted: Bool) -> String? {
        var choices = Choices(input)
        let isServer = choices.next() & 1 == 1
        let step = choices.next() % 13 + 1
        let bytes = choices.remaining
        let pieces = stride(from: 0, to: bytes.count, by: step).map {
            Array(bytes[$0..<min($0 + step, bytes.count)])
        }
        return isServer
            ? Self.commandComplaint(bytes, pieces, isPlanted) : Self.frameComplaint(bytes, pieces, isPlanted)
    }

    // MARK: Frames

    private static func frameComplaint(_ bytes: [UInt8], _ pieces: [[UInt8]], _ isPlanted: Bool) -> String? {
        let whole = Self.frames(of: [bytes])
        let cut = Self.frames(of: pieces, losesShortRests: isPlanted)
        guard whole == cut else { return "in one piece: \(whole), in several: \(cut)" }
        var buffer = ByteBuffer()
        for frame in whole.decoded {
            frame.write(into: &buffer)
            // Bytes that are no text are replaced: from there on nothing can be compared.
            if case .error(let text) = frame, text.hasReplacement { return nil }
        }
        let again = Array(buffer.readableBytesView)
        return bytes.starts(with: again) ? nil : "\(bytes) was read, and is written as \(again)"
    }

    private static func frames(of pieces: [[UInt8]], losesShortRests: Bool = false) -> Decoded<NSQFrame> {
        var decoder = FrameDecoder(maxMessageBytes: Self.maxBytes)
        var decoded = Decoded<NSQFrame>()
        do {
            for piece in pieces {
                // The planted bug forgets the beginning of a size.
                if losesShortRests, (1..<4).contains(decoder.pendingBytes) { _ = decoder.takePending() }
                decoder.append(ByteBuffer(bytes: piece))
                while let frame = try decoder.next() { decoded.decoded.append(frame) }
            }
        } catch {
            decoded.refusal = "\(error)"
        }
        return decoded
    }

    // MARK: Commands

    private static func commandComplaint(_ bytes: [UInt8], _ pieces: [[UInt8]], _ isPlanted: Bool) -> String? {
        let whole = Self.commands(of: [bytes])
        let cut = Self.commands(of: isPlanted ? pieces.filter { $0 != [0x0a] } : pieces)
        guard whole == cut else { return "in one piece: \(whole), in several: \(cut)" }
        for command in whole.decoded {
            var buffer = ByteBuffer()
            command.write(into: &buffer)
            let again = Self.commands(of: [Array(buffer.readableBytesView)])
            guard again.decoded == [command], again.refusal == nil else {
                return "\(command) is written, and read as \(again)"
            }
        }
        return nil
    }

    private static func commands(of pieces: [[UInt8]]) -> Decoded<NSQCommand> {
        var decoder = CommandDecoder(maxMessageBytes: Self.maxBytes, maxBodyBytes: Self.maxBytes)
        var decoded = Decoded<NSQCommand>()
        do {
            for piece in pieces {
                decoder.append(ByteBuffer(bytes: piece))
                while let command = try decoder.next() { decoded.decoded.append(command) }
            }
        } catch {
            decoded.refusal = "\(error)"
        }
        return decoded
    }
}

/// What a decoder gave until it refused, or until the bytes ended.
private struct Decoded<Item: Equatable>: Equatable {
    var decoded: [Item] = []
    var refusal: String?
}
