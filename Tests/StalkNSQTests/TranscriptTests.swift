// A recorded conversation with a real nsqd: both decoders read it, however it is cut, and both encoders write it.

internal import FoundationEssentials
internal import NIOCore
internal import StalkNSQ
internal import Testing

@Suite struct TranscriptTests {
    private struct Conversation {
        var fromClient: [UInt8] = []
        var fromServer: [UInt8] = []
    }

    /// The conversations of the file; each begins with the client's magic.
    private static func read() throws -> [Conversation] {
        let path =
            #filePath.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" } + "/Transcripts/nsqd-1.3.0.txt"
        let text = try String(contentsOfFile: path, encoding: .utf8)
        var conversations: [Conversation] = []
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            let digits = Array(line.dropFirst(2))
            let bytes = try stride(from: 0, to: digits.count, by: 2).map { position in
                try #require(UInt8(String(digits[position...position + 1]), radix: 16))
            }
            if bytes.elementsEqual(NSQCommand.magic.utf8) { conversations.append(Conversation()) }
            let last = conversations.count - 1
            if line.hasPrefix("C") {
                conversations[last].fromClient += bytes
            } else {
                conversations[last].fromServer += bytes
            }
        }
        return conversations
    }

    @Test func framesOfNSQDAreReadAtEveryCutAndWrittenAlike() throws {
        var kinds: Set<String> = []
        for conversation in try Self.read() {
            let bytes = conversation.fromServer
            var expected: [NSQFrame]?
            for cut in 0...bytes.count {
                var decoder = FrameDecoder(maxMessageBytes: 1 << 20)
                var frames: [NSQFrame] = []
                for part in [bytes[..<cut], bytes[cut...]] {
                    decoder.append(ByteBuffer(bytes: part))
                    while let frame = try decoder.next() { frames.append(frame) }
                }
                if let expected, frames != expected { Issue.record("cut at \(cut)") }
                expected = frames
            }
            var written = ByteBuffer()
            for frame in expected ?? [] {
                frame.write(into: &written)
                switch frame {
                case .response: kinds.insert("response")
                case .error: kinds.insert("error")
                case .message: kinds.insert("message")
                }
            }
            #expect(Array(written.readableBytesView) == bytes)
        }
        #expect(kinds == ["response", "error", "message"])
    }

    @Test func commandsAreReadAndWrittenAlike() throws {
        var count = 0
        for conversation in try Self.read() {
            var decoder = CommandDecoder()
            let bytes = conversation.fromClient.dropFirst(NSQCommand.magic.utf8.count)
            decoder.append(ByteBuffer(bytes: bytes))
            var written = ByteBuffer()
            do throws(CommandRefusal) {
                while let command = try decoder.next() {
                    command.write(into: &written)
                    count += 1
                }
                #expect(decoder.pendingBytes == 0)
            } catch {
                // nsqd refused the same.
                let answer = String(decoding: conversation.fromServer, as: UTF8.self)
                #expect(answer.contains(String(error.text.prefix { $0 != " " })), "\(error)")
            }
            #expect(bytes.starts(with: written.readableBytesView))
        }
        #expect(count >= 20)
    }
}
