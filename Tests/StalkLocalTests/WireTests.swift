import Foundation
import StalkCore
import StalkFiles
import StalkTesting
import Testing

@testable import StalkLocal

@Suite(.timeLimit(.minutes(5))) struct WireTests {
    /// Frames of every kind, each with what it says.
    private static func frames(seed: UInt64) -> [(bytes: [UInt8], said: Said)] {
        var random = RandomWire(seed: seed)
        return random.requests().enumerated().map { number, request in
            var writer = ByteWriter()
            request.write(call: UInt64(number) << 40, to: &writer)
            return (writer.bytes, Said(request))
        }
            + random.answers().enumerated().map { number, answer in
                var writer = ByteWriter()
                answer.write(call: UInt64(number), to: &writer)
                return (writer.bytes, Said(answer))
            }
    }

    private static func frames(in pieces: [[UInt8]]) throws -> [WireFrame] {
        var assembler = WireAssembler()
        var frames: [WireFrame] = []
        for piece in pieces {
            piece.withUnsafeBytes { assembler.append($0) }
            while let frame = try assembler.next() { frames.append(frame) }
        }
        return frames
    }

    @Test(arguments: 0..<20 as Range<UInt64>) func whatIsWrittenIsRead(seed: UInt64) throws {
        for (number, (bytes, said)) in Self.frames(seed: seed).enumerated() {
            let frame = try #require(try Self.frames(in: [bytes]).first)
            #expect(try Said(frame) == said, "frame \(number)")
            #expect(try Said(frame).written(call: frame.call) == bytes)
        }
    }

    @Test func beginningOfAFrameIsNoFrame() throws {
        for (bytes, _) in Self.frames(seed: 1) {
            for count in 0..<bytes.count { #expect(try Self.frames(in: [Array(bytes[..<count])]).isEmpty) }
            #expect(try Self.frames(in: [bytes]).count == 1)
        }
    }

    @Test func howTheBytesArriveDoesNotMatter() throws {
        let frames = Self.frames(seed: 2)
        let all = frames.flatMap(\.bytes)
        let whole = try Self.frames(in: [all])
        #expect(whole.count == frames.count)
        #expect(try zip(whole, frames).allSatisfy { frame, each in try Said(frame) == each.said })
        #expect(try Self.frames(in: all.map { [$0] }) == whole)
        for place in 0...all.count {
            #expect(try Self.frames(in: [Array(all[..<place]), Array(all[place...])]) == whole)
        }
        // Enough of them that what was read is dropped in between.
        let many = Array(repeating: all, count: 200)
        let pieces = stride(from: 0, to: many.count * all.count, by: 100_000).map { start in
            (start..<min(start + 100_000, many.count * all.count)).map { all[$0 % all.count] }
        }
        #expect(try Self.frames(in: pieces).count == 200 * whole.count)
    }

    @Test func contentsThatAreCutOrGoOnAreRefused() throws {
        for (bytes, _) in Self.frames(seed: 3) {
            let frame = try #require(try Self.frames(in: [bytes]).first)
            for count in 0..<frame.contents.count {
                var cut = frame
                cut.contents.removeLast(frame.contents.count - count)
                #expect(throws: Wire.Malformed.self) { try Said(cut) }
            }
            for extra in [[0], [255], [0, 0, 0, 0, 0, 0, 0, 0]] as [[UInt8]] {
                var longer = frame
                longer.contents += extra
                #expect(throws: Wire.Malformed.self) { try Said(longer) }
            }
        }
    }

    @Test func flippedBitsAreReadAsWhatTheySayOrRefused() throws {
        var refused = 0
        for (bytes, said) in Self.frames(seed: 4) {
            let frame = try #require(try Self.frames(in: [bytes]).first)
            for bit in 0..<8 * frame.contents.count {
                var flipped = frame
                flipped.contents[bit / 8] ^= 1 << UInt8(bit % 8)
                guard let read = try? Said(flipped) else {
                    refused += 1
                    continue
                }
                #expect(read != said || read.mayBeWrittenAnew, "\(said)")
            }
        }
        #expect(refused > 1000)
    }

    @Test func countsAndLengthsThatLieAreRefused() throws {
        for (bytes, _) in Self.frames(seed: 5) {
            let frame = try #require(try Self.frames(in: [bytes]).first)
            guard frame.contents.count >= 4 else { continue }
            for place in 0...(frame.contents.count - 4) {
                var lying = frame
                lying.contents.replaceSubrange(place..<place + 4, with: [255, 255, 255, 255])
                // Where it is neither a length nor a count, it is a number like others.
                guard let read = try? Said(lying) else { continue }
                #expect(read.written(call: frame.call).count == bytes.count || read.mayBeWrittenAnew)
            }
        }
        let publish: [UInt8] = [1, 0, 113, 1] + [UInt8](repeating: 0, count: 8)
        for count in [[2, 0, 0, 0], [255, 255, 255, 127], [255, 255, 255, 255]] as [[UInt8]] {
            let frame = WireFrame(call: 1, kind: 2, contents: publish + count + [UInt8](repeating: 0, count: 16))
            #expect(throws: Wire.Malformed.self) { try WireRequest(frame) }
        }
        let one = WireFrame(call: 1, kind: 2, contents: publish + [1, 0, 0, 0] + [UInt8](repeating: 0, count: 16))
        #expect(try Said(one) == Said(.publish(QueueName("q"), [Message("")], .synced, answeredBelow: 0)))
    }

    @Test func lengthsThatNoFrameHasAreRefusedAtOnce() throws {
        func assemble(_ length: UInt32, atMost limit: Int) throws -> WireFrame? {
            var assembler = WireAssembler(maxFrameBytes: limit)
            withUnsafeBytes(of: length.littleEndian) { assembler.append($0) }
            return try assembler.next()
        }
        for length in [0, 8, 1001, .max] as [UInt32] {
            #expect(throws: Wire.Malformed.self) { try assemble(length, atMost: 1000) }
        }
        var assembler = WireAssembler(maxFrameBytes: 1000)
        for bytes in [[255, 255, 255, 255], [9, 0, 0, 0] + [UInt8](repeating: 0, count: 9)] as [[UInt8]] {
            bytes.withUnsafeBytes { assembler.append($0) }
        }
        #expect(throws: Wire.Malformed.self) { try assembler.next() }
        // Told once: whoever goes on to ask does not hear of it for ever.
        #expect(try assembler.next() == nil && assembler.waiting == 0)
        for length in [9, 1000] as [UInt32] { #expect(try assemble(length, atMost: 1000) == nil) }
        #expect(throws: Wire.Malformed.self) { try assemble(64 << 20 + 1, atMost: Wire.maxFrameBytes) }
        #expect(Wire.maxFrameBytes(bodies: 1 << 20) == 64 << 20 && Wire.maxFrameBytes(bodies: 64 << 20) == 128 << 20)
    }

    @Test func kindsThatAreNotKnownAreRefused() {
        for kind in UInt8.min...UInt8.max {
            let frame = WireFrame(call: 1, kind: kind, contents: [])
            if !(1...13).contains(kind) { #expect(throws: Wire.Malformed.self) { try WireRequest(frame) } }
            if !(128...138).contains(kind) { #expect(throws: Wire.Malformed.self) { try WireAnswer(frame) } }
            if !(1...16).contains(kind) {
                let order = WireFrame(call: 1, kind: 11, contents: [kind])
                #expect(throws: Wire.Malformed.self) { try WireRequest(order) }
            }
        }
    }

    @Test func greetingOfAnotherVersionIsReadAsFarAsItsVersions() throws {
        var greeting = WireFrame(call: 1, kind: 1, contents: [0x53, 0x54, 0x4B, 0x53, 2, 0, 9, 0, 1, 2, 3])
        guard case .greeting(let read) = try WireRequest(greeting) else { return #expect(Bool(false)) }
        #expect(read.versions == 2...9)
        greeting.contents[4] = 1
        #expect(throws: Wire.Malformed.self) { try WireRequest(greeting) }
        greeting.contents = [0x53, 0x54, 0x4B, 0x46, 2, 0, 9, 0]
        #expect(throws: Wire.Malformed.self) { try WireRequest(greeting) }
        greeting.contents = [0x53, 0x54, 0x4B, 0x53, 9, 0, 2, 0]
        #expect(throws: Wire.Malformed.self) { try WireRequest(greeting) }
    }

    /// A limit below zero must not become no limit at all.
    @Test func limitBelowZeroIsZero() throws {
        let queue = try QueueName("q")
        for order in [.redrive(queue, max: -1), .kickQueue(queue, max: -1), .purge(queue, [.ready], max: -5)]
            as [StoreOrder]
        {
            let frame = try #require(try Self.frames(in: [Said(.order(order)).written(call: 1)]).first)
            guard case .order(let read) = try WireRequest(frame) else { return #expect(Bool(false)) }
            switch read {
            case .redrive(_, let max), .kickQueue(_, let max), .purge(_, _, let max): #expect(max == 0)
            default: #expect(Bool(false))
            }
        }
    }
}

/// What a frame says, to be compared.
private struct Said: Equatable, CustomStringConvertible {
    private enum Content {
        case request(WireRequest)
        case answer(WireAnswer)
    }

    private let content: Content

    init(_ request: WireRequest) { self.content = .request(request) }

    init(_ answer: WireAnswer) { self.content = .answer(answer) }

    init(_ frame: WireFrame) throws {
        self.content = frame.kind < 128 ? .request(try WireRequest(frame)) : .answer(try WireAnswer(frame))
    }

    /// Whether it stands for bytes that are written in another way: text that is not UTF-8, the code of an error that is
    /// not known, the greeting of another version.
    var mayBeWrittenAnew: Bool {
        if case .request(.greeting(let greeting)) = self.content { return !greeting.versions.overlaps(Wire.versions) }
        return "\(self)".contains("\u{FFFD}") || "\(self)".contains("unsupported")
    }

    /// All of its values, as far down as they go.
    var description: String { "\(self.content)" }

    func written(call: UInt64) -> [UInt8] {
        var writer = ByteWriter()
        switch self.content {
        case .request(let request): request.write(call: call, to: &writer)
        case .answer(let answer): answer.write(call: call, to: &writer)
        }
        return writer.bytes
    }

    static func == (left: Said, right: Said) -> Bool {
        // A set has no order, also in its description.
        if case (.request(.order(let left)), .request(.order(let right))) = (left.content, right.content) {
            return left == right
        }
        // A duration is described as a fraction, which is not exact.
        return "\(left)" == "\(right)" && left.written(call: 0) == right.written(call: 0)
    }
}
