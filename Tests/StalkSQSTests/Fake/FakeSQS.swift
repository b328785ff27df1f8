// SQS in memory, as its documentation has it, with faults on demand: what no other server of its kind can give.

import StalkCore
import StalkTesting
import Synchronization

@testable import StalkSQS

/// What goes wrong with one request.
enum FakeFault: Sendable {
    /// Nothing is done, and this is answered.
    case answer(Int, String, headers: [String: String] = [:])
    /// Nothing is done, and no answer comes.
    case notSent
    /// It is done, but the answer is lost.
    case lost
    /// It is done, but the answer is this.
    case garbled(String)
    /// The first entries that the condition picks are not done, and fail.
    case failEntries([Int], senderFault: Bool, code: String)
    /// An entry is done, but the answer does not name it.
    case omitEntry(Int)
    /// The answer names an entry that nobody sent besides.
    case unknownEntry
    /// The sums of what was stored or handed out are of something else.
    case wrongSum
    /// A received message is handed out again at once.
    case duplicate
}

/// A server in memory; it is a transport, so that no network is needed.
final class FakeSQS: Transport {
    struct Stored: Sendable {
        var id: String
        var number: Int
        var body: String
        var attributes: JSON?
        var trace: String?
        var group: String?
        var sentAt: Timestamp
        var visibleAt: Duration
        var receivedAt = Duration.zero
        var handle: String?
        var receiveCount = 0
    }

    struct Queue: Sendable {
        var attributes: [String: String] = ["MaximumMessageSize": "1048576"]
        var messages: [Stored] = []
        var deduplicated: [String: String] = [:]
        /// Every handle that was ever given out.
        var handles: Set<String> = []
        var attemptAnswers: [String: JSON] = [:]
    }

    private struct State {
        var queues: [String: Queue] = [:]
        var next = 0
        var faults: [StalkSQS.Operation: [FakeFault]] = [:]
        var requests: [(operation: StalkSQS.Operation, body: JSON)] = []
        var waiting: [Int: AsyncStream<Void>.Continuation] = [:]
        /// Draws the order of a standard queue, which promises none.
        var disorder: SeededGenerator?
    }

    private let state = Mutex(State())
    let clock: ElapsedClock
    let wallTime: @Sendable () -> Timestamp

    init(clock: ManualClock) {
        self.clock = ElapsedClock(clock)
        self.wallTime = { clock.wallTime() }
    }

    init() {
        self.clock = ElapsedClock(ContinuousClock())
        self.wallTime = { .system() }
    }

    // MARK: For tests

    func createQueue(_ name: String, _ attributes: [String: String] = [:]) {
        self.state.withLock { $0.queues[name, default: Queue()].attributes.merge(attributes) { $1 } }
    }

    func fail(_ operation: StalkSQS.Operation, _ faults: FakeFault...) {
        self.state.withLock { $0.faults[operation, default: []] += faults }
    }

    /// From here on standard queues hand messages out in an order drawn from a seed.
    func shuffle(seed: UInt64) { self.state.withLock { $0.disorder = SeededGenerator(seed: seed) } }

    func messages(_ queue: String) -> [Stored] { self.state.withLock { $0.queues[queue]?.messages ?? [] } }

    func put(_ queue: String, body: String, attributes: JSON? = nil) {
        let now = self.clock.elapsed()
        self.change { state in
            state.next += 1
            let message = Stored(
                id: "id-\(state.next)",
                number: state.next,
                body: body,
                attributes: attributes,
                sentAt: self.wallTime(),
                visibleAt: now
            )
            state.queues[queue]?.messages.append(message)
        }
    }

    /// The polls that wait for a message.
    var waitingPolls: Int { self.state.withLock { $0.waiting.count } }

    var requestCount: Int { self.state.withLock { $0.requests.count } }

    func requests(_ operation: StalkSQS.Operation) -> [JSON] {
        self.state.withLock { $0.requests.filter { $0.operation == operation }.map(\.body) }
    }

    func open(_ queue: String, _ configuration: SQSConfiguration = .test) async throws -> SQSCollector {
        try await SQSCollector.open(
            queue,
            configuration: configuration,
            transport: self,
            surroundings: FakeWorld(["AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s"]).surroundings,
            clock: self.clock
        )
    }

    // MARK: As a transport

    func close() async {}

    func send(_ call: HTTPCall) async throws -> HTTPAnswer {
        let target = call.headers.first { $0.name == "X-Amz-Target" }?.value ?? ""
        guard let operation = Operation(rawValue: String(target.dropFirst("AmazonSQS.".count))) else {
            return Self.refuse("UnknownOperationException", target)
        }
        let body = try JSON(call.body)
        let fault = self.state.withLock { state -> FakeFault? in
            state.requests.append((operation, body))
            guard state.faults[operation]?.isEmpty == false else { return nil }
            return state.faults[operation]?.removeFirst()
        }
        switch fault {
        case .answer(let status, let text, let headers):
            return HTTPAnswer(status: status, headers: headers, body: Array(text.utf8))
        case .notSent: throw TransportFailure.notSent("connection refused")
        default: break
        }
        let answer = try await self.answer(operation, body, fault)
        switch fault {
        case .lost: throw TransportFailure.ambiguous("reset by peer")
        case .garbled(let text): return HTTPAnswer(status: 200, headers: [:], body: Array(text.utf8))
        default: return answer
        }
    }

    static func refuse(_ code: String, _ message: String) -> HTTPAnswer {
        HTTPAnswer(
            status: 400,
            headers: [:],
            body: Array(#"{"__type":"com.amazonaws.sqs#\#(code)","message":"\#(message)"}"#.utf8)
        )
    }

    private static func accept(_ json: JSON) -> HTTPAnswer {
        HTTPAnswer(status: 200, headers: [:], body: json.written)
    }

    private func answer(_ operation: StalkSQS.Operation, _ body: JSON, _ fault: FakeFault?) async throws -> HTTPAnswer {
        if operation == .getQueueURL {
            let name = body["QueueName"]?.text ?? ""
            guard self.state.withLock({ $0.queues[name] != nil }) else { return Self.refuse("QueueDoesNotExist", "no") }
            return Self.accept(.object(["QueueUrl": .string("http://fake/1/\(name)")]))
        }
        let name = (body["QueueUrl"]?.text ?? "").split(separator: "/").last.map { String($0) } ?? ""
        guard let queue = self.state.withLock({ $0.queues[name] }) else {
            return Self.refuse("QueueDoesNotExist", "no")
        }
        switch operation {
        case .getQueueURL: return Self.refuse("UnknownOperationException", "")
        case .getQueueAttributes:
            let counts = self.counts(queue)
            let attributes = queue.attributes.merging(counts) { $1 }
            return Self.accept(.object(["Attributes": .object(attributes.mapValues { .string($0) })]))
        case .receiveMessage: return try await self.receive(name, body, fault)
        case .sendMessageBatch, .deleteMessageBatch, .changeMessageVisibilityBatch:
            return self.batch(operation, name, body, fault)
        }
    }

    private func counts(_ queue: Queue) -> [String: String] {
        let now = self.clock.elapsed()
        let hidden = queue.messages.filter { $0.visibleAt > now }
        return [
            "ApproximateNumberOfMessages": String(queue.messages.count - hidden.count),
            "ApproximateNumberOfMessagesDelayed": String(hidden.count { $0.handle == nil }),
            "ApproximateNumberOfMessagesNotVisible": String(hidden.count { $0.handle != nil }),
        ]
    }

    // MARK: Batches

    private func batch(_ operation: StalkSQS.Operation, _ name: String, _ body: JSON, _ fault: FakeFault?) -> HTTPAnswer
    {
        let entries = body["Entries"]?.elements ?? []
        guard (1...10).contains(entries.count) else { return Self.refuse("TooManyEntriesInBatchRequest", "10") }
        let ids = entries.compactMap { $0["Id"]?.text }
        guard Set(ids).count == entries.count else { return Self.refuse("BatchEntryIdsNotDistinct", "") }
        let total = entries.reduce(0) { $0 + Self.size($1) }
        guard operation != .sendMessageBatch || total <= 1_048_576 else {
            return Self.refuse("BatchRequestTooLong", "")
        }
        var (successful, failed) = ([JSON](), [JSON]())
        for (position, entry) in entries.enumerated() {
            let id = entry["Id"] ?? .null
            if case .failEntries(let positions, let senderFault, let code) = fault, positions.contains(position) {
                failed.append(.object(["Id": id, "SenderFault": .bool(senderFault), "Code": .string(code)]))
                continue
            }
            let outcome = self.change { state in
                switch operation {
                case .sendMessageBatch: self.store(entry, name, &state, isWrong: fault.map(\.isWrongSum) ?? false)
                case .deleteMessageBatch: Self.delete(entry, name, &state)
                default: self.changeVisibility(entry, name, &state)
                }
            }
            if case .omitEntry(position) = fault { continue }
            switch outcome {
            case .success(let members): successful.append(.object(members.merging(["Id": id]) { $1 }))
            case .failure(let error):
                failed.append(.object(["Id": id, "SenderFault": .bool(true), "Code": .string(error.code)]))
            }
        }
        if case .unknownEntry = fault { successful.append(.object(["Id": .string("77"), "MessageId": .string("x")])) }
        var members: [String: JSON] = [:]
        if !successful.isEmpty { members["Successful"] = .array(successful) }
        if !failed.isEmpty { members["Failed"] = .array(failed) }
        return Self.accept(.object(members))
    }

    private static func size(_ entry: JSON) -> Int {
        let attributes = entry["MessageAttributes"]?.members ?? [:]
        return attributes.reduce(entry["MessageBody"]?.text?.utf8.count ?? 0) { sum, attribute in
            sum + attribute.key.utf8.count + (attribute.value["DataType"]?.text?.utf8.count ?? 0)
                + (attribute.value["StringValue"]?.text?.utf8.count ?? 0)
        }
    }

    struct Refusal: Error { var code: String }

    private func store(
        _ entry: JSON,
        _ name: String,
        _ state: inout State,
        isWrong: Bool
    ) -> Result<[String: JSON], Refusal> {
        guard var queue = state.queues[name] else { return .failure(Refusal(code: "QueueDoesNotExist")) }
        let body = entry["MessageBody"]?.text ?? ""
        let attributes = entry["MessageAttributes"]?.members ?? [:]
        let delay = entry["DelaySeconds"]?.integer ?? 0
        let isFIFO = name.hasSuffix(".fifo")
        let limit = queue.attributes["MaximumMessageSize"].flatMap { Int($0) } ?? 0
        guard !body.isEmpty, SQSText.isLegal(Array(body.utf8)) else {
            return .failure(Refusal(code: "InvalidMessageContents"))
        }
        guard (0...900).contains(delay), Self.size(entry) <= limit, attributes.count <= 10,
            !isFIFO || (delay == 0 && entry["MessageGroupId"] != nil),
            attributes.values.allSatisfy({ $0["StringValue"]?.text?.isEmpty == false })
        else { return .failure(Refusal(code: "InvalidParameterValue")) }
        state.next += 1
        let sums: [String: JSON] = [
            "MD5OfMessageBody": .string(isWrong ? "00" : MessageSum.ofBody(body)),
            "MD5OfMessageAttributes": .string(MessageSum.ofAttributes(attributes) ?? ""),
        ]
        let deduplication = isFIFO ? entry["MessageDeduplicationId"]?.text : nil
        if let known = deduplication.flatMap({ queue.deduplicated[$0] }) {
            return .success(sums.merging(["MessageId": .string(known)]) { $1 })
        }
        let message = Stored(
            id: "id-\(state.next)",
            number: state.next,
            body: body,
            attributes: attributes.isEmpty ? nil : .object(attributes),
            trace: entry["MessageSystemAttributes"]?["AWSTraceHeader"]?["StringValue"]?.text,
            group: entry["MessageGroupId"]?.text,
            sentAt: self.wallTime(),
            visibleAt: self.clock.elapsed() + .seconds(delay)
        )
        if let deduplication { queue.deduplicated[deduplication] = message.id }
        queue.messages.append(message)
        state.queues[name] = queue
        return .success(sums.merging(["MessageId": .string(message.id)]) { $1 })
    }

    /// A receipt that is no longer the newest is accepted, and deletes nothing: SQS's documented behaviour.
    private static func delete(_ entry: JSON, _ name: String, _ state: inout State) -> Result<[String: JSON], Refusal> {
        let handle = entry["ReceiptHandle"]?.text ?? ""
        guard state.queues[name]?.handles.contains(handle) == true else {
            return .failure(Refusal(code: "ReceiptHandleIsInvalid"))
        }
        state.queues[name]?.messages.removeAll { $0.handle == handle }
        return .success([:])
    }

    private func changeVisibility(
        _ entry: JSON,
        _ name: String,
        _ state: inout State
    ) -> Result<[String: JSON], Refusal> {
        let handle = entry["ReceiptHandle"]?.text ?? ""
        guard state.queues[name]?.handles.contains(handle) == true else {
            return .failure(Refusal(code: "ReceiptHandleIsInvalid"))
        }
        let now = self.clock.elapsed()
        guard let seconds = entry["VisibilityTimeout"]?.integer, (0...43_200).contains(seconds),
            let index = state.queues[name]?.messages.firstIndex(where: { $0.handle == handle && $0.visibleAt > now }),
            let receivedAt = state.queues[name]?.messages[index].receivedAt
        else { return .failure(Refusal(code: "MessageNotInflight")) }
        guard now + .seconds(seconds) <= receivedAt + .seconds(43_200) else {
            return .failure(Refusal(code: "InvalidParameterValue"))
        }
        state.queues[name]?.messages[index].visibleAt = now + .seconds(seconds)
        return .success([:])
    }

    // MARK: Receiving

    private func receive(_ name: String, _ body: JSON, _ fault: FakeFault?) async throws -> HTTPAnswer {
        let wait = Duration.seconds(body["WaitTimeSeconds"]?.integer ?? 0)
        let most = body["MaxNumberOfMessages"]?.integer ?? 1
        guard (1...10).contains(most), wait <= .seconds(20) else { return Self.refuse("InvalidParameterValue", "") }
        let attempt = body["ReceiveRequestAttemptId"]?.text
        if let attempt, let answer = self.state.withLock({ $0.queues[name]?.attemptAnswers[attempt] }) {
            return Self.accept(answer)
        }
        let deadline = self.clock.elapsed() + wait
        while true {
            let (messages, next, news, number) = self.look(name, most, body, fault)
            let now = self.clock.elapsed()
            if !messages.isEmpty || now >= deadline {
                self.state.withLock { _ = $0.waiting.removeValue(forKey: number) }
                let answer = JSON.object(messages.isEmpty ? [:] : ["Messages": .array(messages)])
                if let attempt { self.state.withLock { $0.queues[name]?.attemptAnswers[attempt] = answer } }
                return Self.accept(answer)
            }
            defer { self.state.withLock { _ = $0.waiting.removeValue(forKey: number) } }
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { for await _ in news { return } }
                group.addTask { try await self.clock.sleep(min(deadline, next ?? deadline)) }
                defer { group.cancelAll() }
                try await group.next()
            }
        }
    }

    /// Takes what is visible, or signs up for news.
    private func look(
        _ name: String,
        _ most: Int,
        _ body: JSON,
        _ fault: FakeFault?
    ) -> (messages: [JSON], next: Duration?, news: AsyncStream<Void>, number: Int) {
        let now = self.clock.elapsed()
        let (news, continuation) = AsyncStream.makeStream(of: Void.self)
        let visibility = Duration.seconds(body["VisibilityTimeout"]?.integer ?? 30)
        return self.state.withLock { state in
            guard var queue = state.queues[name] else { return ([], nil, news, -1) }
            var taken: [JSON] = []
            var lockedGroups: Set<String> = []
            if name.hasSuffix(".fifo") {
                lockedGroups = Set(queue.messages.filter { $0.handle != nil && $0.visibleAt > now }.compactMap(\.group))
            }
            var order = queue.messages.indices.sorted { queue.messages[$0].number < queue.messages[$1].number }
            if var disorder = state.disorder, !name.hasSuffix(".fifo") {
                order.shuffle(using: &disorder)
                state.disorder = disorder
            }
            for index in order where taken.count < most && queue.messages[index].visibleAt <= now {
                if let group = queue.messages[index].group, lockedGroups.contains(group) { continue }
                state.next += 1
                var message = queue.messages[index]
                message.handle = "handle-\(state.next)"
                message.receiveCount += 1
                message.receivedAt = now
                message.visibleAt = if case .duplicate = fault { now } else { now + visibility }
                queue.handles.insert("handle-\(state.next)")
                queue.messages[index] = message
                taken.append(message.json(isWrong: fault.map(\.isWrongSum) ?? false))
            }
            state.queues[name] = queue
            state.next += 1
            if taken.isEmpty { state.waiting[state.next] = continuation }
            return (taken, queue.messages.map(\.visibleAt).filter { $0 > now }.min(), news, state.next)
        }
    }

    /// Changes something, and lets the polls that wait look again.
    private func change<Value>(_ body: (inout State) -> Value) -> Value {
        let (value, waiting) = self.state.withLock { state in
            let value = body(&state)
            return (value, Array(state.waiting.values))
        }
        for continuation in waiting { continuation.yield() }
        return value
    }
}

extension FakeFault {
    fileprivate var isWrongSum: Bool { if case .wrongSum = self { true } else { false } }
}

extension FakeSQS.Stored {
    fileprivate func json(isWrong: Bool) -> JSON {
        var system: [String: JSON] = [
            "ApproximateReceiveCount": .string(String(self.receiveCount)),
            "SentTimestamp": .string(String(self.sentAt.millisecondsSince1970)),
        ]
        if let group = self.group { system["MessageGroupId"] = .string(group) }
        if let trace = self.trace { system["AWSTraceHeader"] = .string(trace) }
        var members: [String: JSON] = [
            "MessageId": .string(self.id), "ReceiptHandle": .string(self.handle ?? ""), "Body": .string(self.body),
            "MD5OfBody": .string(isWrong ? "00" : MessageSum.ofBody(self.body)), "Attributes": .object(system),
        ]
        if let attributes = self.attributes {
            members["MessageAttributes"] = attributes
            members["MD5OfMessageAttributes"] = .string(MessageSum.ofAttributes(attributes.members) ?? "")
        }
        return .object(members)
    }
}

extension JSON {
    /// The value as text.
    var written: [UInt8] {
        var writer = JSONWriter()
        self.write(to: &writer)
        return writer.bytes
    }

    private func write(to writer: inout JSONWriter) {
        switch self {
        case .null: writer.string("")
        case .bool(let value): writer.literal(value ? "true" : "false")
        case .number(let text): writer.literal(text)
        case .string(let text): writer.string(text)
        case .array(let elements): writer.array { for element in elements { element.write(to: &$0) } }
        case .object(let members):
            writer.object { writer in
                for (key, value) in members.sorted(by: { $0.key < $1.key }) {
                    writer.key(key)
                    value.write(to: &writer)
                }
            }
        }
    }
}

extension SQSConfiguration {
    /// Without linger, since a manual clock does not move by itself.
    static var test: SQSConfiguration {
        SQSConfiguration(region: "eu-west-1", errorQueue: "errors", linger: .zero)
    }
}
