internal import StalkCore

/// Owns the tasks of one run: each is started, cancelled and waited for here and nowhere else.
///
/// They are no child tasks, because a group can't cancel one child alone, and because it would wait for ever for a
/// handler that ignores its cancellation.
private struct OwnedTasks {
    enum Key: Hashable {
        case until, wake, take, finish, extend
        case alarm(WorkerAlarm)
        case handler(SlotID)
    }

    private var tasks: [Key: Task<Void, Never>] = [:]

    mutating func start(_ key: Key, _ body: @escaping @Sendable () async -> Void) {
        self.tasks[key] = Task { await body() }
    }

    func cancel(_ key: Key) { self.tasks[key]?.cancel() }

    mutating func forget(_ key: Key) { self.tasks[key] = nil }

    /// Ends everything but handlers: those that are left were cancelled and ignore it.
    mutating func end() async {
        let ending = self.tasks.filter { if case .handler = $0.key { false } else { true } }.values
        for task in ending { task.cancel() }
        for task in ending { await task.value }
        self.tasks = [:]
    }
}

// The driver: does what the state machine decides, and tells it what came of it.
extension Worker {
    func drive(_ actions: AsyncStream<WorkerAction>) async {
        var tasks = OwnedTasks()
        if let until = self.until {
            tasks.start(.until) { await self.stop(when: until) }
        }
        for await action in actions {
            self.perform(action, &tasks)
        }
        await tasks.end()
    }

    private func perform(_ action: WorkerAction, _ tasks: inout OwnedTasks) {
        switch action {
        case .wake: tasks.start(.wake) { await self.wake() }
        case .take(let request): tasks.start(.take) { await self.take(request) }
        case .cancelTake: tasks.cancel(.take)
        case .handle(let id, let delivery): tasks.start(.handler(id)) { await self.handle(id, delivery) }
        case .cancelHandler(let id): tasks.cancel(.handler(id))
        case .forgetHandler(let id): tasks.forget(.handler(id))
        case .finish(let completions): tasks.start(.finish) { await self.finish(completions) }
        case .extend(let ids, let receipts): tasks.start(.extend) { await self.extend(ids, receipts) }
        case .setAlarm(let alarm, let moment): tasks.start(.alarm(alarm)) { await self.ring(alarm, at: moment) }
        case .log(let entry): if let logger = self.logger { entry.log(to: logger, queue: self.collector.queue) }
        case .end: break
        }
    }

    private func stop(when until: @Sendable () async throws -> Void) async {
        do {
            try await until()
            self.tell { $0.stop(now: $1) }
        } catch {
            // At the end of a run it is cancelled; what it throws then is no failure.
            if !Task.isCancelled { self.tell { $0.fail(error, now: $1) } }
        }
    }

    private func wake() async {
        do {
            try await self.collector.wake()
            self.tell { $0.woke(now: $1) }
        } catch {
            let error = StalkError(of: "waking", error)
            self.tell { $0.wakeFailed(error, now: $1) }
        }
    }

    private func take(_ request: TakeRequest) async {
        do {
            let deliveries = try await self.collector.take(request)
            self.tell { $0.took(deliveries, now: $1) }
        } catch is CancellationError where Task.isCancelled {
            self.tell { $0.takeCancelled(now: $1) }
        } catch {
            let error = StalkError(of: "taking", error)
            self.tell { $0.takeFailed(error, now: $1) }
        }
    }

    private func handle(_ id: SlotID, _ delivery: Delivery) async {
        let result: HandlerResult
        do {
            result = .returned(try await self.handler(delivery))
        } catch {
            result = .threw(error)
        }
        self.tell { $0.handled(id, result, now: $1) }
    }

    private func finish(_ completions: [Completion]) async {
        do {
            let results = try await self.collector.finish(completions, durability: self.options.durability)
            self.tell { $0.finished(results, now: $1) }
        } catch {
            let error = StalkError(of: "storing outcomes", error)
            self.tell { $0.finishFailed(error, now: $1) }
        }
    }

    private func extend(_ ids: [SlotID], _ receipts: [Receipt]) async {
        let sentAt = self.clock.elapsed()
        var results: [Result<Void, StalkError>] = []
        let batch = self.collector.capabilities.maxBatch
        for start in stride(from: 0, to: receipts.count, by: batch) {
            let part = Array(receipts[start..<min(start + batch, receipts.count)])
            do {
                results += try await self.collector.extend(part, lease: self.options.lease)
            } catch {
                let error = StalkError(of: "extending leases", error)
                results += part.map { _ in .failure(error) }
            }
        }
        self.tell { $0.extended(ids, results, sentAt: sentAt, now: $1) }
    }

    private func ring(_ alarm: WorkerAlarm, at moment: Duration) async {
        do {
            try await self.clock.sleep(moment)
            self.tell { $0.alarmWentOff(alarm, now: $1) }
        } catch {
            // Cancelled at the end of the run: nobody waits for it any more.
        }
    }
}

extension StalkError {
    /// Takes an error that may not be one of Stalk's; of those nothing is known, so they are worth another try.
    fileprivate init(of what: String, _ error: any Error) {
        self = error as? StalkError ?? StalkError(.unavailable, "The collector failed at \(what).", cause: error)
    }
}
