import Logging
import ServiceLifecycleTestKit
import StalkCore
import StalkTesting
import StalkWorker

/// Keeps what happened, and lets a test wait until enough has.
final class Recorder<Value: Sendable>: Sendable {
    private struct State {
        var values: [Value] = []
        var waiters: [(count: Int, continuation: CheckedContinuation<Void, Never>)] = []

        mutating func takeReady() -> [CheckedContinuation<Void, Never>] {
            let count = self.values.count
            defer { self.waiters.removeAll { $0.count <= count } }
            return self.waiters.filter { $0.count <= count }.map(\.continuation)
        }
    }

    private let state = Locked(State())

    var values: [Value] { self.state.withLock { $0.values } }

    func record(_ value: Value) {
        let ready = self.state.withLock { state in
            state.values.append(value)
            return state.takeReady()
        }
        for continuation in ready { continuation.resume() }
    }

    func count(reaches count: Int) async {
        await withCheckedContinuation { continuation in
            let ready = self.state.withLock { state in
                state.waiters.append((count, continuation))
                return state.takeReady()
            }
            for continuation in ready { continuation.resume() }
        }
    }
}

/// Holds those who wait until it is opened, cancelled or not.
final class Gate: Sendable {
    private let opened = Recorder<Void>()

    func open() { self.opened.record(()) }

    func pass() async { await self.opened.count(reaches: 1) }
}

/// Suspends until the task is cancelled, and throws then.
func hangUntilCancelled() async throws {
    let (stream, continuation) = AsyncStream.makeStream(of: Never.self)
    await withTaskCancellationHandler {
        for await _ in stream {}
    } onCancel: {
        continuation.finish()
    }
    throw CancellationError()
}

/// A call to a collector.
enum Call: Hashable, Sendable {
    case publish, take, finish, extend, control
}

/// An in-memory collector whose calls are recorded and can be made to fail.
final class FaultyCollector: Collector {
    let base: InMemoryCollector
    let calls = Recorder<Call>()
    let finishes = Recorder<[Completion]>()
    let extends = Recorder<[Receipt]>()
    let failures = Recorder<Call>()
    private let faults = Locked<[Call: StalkError]>([:])
    private let finishGate = Locked<Gate?>(nil)

    init(_ base: InMemoryCollector) {
        self.base = base
    }

    /// Makes calls of a kind fail until it is taken back with `nil`.
    func fail(_ calls: Call..., with error: StalkError?) {
        self.faults.withLock { faults in
            for call in calls { faults[call] = error }
        }
    }

    /// Makes the next finish wait.
    func holdNextFinish(at gate: Gate) { self.finishGate.withLock { $0 = gate } }

    private func begin(_ call: Call) throws {
        self.calls.record(call)
        guard let error = self.faults.withLock({ $0[call] }) else { return }
        self.failures.record(call)
        throw error
    }

    var queue: QueueName { self.base.queue }
    var capabilities: CollectorCapabilities { self.base.capabilities }

    func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>] {
        try self.begin(.publish)
        return try await self.base.publish(messages, durability: durability)
    }

    func take(_ request: TakeRequest) async throws -> [Delivery] {
        try self.begin(.take)
        return try await self.base.take(request)
    }

    func finish(_ completions: [Completion], durability: Durability) async throws -> [Result<Void, StalkError>] {
        let gate = self.finishGate.withLock { gate in
            defer { gate = nil }
            return gate
        }
        self.finishes.record(completions)
        await gate?.pass()
        try self.begin(.finish)
        return try await self.base.finish(completions, durability: durability)
    }

    func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        defer { self.extends.record(receipts) }
        try self.begin(.extend)
        return try await self.base.extend(receipts, lease: lease)
    }

    func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        try self.begin(.control)
        return try await self.base.control(command)
    }
}

extension InMemoryCollector {
    static func make(
        clock: ManualClock,
        _ change: (inout CollectorCapabilities) -> Void = { _ in }
    ) throws -> InMemoryCollector {
        var capabilities = InMemoryBroker.capabilities
        change(&capabilities)
        return InMemoryCollector(queue: try QueueName("jobs"), capabilities: capabilities, clock: clock)
    }

    func publish(_ texts: String...) async throws {
        for text in texts { try await self.publish(Message(text)) }
    }
}

extension Worker {
    /// Runs the worker beside a test's steps, and then shuts it down gracefully.
    func whileRunning(_ steps: @Sendable () async throws -> Void) async throws {
        try await testGracefulShutdown { trigger in
            async let run: Void = self.run()
            try await steps()
            trigger.triggerGracefulShutdown()
            try await run
        }
    }
}

extension RetryPolicy {
    /// A policy without jitter.
    static func every(_ interval: Duration, max: Int? = nil) throws -> RetryPolicy {
        try .fixed(interval, maxAttempts: max)
    }
}

struct Oops: Error, CustomStringConvertible {
    var description: String

    init(_ description: String = "oops") {
        self.description = description
    }
}
