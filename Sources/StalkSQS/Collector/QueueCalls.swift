// The calls on one queue, with an outcome for each entry of a batch.

internal import StalkCore

/// One queue of SQS: sends, receives, deletes, and changes how long messages are kept from others.
struct QueueCalls: Sendable {
    let client: SQSClient
    let url: String
    /// The queue as people know it.
    let name: String
    let limits: QueueLimits
    let defaultGroup: String

    // MARK: Receiving

    /// Asks for messages.
    ///
    /// - Returns: What came whole; what came damaged is left to come again when its visibility is over.
    func receive(_ poll: IntakeStateMachine.Poll) async throws -> [ReceivedMessage] {
        var writer = JSONWriter()
        writer.object { writer in
            writer.member("QueueUrl", self.url)
            writer.member("MaxNumberOfMessages", poll.max)
            writer.member("WaitTimeSeconds", poll.waitSeconds)
            writer.member("VisibilityTimeout", poll.visibilitySeconds)
            writer.member("MessageSystemAttributeNames", ["All"])
            writer.member("MessageAttributeNames", ["All"])
            // The same over all tries: an answer that was lost is given again instead of hiding its messages.
            if self.limits.isFIFO { writer.member("ReceiveRequestAttemptId", randomUUID()) }
        }
        let answer = try await self.client.call(
            .receiveMessage,
            writer.bytes,
            queue: self.name,
            pollWait: .seconds(poll.waitSeconds)
        )
        return (answer["Messages"]?.elements ?? []).compactMap { message in
            MessageCoding.decode(message, defaultGroup: self.defaultGroup, isFIFO: self.limits.isFIFO)
        }
    }

    /// Whether SQS counts no message at all.
    func isEmpty() async throws -> Bool {
        var writer = JSONWriter()
        writer.object { writer in
            writer.member("QueueUrl", self.url)
            writer.member(
                "AttributeNames",
                [
                    "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed",
                    "ApproximateNumberOfMessagesNotVisible",
                ]
            )
        }
        let answer = try await self.client.call(.getQueueAttributes, writer.bytes, queue: self.name)
        let counts = (answer["Attributes"]?.members ?? [:]).filter { $0.key.hasPrefix("ApproximateNumberOfMessages") }
        return !counts.isEmpty && counts.values.allSatisfy { $0.integer == 0 }
    }

    // MARK: Batches

    /// Sends up to ten messages.
    func send(_ messages: [EncodedMessage]) async -> [Result<MessageID, StalkError>] {
        await self.batch(.sendMessageBatch, messages) { writer, message in
            Self.write(message, to: &writer)
        } read: { answer, message throws(StalkError) in
            let isWhole =
                answer["MD5OfMessageBody"]?.text.map { $0 == MessageSum.ofBody(message.body) } ?? true
                && (answer["MD5OfMessageAttributes"]?.text.map { $0 == MessageSum.ofAttributes(message.attributes) }
                    ?? true)
            guard isWhole else {
                throw StalkError(
                    .unavailable,
                    "SQS stored something else than was sent to \(quoted(self.name)): publish it again, "
                        + "and expect a damaged copy."
                )
            }
            return MessageID(answer["MessageId"]?.text ?? "")
        }
    }

    private static func write(_ message: EncodedMessage, to writer: inout JSONWriter) {
        writer.member("MessageBody", message.body)
        writer.member("DelaySeconds", message.delaySeconds)
        writer.member("MessageGroupId", message.group)
        writer.member("MessageDeduplicationId", message.deduplicationID)
        if !message.attributes.isEmpty {
            writer.key("MessageAttributes")
            writer.object { writer in
                for attribute in message.attributes { Self.write(attribute.name, attribute.value, to: &writer) }
            }
        }
        if let trace = message.traceHeader {
            writer.key("MessageSystemAttributes")
            writer.object { Self.write("AWSTraceHeader", trace, to: &$0) }
        }
    }

    private static func write(_ name: String, _ value: String, to writer: inout JSONWriter) {
        writer.key(name)
        writer.object { writer in
            writer.member("DataType", "String")
            writer.member("StringValue", value)
        }
    }

    /// Deletes up to ten messages.
    func delete(_ handles: [String]) async -> [Result<Void, StalkError>] {
        await self.batch(.deleteMessageBatch, handles) { writer, handle in
            writer.member("ReceiptHandle", handle)
        } read: { _, _ throws(StalkError) in
        }
    }

    /// Changes how long up to ten messages are kept from others, counted from now.
    func change(_ changes: [IntakeStateMachine.VisibilityChange]) async -> [Result<Void, StalkError>] {
        await self.batch(.changeMessageVisibilityBatch, changes) { writer, change in
            writer.member("ReceiptHandle", change.handle)
            writer.member("VisibilityTimeout", change.seconds)
        } read: { _, _ throws(StalkError) in
        }
    }

    /// Calls a batch operation until every entry has its outcome, or the tries are used up.
    ///
    /// An entry that fails on the server's side, and one that the answer does not name, are sent again; one that is the
    /// sender's fault is not.
    private func batch<Entry: Sendable, Outcome: Sendable>(
        _ operation: Operation,
        _ entries: [Entry],
        write: (inout JSONWriter, Entry) -> Void,
        read: (JSON, Entry) throws(StalkError) -> Outcome
    ) async -> [Result<Outcome, StalkError>] {
        let silence = StalkError(
            operation == .sendMessageBatch ? .interrupted : .unavailable,
            "SQS gave no outcome for an entry of \(operation.action): it is in "
                + "doubt."
        )
        var results = [Result<Outcome, StalkError>](repeating: .failure(silence), count: entries.count)
        var open = Array(entries.indices)
        for attempt in 1...self.client.settings.maxAttempts where !open.isEmpty {
            if attempt > 1 { try? await self.client.rest(afterPartialFailure: attempt - 1) }
            let answer: JSON
            do {
                answer = try await self.client.call(
                    operation,
                    self.body(open.map { ($0, entries[$0]) }, write),
                    queue: self.name
                )
            } catch let error as StalkError where error.code == .invalidArgument && open.count > 1 {
                // Some servers refuse a whole batch for one entry: it is found by sending each by itself.
                for index in open {
                    let alone = await self.alone(operation, entries[index], write: write, read: read)
                    results[index] = alone
                }
                return results
            } catch {
                let failure = error as? StalkError ?? StalkError(.interrupted, "\(operation.action) was cut short.")
                for index in open {
                    // What an earlier answer did not name stays in doubt, whatever becomes of its second try.
                    if attempt > 1, case .failure(let earlier) = results[index], earlier.code == .interrupted {
                        continue
                    }
                    results[index] = .failure(failure)
                }
                return results
            }
            for success in answer["Successful"]?.elements ?? [] {
                guard let index = success["Id"]?.integer, open.contains(index) else { continue }
                results[index] = Result { () throws(StalkError) in try read(success, entries[index]) }
                open.removeAll { $0 == index }
            }
            for failed in answer["Failed"]?.elements ?? [] {
                guard let index = failed["Id"]?.integer, open.contains(index) else { continue }
                results[index] = .failure(self.explain(failed, operation))
                if failed["SenderFault"]?.isTrue == true { open.removeAll { $0 == index } }
            }
        }
        return results
    }

    private func alone<Entry: Sendable, Outcome: Sendable>(
        _ operation: Operation,
        _ entry: Entry,
        write: (inout JSONWriter, Entry) -> Void,
        read: (JSON, Entry) throws(StalkError) -> Outcome
    ) async -> Result<Outcome, StalkError> {
        await self.batch(operation, [entry], write: write, read: read)[0]
    }

    private func body<Entry>(_ entries: [(Int, Entry)], _ write: (inout JSONWriter, Entry) -> Void) -> [UInt8] {
        var writer = JSONWriter()
        writer.object { writer in
            writer.member("QueueUrl", self.url)
            writer.key("Entries")
            writer.array { writer in
                for (index, entry) in entries {
                    writer.object { writer in
                        writer.member("Id", String(index))
                        write(&writer, entry)
                    }
                }
            }
        }
        return writer.bytes
    }

    private func explain(_ failed: JSON, _ operation: Operation) -> StalkError {
        let isSenders = failed["SenderFault"]?.isTrue == true
        let error = ServiceError(
            status: isSenders ? 400 : 500,
            code: failed["Code"]?.text?.split(separator: ".").last.map { String($0) } ?? "",
            message: failed["Message"]?.text ?? ""
        )
        return error.stalkError(
            CallContext(action: operation.action, queue: self.name, region: self.client.settings.region)
        )
    }
}

extension QueueCalls {
    /// Finds a queue by name and reads what it allows.
    ///
    /// - Parameters:
    ///   - client: Who asks.
    ///   - name: The queue's name.
    ///   - url: Its address, where it is known.
    ///   - account: Whose it is, when it is another's.
    /// - Returns: The queue, and the address of its redrive policy's target.
    static func find(
        _ client: SQSClient,
        name: String,
        url: String?,
        account: String?,
        defaultGroup: String
    ) async throws -> (queue: QueueCalls, redriveTarget: String?) {
        let url = try await Self.address(client, name: name, url: url, account: account)
        var writer = JSONWriter()
        writer.object { writer in
            writer.member("QueueUrl", url)
            writer.member("AttributeNames", ["All"])
        }
        var limits = QueueLimits(isFIFO: name.hasSuffix(".fifo"))
        var target: String?
        do {
            let answer = try await client.call(.getQueueAttributes, writer.bytes, queue: name)
            let attributes = answer["Attributes"]
            limits.maxMessageBytes = attributes?["MaximumMessageSize"]?.integer ?? limits.maxMessageBytes
            let policy = attributes?["RedrivePolicy"]?.text.flatMap { try? JSON(Array($0.utf8)) }
            target = policy?["deadLetterTargetArn"]?.text
        } catch let error as StalkError where error.code == .permissionDenied {
            // Somebody who may only send need not be allowed to look: the general limits hold then.
        }
        let queue = QueueCalls(client: client, url: url, name: name, limits: limits, defaultGroup: defaultGroup)
        return (queue, target)
    }

    private static func address(
        _ client: SQSClient,
        name: String,
        url: String?,
        account: String?
    ) async throws -> String {
        if let url { return url }
        var writer = JSONWriter()
        writer.object { writer in
            writer.member("QueueName", name)
            writer.member("QueueOwnerAWSAccountId", account)
        }
        guard let url = try await client.call(.getQueueURL, writer.bytes, queue: name)["QueueUrl"]?.text else {
            throw StalkError(.unavailable, "SQS did not say where the queue \(quoted(name)) is: try again.")
        }
        return url
    }
}
