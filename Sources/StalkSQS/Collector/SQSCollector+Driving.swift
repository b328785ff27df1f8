// Doing what the state machine decides.

internal import StalkCore

extension SQSCollector {
    func step(_ event: (inout State, Duration) -> [IntakeStateMachine.Action]) {
        let now = self.clock.elapsed()
        let actions = self.state.withLock { state in
            let actions = event(&state, now)
            self.setAlarm(&state, now: now)
            return actions
        }
        for action in actions { self.perform(action) }
    }

    func setAlarm(_ state: inout State, now: Duration) {
        guard !state.isClosed, let moment = state.machine.nextAlarm(now: now) else { return }
        if let alarm = state.alarm, alarm.moment <= moment { return }
        state.alarm?.task.cancel()
        let task = Task { [weak self, clock = self.clock] in
            guard (try? await clock.sleep(moment)) != nil else { return }
            self?.step { state, now in
                if state.alarm?.moment == moment { state.alarm = nil }
                return state.machine.settle(now: now)
            }
        }
        state.alarm = (moment, task)
    }

    func perform(_ action: IntakeStateMachine.Action) {
        switch action {
        case .poll(let poll):
            let task = Task { await self.poll(poll) }
            self.state.withLock { state in
                if state.machine.polls[poll.id] != nil { state.polls[poll.id] = task }
                if state.isClosed { task.cancel() }
            }
        case .deliver(let take, let messages, let shorten):
            if shorten.isEmpty {
                self.resume(take, .success(messages.map(self.delivery)))
            } else {
                Task {
                    _ = await self.changer.add(shorten)
                    self.resume(take, .success(messages.map(self.delivery)))
                }
            }
        case .fail(let take, let code, let message):
            self.resume(take, .failure(StalkError(code, message)))
        case .cancel(let take):
            self.resume(take, .failure(CancellationError()))
        case .change(let changes):
            self.begin(changes)
        }
    }

    /// Changes visibilities in a task that ``close()`` waits for.
    private func begin(_ changes: [IntakeStateMachine.VisibilityChange]) {
        self.state.withLock { state in
            state.nextChange += 1
            let number = state.nextChange
            state.changes[number] = Task {
                await self.change(changes)
                self.state.withLock { _ = $0.changes.removeValue(forKey: number) }
            }
        }
    }

    func resume(_ take: Int, _ result: Result<[Delivery], any Error>) {
        let continuation = self.state.withLock { $0.takes.removeValue(forKey: take) }
        continuation?.resume(with: result)
    }

    func poll(_ poll: IntakeStateMachine.Poll) async {
        do {
            let messages = try await self.calls.receive(poll)
            self.step { state, now in
                state.polls[poll.id] = nil
                state.received += messages.count
                return state.machine.polled(poll.id, messages, now: now)
            }
        } catch {
            let failure =
                error as? StalkError
                ?? StalkError(
                    .unavailable,
                    "Receiving from \(self.queue) was cut "
                        + "short."
                )
            self.step { state, now in
                state.polls[poll.id] = nil
                return state.machine.pollFailed(poll.id, failure, now: now)
            }
        }
    }

    func change(_ changes: [IntakeStateMachine.VisibilityChange]) async {
        let sentAt = self.clock.elapsed()
        let answers = await self.changer.add(changes)
        self.step { state, now in
            zip(changes, answers).flatMap { change, answer in
                state.machine.changed(change, answer, sentAt: sentAt, now: now)
            }
        }
    }
}
