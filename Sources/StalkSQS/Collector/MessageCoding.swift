// Stalk's messages in the form of SQS, and back, without losing a byte.

internal import StalkCore

/// What a queue of SQS allows.
struct QueueLimits: Hashable, Sendable {
    /// The most bytes of a message, attributes included.
    var maxMessageBytes = 1_048_576
    var isFIFO = false

    static let maxBatchBytes = 1_048_576
    static let maxBatchEntries = 10
    static let maxAttributes = 10
    static let maxDelay = Duration.seconds(900)
    static let maxVisibility = Duration.seconds(43_200)
    static let maxWait = Duration.seconds(20)

    /// The largest body of any bytes: what is no text travels as base64, under an attribute that says so.
    var maxBodyBytes: Int { max(0, (self.maxMessageBytes - MessageCoding.encodingBytes("base64")) / 4 * 3) }
}

/// A message as SQS takes it.
struct EncodedMessage: Hashable, Sendable {
    struct Attribute: Hashable, Sendable {
        var name: String
        var value: String
    }

    var body: String
    var attributes: [Attribute] = []
    var traceHeader: String?
    var group: String?
    var deduplicationID: String?
    var delaySeconds: Int?

    /// What SQS counts against its limits.
    var byteCount: Int {
        self.attributes.reduce(self.body.utf8.count) { $0 + $1.name.utf8.count + 6 + $1.value.utf8.count }
    }
}

/// A message as SQS hands it out.
struct ReceivedMessage: Hashable, Sendable {
    var id: MessageID
    var handle: String
    var body: [UInt8]
    var headers: Headers
    var attempt: Int
    var publishedAt: Timestamp
    /// Only in FIFO queues: messages of one group are worked on one after the other.
    var group: String?
}

/// Translates between the two.
enum MessageCoding {
    static let encodingName = "Stalk-Encoding"
    static let headersName = "Stalk-Headers"
    static let groupName = "Stalk-Group"
    static let deduplicationName = "Stalk-Deduplication-Id"
    static let traceName = "X-Amzn-Trace-Id"
    static let reasonName = "Stalk-Reason"

    static func encodingBytes(_ encoding: String) -> Int { self.encodingName.utf8.count + 6 + encoding.utf8.count }

    // MARK: Out

    /// Brings a message into SQS's form.
    ///
    /// - Parameters:
    ///   - message: The message.
    ///   - limits: What the queue allows.
    ///   - defaultGroup: The group of a message that names none, in a FIFO queue.
    /// - Throws: ``StalkError`` when it can't be sent, before anything is.
    static func encode(
        _ message: Message,
        limits: QueueLimits,
        defaultGroup: String
    ) throws(StalkError) -> EncodedMessage {
        try message.headers.validate()
        try Message.validate(delay: message.delay, largest: limits.isFIFO ? .zero : QueueLimits.maxDelay)
        var encoded = EncodedMessage(body: "")
        var isText = false
        if message.body.isEmpty {
            // SQS takes no empty body.
            encoded.body = "-"
            encoded.attributes.append(.init(name: self.encodingName, value: "empty"))
        } else if SQSText.isLegal(message.body) {
            encoded.body = String(decoding: message.body, as: UTF8.self)
            isText = true
        } else {
            encoded.body = Base64.encode(message.body)
            encoded.attributes.append(.init(name: self.encodingName, value: "base64"))
        }
        self.addHeaders(message.headers, to: &encoded)
        if limits.isFIFO {
            encoded.group = encoded.group ?? defaultGroup
            // The same over all tries, so that a try whose answer was lost is not stored twice.
            encoded.deduplicationID = encoded.deduplicationID ?? randomUUID()
        }
        if message.delay > .zero {
            encoded.delaySeconds = Int((message.delay.wholeMillisecondsRoundedUp + 999) / 1000)
        }
        try self.checkSize(of: encoded, message, isText: isText, limits: limits)
        return encoded
    }

    private static func addHeaders(_ headers: Headers, to encoded: inout EncodedMessage) {
        var packed: [Headers.Field] = []
        for field in headers {
            switch field.name.lowercased() {
            case self.groupName.lowercased() where SQSText.isToken(field.value): encoded.group = field.value
            case self.deduplicationName.lowercased() where SQSText.isToken(field.value):
                encoded.deduplicationID = field.value
            case self.traceName.lowercased() where SQSText.isToken(field.value): encoded.traceHeader = field.value
            default:
                // One place stays free for the headers that fit nowhere else.
                let hasRoom = encoded.attributes.count < QueueLimits.maxAttributes - 1
                let isLegal = SQSText.isAttributeName(field.name) && !field.value.isEmpty
                if hasRoom, isLegal, SQSText.isLegal(Array(field.value.utf8)) {
                    encoded.attributes.append(.init(name: field.name, value: field.value))
                } else {
                    packed.append(field)
                }
            }
        }
        guard !packed.isEmpty else { return }
        var writer = JSONWriter()
        writer.array { writer in
            for field in packed {
                writer.string(field.name)
                writer.string(field.value, asciiOnly: true)
            }
        }
        let text = String(decoding: writer.bytes, as: UTF8.self)
        encoded.attributes.append(.init(name: self.headersName, value: text))
    }

    private static func checkSize(
        of encoded: EncodedMessage,
        _ message: Message,
        isText: Bool,
        limits: QueueLimits
    ) throws(StalkError) {
        guard encoded.byteCount > limits.maxMessageBytes else { return }
        let headers = message.headers.isEmpty ? "" : " with \(message.headers.byteCount) bytes of headers"
        let limit =
            isText
            ? "the limit of the queue is \(limits.maxMessageBytes)"
            : "the limit of the queue is \(limits.maxBodyBytes) for bytes that are no text"
        throw StalkError(
            .bodyTooLarge,
            "The body is \(message.body.count) bytes\(headers), \(limit): nothing was sent. "
                + "Store large data elsewhere and publish a reference."
        )
    }

    // MARK: In

    /// Reads a message of an answer.
    ///
    /// - Returns: The message, or `nil` when it came damaged: its checksum is of something else.
    static func decode(_ json: JSON, defaultGroup: String, isFIFO: Bool) -> ReceivedMessage? {
        guard let id = json["MessageId"]?.text, let handle = json["ReceiptHandle"]?.text,
            let text = json["Body"]?.text
        else { return nil }
        if let sum = json["MD5OfBody"]?.text, sum != MessageSum.ofBody(text) { return nil }
        let attributes = json["MessageAttributes"]?.members ?? [:]
        if let sum = json["MD5OfMessageAttributes"]?.text, !attributes.isEmpty,
            let own = MessageSum.ofAttributes(attributes), sum != own
        {
            return nil
        }
        guard let body = self.body(text, attributes[self.encodingName]?["StringValue"]?.text) else { return nil }
        let system = json["Attributes"]?.members ?? [:]
        var headers = self.headers(attributes)
        let group = system["MessageGroupId"]?.text
        if let group, !(isFIFO && group == defaultGroup) { headers[self.groupName] = group }
        if let trace = system["AWSTraceHeader"]?.text { headers[self.traceName] = trace }
        // Stalk's forerunner sent a new message for each retry and counted in an attribute.
        let retries = attributes["Retries"].flatMap {
            $0["DataType"]?.text == "Number" ? $0["StringValue"]?.integer : nil
        }
        let count = system["ApproximateReceiveCount"]?.integer ?? 1
        return ReceivedMessage(
            id: MessageID(id),
            handle: handle,
            body: body,
            headers: headers,
            attempt: max(1, count) + max(0, min(retries ?? 0, 1_000_000)),
            publishedAt: Timestamp(millisecondsSince1970: Int64(system["SentTimestamp"]?.integer ?? 0)),
            group: isFIFO ? group : nil
        )
    }

    private static func body(_ text: String, _ encoding: String?) -> [UInt8]? {
        switch encoding {
        case "empty": []
        case "base64": Base64.decode(text)
        default: Array(text.utf8)
        }
    }

    private static func headers(_ attributes: [String: JSON]) -> Headers {
        var headers = Headers()
        for (name, attribute) in attributes.sorted(by: { $0.key < $1.key }) {
            let value = attribute["StringValue"]?.text ?? attribute["BinaryValue"]?.text ?? ""
            switch name {
            case self.encodingName:
                continue
            case self.headersName:
                guard let list = try? JSON(Array(value.utf8)).elements else { continue }
                for index in stride(from: 0, to: list.count - 1, by: 2) {
                    if let name = list[index].text, let value = list[index + 1].text { headers[name] = value }
                }
            default:
                headers[name] = value
            }
        }
        return headers
    }
}
