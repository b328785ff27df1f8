// How deliveries end, and how their leases are kept.

public import StalkCore

extension SQSCollector {
    /// Ends deliveries; see ``StalkCore/Collector/finish(_:durability:)``.
    public func finish(
        _ completions: [Completion],
        durability: Durability
    ) async throws -> [Result<Void, StalkError>] {
        try self.checkBatch(completions.count, "completions")
        let ends = completions.map { completion in
            Result { () throws(StalkError) in try self.end(completion) }
        }
        let handles = ends.compactMap { try? $0.get().handle }
        self.step { state, _ in
            state.machine.endBegins(handles)
            return []
        }
        return await withTaskGroup(of: [(Int, Result<Void, StalkError>)].self) { group in
            var results: [Result<Void, StalkError>] = ends.map { $0.map { _ in } }
            var (deletes, changes) = ([(Int, String)](), [(Int, IntakeStateMachine.VisibilityChange)]())
            for (index, end) in ends.enumerated() {
                switch try? end.get() {
                case .delete(let handle): deletes.append((index, handle))
                case .change(let handle, let seconds):
                    changes.append((index, IntakeStateMachine.VisibilityChange(handle: handle, seconds: seconds)))
                case .deadLetter(let message, let reason):
                    group.addTask { [(index, await self.deadLetter(message, reason))] }
                case .nothing, nil: break
                }
            }
            group.addTask { [deletes] in
                Array(zip(deletes.map(\.0), await self.delete(deletes.map(\.1))))
            }
            group.addTask { [changes] in
                let answers = await self.changer.add(changes.map(\.1))
                for (change, answer) in zip(changes, answers) {
                    self.ended(change.1.handle, answer, acknowledged: false)
                }
                return Array(zip(changes.map(\.0), answers))
            }
            for await answers in group { for (index, answer) in answers { results[index] = answer } }
            return results
        }
    }

    enum End {
        case delete(String)
        case change(String, seconds: Int)
        case deadLetter(ReceivedMessage, String)
        /// It is done already.
        case nothing

        var handle: String? {
            switch self {
            case .delete(let handle), .change(let handle, _): handle
            case .deadLetter(let message, _): message.handle
            case .nothing: nil
            }
        }
    }

    /// What a completion asks of SQS, refused before anything is sent where it can't be done.
    func end(_ completion: Completion) throws(StalkError) -> End {
        let handle = try self.handle(of: completion.receipt)
        if case .acknowledgeAndPublish = completion.disposition {
            throw StalkError(.unsupported, "SQS can't acknowledge and publish in one step: publish first.")
        }
        if case .retry(let delay, _) = completion.disposition {
            try Message.validate(delay: delay, largest: QueueLimits.maxVisibility)
        }
        let standing = self.state.withLock { $0.machine.standing(of: handle) }
        if case .acknowledged = standing, completion.disposition == .acknowledge { return .nothing }
        switch standing {
        case .acknowledged, .stale: throw self.stale()
        case .held, .unknown: break
        }
        switch completion.disposition {
        case .acknowledge, .acknowledgeAndPublish: return .delete(handle)
        case .release: return .change(handle, seconds: 0)
        case .retry(let delay, _):
            if case .held(_, let receivedAt) = standing { try self.checkTotal(delay, since: receivedAt) }
            return .change(handle, seconds: IntakeStateMachine.wholeSeconds(delay))
        case .deadLetter(let reason):
            guard self.errorSender != nil else {
                throw StalkError(
                    .unsupported,
                    "There is no queue for what fails for good: name an error queue, or give \(self.queue) a redrive "
                        + "policy."
                )
            }
            // What is not held any more can't be published: its body is gone.
            guard case .held(let message, _) = standing else { throw self.stale() }
            return .deadLetter(message, reason)
        }
    }

    func delete(_ handles: [String]) async -> [Result<Void, StalkError>] {
        let answers = await self.deleter.add(handles)
        for (handle, answer) in zip(handles, answers) { self.ended(handle, answer, acknowledged: true) }
        let deleted = answers.count { (try? $0.get()) != nil }
        self.state.withLock { $0.deleted += deleted }
        return answers
    }

    /// Publishes to the error queue, and deletes only when that succeeded.
    func deadLetter(_ received: ReceivedMessage, _ reason: String) async -> Result<Void, StalkError> {
        guard let errorSender = self.errorSender, let errorCalls = self.errorCalls else {
            return .failure(self.stale())
        }
        var message = Message(received.body, headers: received.headers)
        message.headers[MessageCoding.reasonName] = String(reason.prefix(1000))
        if errorCalls.limits.isFIFO { message.headers[MessageCoding.deduplicationName] = received.id.rawValue }
        let sent: Result<MessageID, StalkError>
        do {
            var limits = errorCalls.limits
            // The reason may need more room than the queue has to give; SQS itself has the last word.
            limits.maxMessageBytes += 2000
            let encoded = try MessageCoding.encode(message, limits: limits, defaultGroup: errorCalls.defaultGroup)
            sent = await errorSender.add([encoded])[0]
        } catch {
            sent = .failure(error)
        }
        guard case .failure(let error) = sent else { return await self.delete([received.handle])[0] }
        self.ended(received.handle, .failure(error), acknowledged: false)
        return .failure(error)
    }

    func ended(_ handle: String, _ answer: Result<Void, StalkError>, acknowledged: Bool) {
        self.step { state, now in
            switch answer {
            case .success: state.machine.ended(handle, acknowledged: acknowledged, now: now)
            case .failure(let error) where error.code == .staleReceipt:
                state.machine.ended(handle, acknowledged: false, now: now)
            case .failure: state.machine.endFailed(handle, now: now)
            }
        }
    }

    // MARK: Extending

    /// Extends leases; see ``StalkCore/Collector/extend(_:lease:)``.
    public func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        try self.checkBatch(receipts.count, "receipts")
        try TakeRequest.validate(lease: lease, for: self.capabilities)
        let seconds = IntakeStateMachine.wholeSeconds(lease)
        let handles = receipts.map { receipt in
            Result { () throws(StalkError) in
                let handle = try self.handle(of: receipt)
                switch self.state.withLock({ $0.machine.standing(of: handle) }) {
                case .acknowledged, .stale: throw self.stale()
                case .held(_, let receivedAt):
                    guard self.clock.elapsed() + lease <= receivedAt + QueueLimits.maxVisibility else {
                        throw StalkError(
                            .staleReceipt,
                            "SQS lets nobody keep a message for more than 12 hours: finish it, or it comes again."
                        )
                    }
                case .unknown: break
                }
                return handle
            }
        }
        let sentAt = self.clock.elapsed()
        let changes = handles.compactMap { try? $0.get() }.map {
            IntakeStateMachine.VisibilityChange(handle: $0, seconds: seconds)
        }
        let answers = await self.changer.add(changes)
        self.step { state, _ in
            for (change, answer) in zip(changes, answers) where (try? answer.get()) != nil {
                state.machine.extended(change.handle, to: sentAt + lease, seconds: seconds, sentAt: sentAt)
            }
            return []
        }
        var rest = answers[...]
        return handles.map { handle in
            switch handle {
            case .success: rest.popFirst() ?? .failure(self.stale())
            case .failure(let error): .failure(error)
            }
        }
    }
}
