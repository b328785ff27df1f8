// The codec of both directions: recorded bytes, every cut, bounds, and random bytes.

internal import NIOCore
internal import StalkNSQ
internal import StalkTesting
internal import Testing

@Suite struct CodecTests {
    private static let key = MessageKey(high: 0x3061_3132_3334_3536, low: 0x3738_3961_6263_6465)

    private static let frames: [NSQFrame] = [
        .ok, .heartbeat, .closeWait, .response([]), .error("E_BAD_TOPIC PUB topic name \"!\" is not valid"), .error(""),
        .message(NSQMessage(timestamp: 1_700_000_000_123_456_789, attempts: 1, key: key, body: Array("hello".utf8))),
        .message(NSQMessage(timestamp: -1, attempts: .max, key: key, body: [])),
        .message(NSQMessage(timestamp: 0, attempts: 0, key: key, body: Array(repeating: 7, count: 300))),
    ]

    private static let commands: [NSQCommand] = [
        .identify(Array("{\"client_id\":\"a\"}".utf8)), .auth(Array("secret \n text".utf8)),
        .subscribe(topic: "orders", channel: "stalk#ephemeral"), .ready(0), .ready(2500), .finish(key),
        .requeue(key, milliseconds: 3_600_000), .touch(key), .startClose, .nop,
        .publish(topic: "t", Array("body\nwith line".utf8)),
        .multiPublish(topic: "t", [[1], [2, 3], Array("FIN ".utf8)]),
        .deferredPublish(topic: "t", milliseconds: 1500, [0, 10, 255]),
    ]

    private static func bytes(of frames: [NSQFrame]) -> ByteBuffer {
        var buffer = ByteBuffer()
        for frame in frames { frame.write(into: &buffer) }
        return buffer
    }

    private static func bytes(of commands: [NSQCommand]) -> ByteBuffer {
        var buffer = ByteBuffer()
        for command in commands { command.write(into: &buffer) }
        return buffer
    }

    /// What a real nsqd 1.3 and go-nsq put on the wire, byte by byte.
    @Test func recordedBytesAreRead() throws {
        var decoder = FrameDecoder(maxMessageBytes: 1 << 20)
        decoder.append(ByteBuffer(bytes: [0, 0, 0, 6, 0, 0, 0, 0, 0x4F, 0x4B]))
        #expect(try decoder.next() == .ok)
        decoder.append(
            ByteBuffer(
                bytes: [0, 0, 0, 0x21, 0, 0, 0, 2, 0x17, 0x97, 0x9C, 0xFE, 0x36, 0x2A, 0, 0, 0, 1]
                    + Array("0a123456789abcde".utf8) + Array("abc".utf8)
            )
        )
        let message = NSQMessage(
            timestamp: 1_700_000_000_000_000_000,
            attempts: 1,
            key: Self.key,
            body: Array("abc".utf8)
        )
        #expect(try decoder.next() == .message(message))
        #expect(Self.key.description == "0a123456789abcde")
        #expect(try decoder.next() == nil)
    }

    @Test func commandsAreWrittenAsRecorded() {
        func text(_ command: NSQCommand) -> String { String(buffer: Self.bytes(of: [command])) }
        #expect(text(.subscribe(topic: "orders", channel: "stalk")) == "SUB orders stalk\n")
        #expect(text(.ready(5)) == "RDY 5\n")
        #expect(text(.finish(Self.key)) == "FIN 0a123456789abcde\n")
        #expect(text(.requeue(Self.key, milliseconds: 90)) == "REQ 0a123456789abcde 90\n")
        #expect(text(.touch(Self.key)) == "TOUCH 0a123456789abcde\n")
        #expect(text(.startClose) == "CLS\n")
        #expect(text(.nop) == "NOP\n")
        #expect(text(.publish(topic: "t", [0x41, 0x42])) == "PUB t\n\0\0\0\u{2}AB")
        #expect(text(.deferredPublish(topic: "t", milliseconds: 7, [0x41])) == "DPUB t 7\n\0\0\0\u{1}A")
        #expect(
            text(.multiPublish(topic: "t", [[0x41], [0x42, 0x43]]))
                == "MPUB t\n\0\0\0\u{F}\0\0\0\u{2}\0\0\0\u{1}A\0\0\0\u{2}BC"
        )
        #expect(text(.identify(Array("{}".utf8))) == "IDENTIFY\n\0\0\0\u{2}{}")
        #expect(text(.auth(Array("s".utf8))) == "AUTH\n\0\0\0\u{1}s")
    }

    @Test func framesSurviveEveryCut() throws {
        let bytes = Array(Self.bytes(of: Self.frames).readableBytesView)
        for cut in 0...bytes.count {
            var decoder = FrameDecoder(maxMessageBytes: 1 << 10)
            var seen: [NSQFrame] = []
            for part in [bytes[..<cut], bytes[cut...]] {
                decoder.append(ByteBuffer(bytes: part))
                while let frame = try decoder.next() { seen.append(frame) }
            }
            #expect(seen == Self.frames, "cut at \(cut)")
            #expect(decoder.pendingBytes == 0)
        }
    }

    @Test func framesSurviveSingleBytes() throws {
        var decoder = FrameDecoder(maxMessageBytes: 1 << 10)
        var seen: [NSQFrame] = []
        for byte in Self.bytes(of: Self.frames).readableBytesView {
            decoder.append(ByteBuffer(bytes: [byte]))
            while let frame = try decoder.next() { seen.append(frame) }
        }
        #expect(seen == Self.frames)
    }

    @Test func commandsSurviveEveryCut() throws {
        let bytes = Array(Self.bytes(of: Self.commands).readableBytesView)
        for cut in 0...bytes.count {
            var decoder = CommandDecoder()
            var seen: [NSQCommand] = []
            for part in [bytes[..<cut], bytes[cut...]] {
                decoder.append(ByteBuffer(bytes: part))
                while let command = try decoder.next() { seen.append(command) }
            }
            #expect(seen == Self.commands, "cut at \(cut)")
        }
    }

    @Test func frameSizesAreBounded() {
        let limit = 1 << 20
        func refusal(size: Int32, type: Int32 = 2) -> ProtocolViolation? {
            var decoder = FrameDecoder(maxMessageBytes: limit)
            var bytes = ByteBuffer()
            bytes.writeMultipleIntegers(size, type)
            decoder.append(bytes)
            do throws(ProtocolViolation) {
                _ = try decoder.next()
                return nil
            } catch {
                return error
            }
        }
        #expect(refusal(size: Int32(limit + 30)) == nil)
        #expect(refusal(size: Int32(limit + 31)) != nil)
        #expect(refusal(size: 3) != nil)
        #expect(refusal(size: -1) != nil)
        // "HTTP", from a web server on the wrong port.
        #expect(refusal(size: 1_213_486_160)?.description.contains("1213486160") == true)
        #expect(refusal(size: 4, type: 3)?.description.contains("unknown type 3") == true)
        #expect(refusal(size: 4, type: 2)?.description.contains("too short") == true)
    }

    @Test(arguments: [
        "BOGUS\n", "PUB t\n\0\0\0\0", "PUB t\n\0\u{10}\0\u{1}", "MPUB t\n\0\0\0\u{8}\0\0\0\u{9}\0\0\0\u{1}",
        "MPUB t\n\0\0\0\u{9}\0\0\0\u{1}\0\0\0\u{9}A", "DPUB t x\n\0\0\0\u{1}A", "RDY x\n", "REQ 0a123456789abcde x\n",
        "SUB t\n",
        "MPUB t\n\u{7F}\0\0\0",
    ])
    func badCommandsAreRefused(text: String) {
        var decoder = CommandDecoder()
        decoder.append(ByteBuffer(string: text))
        #expect(throws: CommandRefusal.self) { try decoder.next() }
    }

    /// Random bytes and damaged frames end in a frame, a wait or a violation, and never keep more than was sent.
    @Test func randomBytesNeverCrash() {
        var generator = SeededGenerator(seed: 0x4E53_5121)
        var (violations, largest) = (0, Int.min)
        for _ in 0..<5000 {
            var bytes =
                Bool.random(using: &generator)
                ? Array(Self.bytes(of: Self.frames).readableBytesView)
                : Array(Self.bytes(of: Self.commands).readableBytesView)
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            var frames = FrameDecoder(maxMessageBytes: 512)
            var commands = CommandDecoder(maxMessageBytes: 512, maxBodyBytes: 1024)
            let cut = Int.random(in: 0...bytes.count, using: &generator)
            for part in [bytes[..<cut], bytes[cut...]] {
                frames.append(ByteBuffer(bytes: part))
                commands.append(ByteBuffer(bytes: part))
                do { while try frames.next() != nil {} } catch { violations += 1 }
                do { while try commands.next() != nil {} } catch { violations += 1 }
            }
            largest = max(largest, frames.pendingBytes - bytes.count, commands.pendingBytes - bytes.count)
        }
        #expect(violations > 2500)
        #expect(largest <= 0)
    }
}
