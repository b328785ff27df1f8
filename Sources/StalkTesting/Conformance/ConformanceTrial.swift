// One check under way: its queue, and the few moves that all checks are made of.

internal import StalkCore
internal import Synchronization

/// Thrown by a check that the collector's capabilities leave nothing to try of.
struct NotApplicable: Error {
    var why: String
}

/// One check on one fresh queue; the checks themselves are in the extensions.
struct ConformanceTrial<Harness: CollectorHarness>: Sendable {
    let check: CollectorCheck
    let harness: Harness
    let collector: Harness.Subject

    var timing: ConformanceTiming { self.harness.timing }
    var capabilities: CollectorCapabilities { self.collector.capabilities }
    /// A lease or delay that the check waits for.
    var short: Duration { self.timing.unit * 2 }
    /// A lease that does not end while the check runs.
    var long: Duration { min(self.timing.unit * 20, self.capabilities.maxLease) }

    // MARK: Judging

    func failure(_ message: String, file: String = #fileID, line: Int = #line) -> ConformanceFailure {
        ConformanceFailure(check: self.check, message: message, location: "\(file):\(line)")
    }

    func expect(
        _ condition: Bool,
        _ message: @autoclosure () -> String,
        file: String = #fileID,
        line: Int = #line
    ) throws {
        if !condition { throw self.failure(message(), file: file, line: line) }
    }

    /// Expects the code that a call must be refused with.
    func expectRefusal<Value>(
        _ code: StalkError.Code,
        of what: String,
        file: String = #fileID,
        line: Int = #line,
        _ call: () async throws -> Value
    ) async throws {
        do {
            _ = try await call()
        } catch let error as StalkError {
            try self.expect(
                error.code == code,
                "\(what) was refused as \(error), not as \(code)",
                file: file,
                line: line
            )
            return
        }
        throw self.failure("\(what) was accepted, not refused as \(code)", file: file, line: line)
    }

    func applies(_ condition: Bool, otherwise why: String) throws {
        if !condition { throw NotApplicable(why: why) }
    }

    // MARK: Moving

    /// Publishes one by one, since a backend may take no batches.
    func publish(_ texts: String...) async throws {
        for text in texts { try await self.collector.publish(Message(text)) }
    }

    /// Takes what is ready, without waiting.
    func takeNow(max: Int = 10, lease: Duration? = nil) async throws -> [Delivery] {
        try await self.collector.take(
            TakeRequest(max: min(max, self.capabilities.maxBatch), wait: .zero, lease: lease ?? self.long)
        )
    }

    func expectNothing(_ why: String, file: String = #fileID, line: Int = #line) async throws {
        let deliveries = try await self.takeNow()
        try self.expect(deliveries.isEmpty, "\(deliveries.map(\.text)) came \(why)", file: file, line: line)
    }

    /// Takes this many messages that must be ready, in as many calls as it needs.
    func take(
        _ count: Int,
        lease: Duration? = nil,
        file: String = #fileID,
        line: Int = #line
    ) async throws -> [Delivery] {
        var taken: [Delivery] = []
        while taken.count < count {
            let missing = min(count - taken.count, self.capabilities.maxBatch)
            let message = "\(count - taken.count) of \(count) messages did not come"
            let request = TakeRequest(max: missing, wait: self.timing.patience, lease: lease ?? self.long)
            let more = try await self.withPatience(message, file: file, line: line) {
                try await self.collector.take(request)
            }
            try self.expect(!more.isEmpty, message, file: file, line: line)
            taken += more
        }
        return taken
    }

    /// Takes the one message that must be ready.
    func takeOne(lease: Duration? = nil, file: String = #fileID, line: Int = #line) async throws -> Delivery {
        try await self.take(1, lease: lease, file: file, line: line)[0]
    }

    /// Lets time pass to just after the moment, and expects that nothing came until just before it.
    func pass(_ duration: Duration, _ why: String, file: String = #fileID, line: Int = #line) async throws {
        try await self.harness.advance(by: duration - self.timing.tolerance)
        try await self.expectNothing("before \(why)", file: file, line: line)
        try await self.harness.advance(by: self.timing.tolerance * 2)
    }

    /// Acts while a take waits, and returns what it got.
    func whileTakeWaits(
        wait: Duration? = nil,
        file: String = #fileID,
        line: Int = #line,
        _ act: @escaping @Sendable () async throws -> Void
    ) async throws -> [Delivery] {
        let request = TakeRequest(max: 1, wait: wait ?? self.long, lease: self.long)
        return try await self.withPatience("the waiting take did not return", file: file, line: line) {
            try await withThrowingTaskGroup(of: [Delivery]?.self) { group in
                group.addTask { try await self.collector.take(request) }
                let hasBegun = Atomic(false)
                group.addTask {
                    try await self.harness.takeIsWaiting()
                    hasBegun.store(true, ordering: .releasing)
                    try await act()
                    return nil
                }
                defer { group.cancelAll() }
                var taken: [Delivery]?
                var hasActed = false
                while taken == nil || !hasActed {
                    guard let step = try await group.next() else { break }
                    if let step { taken = step } else { hasActed = true }
                    // A take that did not wait has nothing to show, and there may be nothing to rendezvous with.
                    if taken?.isEmpty == true, !hasBegun.load(ordering: .acquiring) {
                        throw self.failure("the take did not wait", file: file, line: line)
                    }
                }
                return taken ?? []
            }
        }
    }

    /// Gives up when something that must happen does not.
    func withPatience<Value: Sendable>(
        _ message: String,
        file: String = #fileID,
        line: Int = #line,
        _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        try await withThrowingTaskGroup(of: Value?.self) { group in
            group.addTask { try await body() }
            group.addTask {
                try await ContinuousClock().sleep(for: self.timing.patience + .seconds(1))
                return nil
            }
            defer { group.cancelAll() }
            guard let first = try await group.next(), let value = first else {
                throw self.failure(message, file: file, line: line)
            }
            return value
        }
    }
}
