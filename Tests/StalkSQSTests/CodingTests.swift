import StalkCore
import StalkTesting
import Testing

@testable import StalkSQS

@Suite struct CodingTests {
    private static let limits = QueueLimits(maxMessageBytes: 262_144)

    private func encode(_ message: Message, _ limits: QueueLimits = Self.limits) throws(StalkError) -> EncodedMessage {
        try MessageCoding.encode(message, limits: limits, defaultGroup: "stalk")
    }

    /// A message through both directions, as a server would hand it out.
    private func roundTrip(_ message: Message) throws -> ReceivedMessage {
        let encoded = try self.encode(message)
        let attributes = encoded.attributes.map { attribute in
            (attribute.name, JSON.object(["DataType": .string("String"), "StringValue": .string(attribute.value)]))
        }
        var system: [String: JSON] = [
            "ApproximateReceiveCount": .string("3"), "SentTimestamp": .string("1700000000000"),
        ]
        if let trace = encoded.traceHeader { system["AWSTraceHeader"] = .string(trace) }
        if let group = encoded.group { system["MessageGroupId"] = .string(group) }
        let json = JSON.object([
            "MessageId": .string("id"), "ReceiptHandle": .string("handle"), "Body": .string(encoded.body),
            "MD5OfBody": .string(MessageSum.ofBody(encoded.body)), "Attributes": .object(system),
            "MD5OfMessageAttributes": .string(MessageSum.ofAttributes(encoded.attributes)),
            "MessageAttributes": .object(Dictionary(uniqueKeysWithValues: attributes)),
        ])
        return try #require(MessageCoding.decode(json, defaultGroup: "stalk", isFIFO: false))
    }

    @Test func everyMessageComesBackAsItWas() throws {
        var generator = SeededGenerator(seed: 7)
        let names = [
            "A", "b.c", "AWS.x", "dot.", "Stalk-Encodings", "x-1", "Retries", "amazon.q", "l", "m", "n", "o", "p",
        ]
        let values = ["", "v", "one\ntwo", "\u{0}", "\u{FFFE}", "Grüße 👋", "\"\\", String(repeating: "x", count: 300)]
        for _ in 0..<500 {
            let count = generator.below(40)
            let body: [UInt8] =
                switch generator.below(3) {
                case 0: (0..<count).map { _ in UInt8(generator.below(256)) }
                case 1: Array(String(repeating: "ä漢👋 ", count: count).utf8)
                default: (0..<count).map { _ in UInt8(generator.below(128)) }
                }
            var headers = Headers()
            for _ in 0..<generator.below(14) {
                headers[names[generator.below(names.count)]] = values[generator.below(values.count)]
            }
            let message = Message(body, headers: headers)
            #expect(SQSText.isLegal(Array(try self.encode(message).body.utf8)))
            #expect(try self.encode(message).attributes.count <= 10)
            let received = try self.roundTrip(message)
            #expect(received.body == body)
            #expect(received.headers.fields.count == headers.fields.count)
            for field in headers { #expect(received.headers[field.name] == field.value, "\(field)") }
            #expect(received.attempt == 3)
        }
    }

    @Test func groupsAndTracesHaveTheirOwnPlaces() throws {
        let headers: Headers = ["Stalk-Group": "tenant-1", "X-Amzn-Trace-Id": "Root=1-5759e988", "other": "x"]
        let encoded = try self.encode(Message("x", headers: headers))
        #expect(encoded.group == "tenant-1")
        #expect(encoded.traceHeader == "Root=1-5759e988")
        #expect(encoded.attributes.map(\.name) == ["other"])
        #expect(try self.roundTrip(Message("x", headers: headers)).headers["stalk-group"] == "tenant-1")
        let fifo = QueueLimits(isFIFO: true)
        let first = try self.encode(Message("x"), fifo)
        #expect(first.group == "stalk")
        #expect(try self.encode(Message("x"), fifo).deduplicationID != first.deduplicationID)
        let named = try self.encode(Message("x", headers: ["Stalk-Deduplication-Id": "once"]), fifo)
        #expect(named.deduplicationID == "once")
        #expect(throws: StalkError.self) { try self.encode(Message("x", delay: .seconds(1)), fifo) }
    }

    @Test func delaysAreRoundedUpAndNeverClamped() throws {
        #expect(try self.encode(Message("x", delay: .milliseconds(1))).delaySeconds == 1)
        #expect(try self.encode(Message("x", delay: .seconds(900))).delaySeconds == 900)
        let error = #expect(throws: StalkError.self) { try self.encode(Message("x", delay: .milliseconds(900_001))) }
        #expect(error?.code == .delayOutOfRange)
    }

    @Test func sizesAreRefusedBeforeSending() throws {
        // As docs/adapters.md has it.
        #expect(QueueLimits().maxBodyBytes == 786_411)
        #expect(try self.encode(Message(String(repeating: "x", count: 262_144))).byteCount == 262_144)
        for message in [
            Message(String(repeating: "x", count: 262_145)),
            Message(String(repeating: "x", count: 262_140), headers: ["a": "bc"]),
            Message([UInt8](repeating: 0, count: Self.limits.maxBodyBytes + 1)),
        ] {
            let error = #expect(throws: StalkError.self) { try self.encode(message) }
            #expect(error?.code == .bodyTooLarge)
            #expect(error?.message.contains("\(message.body.count)") == true)
        }
        #expect(try self.encode(Message([UInt8](repeating: 0, count: Self.limits.maxBodyBytes))).byteCount <= 262_144)
    }

    @Test func theForerunnersRetriesCount() throws {
        func attempt(_ type: String, _ value: String) throws -> Int {
            let json = JSON.object([
                "MessageId": .string("id"), "ReceiptHandle": .string("h"), "Body": .string("x"),
                "Attributes": .object(["ApproximateReceiveCount": .string("2")]),
                "MessageAttributes": .object([
                    "Retries": .object(["DataType": .string(type), "StringValue": .string(value)])
                ]),
            ])
            return try #require(MessageCoding.decode(json, defaultGroup: "stalk", isFIFO: false)).attempt
        }
        #expect(try attempt("Number", "3") == 5)
        #expect(try attempt("String", "3") == 2)
        #expect(try attempt("Number", "-3") == 2)
        #expect(try attempt("Number", "many") == 2)
    }

    @Test func damageIsSeen() throws {
        func decode(_ changes: [String: JSON]) -> ReceivedMessage? {
            let attributes = ["a": JSON.object(["DataType": .string("String"), "StringValue": .string("b")])]
            let members: [String: JSON] = [
                "MessageId": .string("id"), "ReceiptHandle": .string("h"), "Body": .string("x"),
                "MD5OfBody": .string(MessageSum.ofBody("x")), "MessageAttributes": .object(attributes),
                "MD5OfMessageAttributes": .string(MessageSum.ofAttributes([.init(name: "a", value: "b")])),
            ]
            return MessageCoding.decode(.object(members.merging(changes) { $1 }), defaultGroup: "stalk", isFIFO: false)
        }
        #expect(decode([:]) != nil)
        #expect(decode(["Body": .string("y")]) == nil)
        #expect(decode(["MD5OfMessageAttributes": .string("00")]) == nil)
    }

    @Test(arguments: [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")])
    func base64(text: String, encoded: String) {
        #expect(Base64.encode(Array(text.utf8)) == encoded)
        #expect(Base64.decode(encoded) == Array(text.utf8))
    }

    @Test(arguments: ["Z", "Zg=", "Z===", "====", "Zg=a", "Z g=", "Zm9\u{E9}"])
    func noBase64(text: String) { #expect(Base64.decode(text) == nil) }
}

@Suite struct BatchTests {
    private typealias Item = BatchStateMachine.Item
    private func items(_ numbers: ClosedRange<Int>, bytes: Int = 1) -> [BatchStateMachine.Item] {
        numbers.map { Item(number: $0, bytes: bytes) }
    }

    @Test func fullBatchesGoAtOnceAndTheRestLingers() {
        var machine = BatchStateMachine(maxInFlight: 8, lingers: true)
        let expected: [BatchStateMachine.Action] = [.send(Array(1...10)), .send(Array(11...20)), .linger(round: 2)]
        #expect(machine.add(self.items(1...23)) == expected)
        #expect(machine.lingered(1) == [])
        #expect(machine.add(self.items(24...24)) == [.linger(round: 2)])
        #expect(machine.lingered(2) == [.send([21, 22, 23, 24])])
        #expect(machine.lingered(2) == [])
    }

    @Test func bytesBoundABatchToo() {
        var machine = BatchStateMachine(maxInFlight: 8, lingers: false)
        #expect(machine.add(self.items(1...3, bytes: 600_000)) == [.send([1]), .send([2]), .send([3])])
    }

    @Test func oneAtATimeKeepsTheOrder() {
        var machine = BatchStateMachine(maxInFlight: 1, lingers: false)
        #expect(machine.add(self.items(1...25)) == [.send(Array(1...10))])
        #expect(machine.add(self.items(26...26)) == [])
        #expect(machine.returned() == [.send(Array(11...20))])
        #expect(machine.returned() == [.send(Array(21...25))])
        #expect(machine.returned() == [.send([26])])
        #expect(machine.returned() == [])
    }
}
