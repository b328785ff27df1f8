// Publishing: to the remote while nothing waits for it, else behind what waits.

public import StalkCore
internal import StalkLocal

extension FailoverCollector {
    /// A message on its way in.
    private struct Item {
        var message: Message
        var id: MessageID
        var group: String
        var index: Int
        /// When it was sent without an answer.
        var doubt: Timestamp?

        /// How much of its delay it waits in the store, the rest at the remote.
        var localDelay: Duration = .zero

        /// What waits for its time has no place in line until that has come.
        var isCounted: Bool { self.localDelay == .zero }
    }

    /// Publishes messages and returns when each is safe: at the remote, or in the store.
    ///
    /// The ids are the messages' `Stalk-Id`. See ``StalkCore/Collector/publish(_:durability:)``.
    public func publish(
        _ messages: [Message],
        durability: Durability
    ) async throws -> [Result<MessageID, StalkError>] {
        let capabilities = self.capabilities
        guard messages.count <= capabilities.maxBatch else {
            throw StalkError(
                .invalidArgument,
                "The call has \(messages.count) messages, at most \(capabilities.maxBatch) go into one: split it."
            )
        }
        try await self.opened()
        guard !self.state.locked.withLock({ $0.isClosed }) else {
            throw StalkError(.closed, "The failover collector of \(self.queue) was closed: make another one.")
        }
        var results = [Result<MessageID, StalkError>?](repeating: nil, count: messages.count)
        var items: [Item] = []
        for (index, message) in messages.enumerated() {
            do throws(StalkError) {
                items.append(try self.prepare(message, index, capabilities))
            } catch {
                results[index] = .failure(error)
            }
        }
        let direct = self.chooseDirect(items)
        let stored = try await self.sendDirectly(direct, &results)
        let rest = (items.filter { item in !direct.contains { $0.index == item.index } } + stored)
            .sorted { $0.index < $1.index }
        try await self.store(rest, durability, &results)
        let silence = StalkError(.interrupted, "Nothing is known of this message: publish it again.")
        return results.map { $0 ?? .failure(silence) }
    }

    private func prepare(
        _ message: Message,
        _ index: Int,
        _ capabilities: CollectorCapabilities
    ) throws(StalkError) -> Item {
        var message = message
        let wall = self.wallTime()
        let id =
            message.headers[FailoverHeader.id]
            ?? self.state.locked.withLock { stableID(at: wall, using: &$0.random) }
        message.headers[FailoverHeader.id] = id
        if self.options.forwarding.sendsDeduplicationID(to: self.queue),
            message.headers[FailoverHeader.deduplicationID] == nil
        {
            message.headers[FailoverHeader.deduplicationID] = id
        }
        try message.validate(for: capabilities)
        let group = self.options.forwarding.order == .queue ? "" : message.headers[FailoverHeader.group] ?? ""
        var item = Item(message: message, id: MessageID(id), group: group, index: index)
        item.localDelay = max(message.delay - self.primary.capabilities.reach, .zero)
        return item
    }

    // MARK: Directly

    /// The messages that may go at once: all that could, or none.
    private func chooseDirect(_ items: [Item]) -> [Item] {
        guard self.options.mode == .direct else { return [] }
        // A delay that the remote would forget waits in the store.
        let reach = self.primary.capabilities.reach
        let free = self.state.locked.withLock { state in
            items.filter { $0.message.delay <= reach && state.routing.isFree($0.group) }
        }
        guard !free.isEmpty else { return [] }
        let moment = self.forwarder.moment
        let bytes = free.reduce(0) { $0 + $1.message.body.count }
        let isAdmitted = self.forwarder.state.withLock { state in
            state.machine.admitDirect(messages: free.count, bytes: bytes, moment)
        }
        return isAdmitted ? free : []
    }

    /// Sends to the remote.
    ///
    /// - Returns: What has to be stored instead, since it did not arrive or may not have.
    private func sendDirectly(
        _ items: [Item],
        _ results: inout [Result<MessageID, StalkError>?]
    ) async throws -> [Item] {
        var back: [Item] = []
        for part in items.parts(of: self.primary.capabilities.maxBatch) {
            // What comes behind something that must wait must wait as well.
            guard back.isEmpty else {
                back += part
                continue
            }
            let outcomes = await self.callPrimary(part)
            let moment = self.forwarder.moment
            let sizes = part.map(\.message.body.count)
            self.forwarder.directEnded(outcomes, sizes: sizes, moment)
            for (item, outcome) in zip(part, outcomes) {
                switch outcome {
                case .success:
                    results[item.index] = .success(item.id)
                    self.state.locked.withLock { $0.direct += 1 }
                case .failure(let error):
                    var item = item
                    switch FailureKind(error) {
                    case .message:
                        results[item.index] = .failure(error)
                        continue
                    case .ambiguous: item.doubt = moment.wall
                    case .queue, .throttled, .transport: break
                    }
                    back.append(item)
                }
            }
        }
        if !items.isEmpty { self.forwarder.nudge() }
        self.metrics.passed(direct: items.count - back.count)
        return back
    }

    /// Publishes at the remote, and waits for no longer than a direct publish may take.
    private func callPrimary(_ items: [Item]) async -> [Result<MessageID, StalkError>] {
        let sendsID = self.options.forwarding.sendsID
        let messages = items.map { item in
            var message = item.message
            if !sendsID { message.headers[FailoverHeader.id] = nil }
            return message
        }
        let (clock, primary, limit) = (self.clock, self.primary, self.options.directDeadline)
        let result: Result<[Result<MessageID, StalkError>], any Error> = await withCheckedContinuation { continuation in
            let once = Once(continuation)
            let deadline = clock.elapsed() + limit
            let alarm = Task {
                guard (try? await clock.sleep(deadline)) != nil else { return }
                let late = StalkError(
                    .interrupted,
                    "The remote did not answer within \(limit.stalkText): the message may have arrived."
                )
                once.resume(.failure(late))
            }
            Task {
                let result = await Task { try await primary.publish(messages, durability: .synced) }.result
                alarm.cancel()
                once.resume(result)
            }
        }
        return ForwardingStateMachine.results(result, count: items.count)
    }

    // MARK: Into the store

    private func store(
        _ items: [Item],
        _ durability: Durability,
        _ results: inout [Result<MessageID, StalkError>?]
    ) async throws {
        for part in items.parts(of: self.spoolQueue.capabilities.maxBatch) {
            var admitted: [Item] = []
            for item in part {
                do throws(StalkError) {
                    try await self.admit(item.group, bytes: item.message.body.count, isCounted: item.isCounted)
                    admitted.append(item)
                } catch {
                    self.state.locked.withLock { $0.refusedFull += 1 }
                    results[item.index] = .failure(error)
                }
            }
            let outcomes = await self.callSpool(admitted, durability)
            self.metrics.passed(stored: outcomes.count { (try? $0.get()) != nil })
            for (item, outcome) in zip(admitted, outcomes) {
                results[item.index] = outcome.map { _ in item.id }
                let isStored = (try? outcome.get()) != nil
                let isFull = if case .failure(let error) = outcome { error.code == .storageFull } else { false }
                self.state.locked.withLock { state in
                    if isStored { state.stored += 1 }
                    if isFull { state.refusedFull += 1 }
                    state.routing.end(
                        item.group,
                        bytes: item.message.body.count,
                        isCounted: item.isCounted,
                        isStored: isStored
                    )
                }
            }
            self.state.locked.withLock { self.metrics.holds($0.routing) }
        }
    }

    private func callSpool(_ items: [Item], _ durability: Durability) async -> [Result<MessageID, StalkError>] {
        guard !items.isEmpty else { return [] }
        let wall = self.wallTime()
        let messages = items.map { item in
            var message = item.message
            if item.isCounted { message.headers[FailoverHeader.spool] = self.token }
            if message.delay > .zero {
                let due = wall.millisecondsSince1970 + message.delay.wholeMillisecondsRoundedUp
                message.headers[FailoverHeader.due] = String(due)
                message.delay = item.localDelay
            }
            if let doubt = item.doubt {
                message.headers[FailoverHeader.doubt] = String(doubt.millisecondsSince1970)
            }
            return message
        }
        do {
            return try await self.spoolQueue.publish(messages, durability: durability)
        } catch {
            let failure = error as? StalkError ?? StalkError(.interrupted, "Storing was cut short.", cause: error)
            return items.map { _ in .failure(failure) }
        }
    }
}

/// Resumes a continuation with the first of several results.
private final class Once<Value: Sendable>: Sendable {
    private let continuation: Locked<CheckedContinuation<Value, Never>?>

    init(_ continuation: CheckedContinuation<Value, Never>) {
        self.continuation = Locked(continuation)
    }

    func resume(_ value: Value) {
        self.continuation.withLock { continuation in
            defer { continuation = nil }
            return continuation
        }?.resume(returning: value)
    }
}
