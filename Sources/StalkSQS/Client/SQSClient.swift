// Requests to SQS: signed, tried again within limits, and explained when they fail.

internal import StalkCore

/// The operations that a collector needs.
enum Operation: String, Hashable, Sendable {
    case sendMessageBatch = "SendMessageBatch"
    case receiveMessage = "ReceiveMessage"
    case deleteMessageBatch = "DeleteMessageBatch"
    case changeMessageVisibilityBatch = "ChangeMessageVisibilityBatch"
    case getQueueURL = "GetQueueUrl"
    case getQueueAttributes = "GetQueueAttributes"

    /// The action as policies name it: those know no batches.
    var action: String {
        let name = self.rawValue.hasSuffix("Batch") ? String(self.rawValue.dropLast(5)) : self.rawValue
        return "sqs:\(name)"
    }
}

/// One client: a connection pool, credentials, a clock and a retry budget that all calls share.
final class SQSClient: Sendable {
    private struct State {
        var signer: Signer
        var budget = RetryBudget()
        var requests: [Operation: Int] = [:]
    }

    let settings: Settings
    let serverClock: ServerClock
    private let transport: any Transport
    private let credentials: CredentialCache
    private let callTimeout: Duration
    private let clock: ElapsedClock
    private let state: Locked<State>

    init(
        settings: Settings,
        transport: any Transport,
        credentials: CredentialCache,
        callTimeout: Duration,
        clock: ElapsedClock,
        wallTime: @escaping @Sendable () -> Timestamp
    ) {
        self.settings = settings
        self.transport = transport
        self.credentials = credentials
        self.callTimeout = callTimeout
        self.clock = clock
        self.serverClock = ServerClock(local: wallTime)
        self.state = Locked(State(signer: Signer(region: settings.region, service: "sqs")))
    }

    /// How many requests of each kind were sent, retries included.
    var requests: [Operation: Int] { self.state.withLock { $0.requests } }

    /// Closes all connections.
    func close() async { await self.transport.close() }

    /// Calls an operation.
    ///
    /// - Parameters:
    ///   - operation: Which.
    ///   - body: Its arguments as JSON.
    ///   - queue: The queue as people know it, for errors.
    ///   - pollWait: How long the server may hold the request back; `nil` for what it answers at once.
    /// - Returns: The answer.
    /// - Throws: ``StalkError``, or `CancellationError`.
    func call(_ operation: Operation, _ body: [UInt8], queue: String, pollWait: Duration? = nil) async throws -> JSON {
        let deadline = self.clock.elapsed() + self.callTimeout + (pollWait ?? .zero)
        var call = Call(
            operation: operation,
            body: body,
            queue: queue,
            pollWait: pollWait,
            invocation: randomUUID(),
            retry: RetryState(maxAttempts: self.settings.maxAttempts, isLongPoll: pollWait != nil)
        )
        do {
            while true {
                let outcome = try await self.attempt(&call, deadline: deadline)
                switch outcome {
                case .answer(let json):
                    self.state.withLock { $0.budget.put(call.retry.price) }
                    return json
                case .again:
                    continue
                case .failed(let failure, let error):
                    try await self.rest(after: failure, error, &call, deadline: deadline)
                }
            }
        } catch var error as StalkError where call.isInDoubt {
            // Whatever the last try said: an earlier one may have arrived.
            error.code = .interrupted
            throw error
        }
    }

    private struct Call {
        let operation: Operation
        let body: [UInt8]
        let queue: String
        let pollWait: Duration?
        /// The same over all tries.
        let invocation: String
        var retry: RetryState
        /// Whether something was sent that may have arrived, and can't be taken back.
        var isInDoubt = false
        var hasRenewed = false
        var hasCorrected = false
    }

    private enum Outcome {
        case answer(JSON)
        /// Something was put right that has nothing to do with load.
        case again
        case failed(RetryState.Failure, StalkError)
    }

    private func attempt(_ call: inout Call, deadline: Duration) async throws -> Outcome {
        let credentials = try await self.credentials.credentials()
        let left = deadline - self.clock.elapsed()
        guard left > .zero else { throw self.late(call) }
        let perTry = call.pollWait.map { $0 + .seconds(5) } ?? .seconds(10)
        let answer: HTTPAnswer
        do {
            answer = try await self.transport.send(self.signed(call, credentials, timeout: min(perTry, left)))
        } catch let failure as TransportFailure {
            if case .ambiguous = failure { call.isInDoubt = call.operation == .sendMessageBatch }
            return .failed(.transient, self.explain(failure, call))
        }
        if answer.status == 200 {
            guard let json = try? JSON(answer.body) else {
                call.isInDoubt = call.operation == .sendMessageBatch
                return .failed(.transient, self.explain(.ambiguous("an answer that is not JSON"), call))
            }
            return .answer(json)
        }
        let error = ServiceError(status: answer.status, headers: answer.headers, body: answer.body)
        let explained = error.stalkError(
            CallContext(
                action: call.operation.action,
                queue: call.queue,
                region: self.settings.region,
                accessKeyID: credentials.accessKeyID,
                clockOffset: self.serverClock.offset
            )
        )
        switch error.kind {
        case .clock:
            guard !call.hasCorrected, let serverTime = error.serverTime else { throw explained }
            call.hasCorrected = true
            self.serverClock.correct(by: serverTime)
            return .again
        case .credentials:
            guard !call.hasRenewed else { throw explained }
            call.hasRenewed = true
            await self.credentials.refused(credentials)
            return .again
        case .throttle: return .failed(.throttle(after: error.retryAfter), explained)
        case .transient: return .failed(.transient, explained)
        case .permanent: throw explained
        }
    }

    /// Waits before the failed entries of a batch are sent again.
    func rest(afterPartialFailure count: Int) async throws {
        let largest = Duration.milliseconds(50) * (1 << min(count, 8))
        try await self.clock.sleep(self.clock.elapsed() + largest * Double.random(in: 0...1))
    }

    /// Waits before the next try, or throws when there is none.
    private func rest(
        after failure: RetryState.Failure,
        _ error: StalkError,
        _ call: inout Call,
        deadline: Duration
    ) async throws {
        var generator = SystemRandomNumberGenerator()
        let verdict = self.state.withLock { call.retry.failed(failure, &$0.budget, using: &generator) }
        let now = self.clock.elapsed()
        switch verdict {
        case .retry(let delay) where now + delay < deadline:
            try await self.clock.sleep(now + delay)
        case .giveUp(let delay) where delay > .zero:
            try await self.clock.sleep(min(now + delay, deadline))
            throw error
        default:
            throw error
        }
    }

    private func signed(_ call: Call, _ credentials: Credentials, timeout: Duration) -> HTTPCall {
        let endpoint = self.settings.endpoint
        var request = SignableRequest(
            path: endpoint.path,
            headers: [
                (name: "Host", value: endpoint.authority),
                (name: "Content-Type", value: "application/x-amz-json-1.0"),
                (name: "X-Amz-Target", value: "AmazonSQS.\(call.operation.rawValue)"),
            ],
            body: call.body
        )
        request.headers += self.state.withLock { state in
            state.requests[call.operation, default: 0] += 1
            return state.signer.sign(request, with: credentials, at: self.serverClock.now)
        }
        request.headers += [
            (name: "X-Amzn-Query-Mode", value: "true"),
            (name: "Amz-Sdk-Invocation-Id", value: call.invocation),
            (name: "Amz-Sdk-Request", value: "attempt=\(call.retry.attempt); max=\(call.retry.maxAttempts)"),
            (name: "User-Agent", value: "stalk/0.1"),
        ]
        return HTTPCall(
            url: endpoint.description,
            headers: request.headers,
            body: call.body,
            timeout: timeout,
            isLongPoll: call.pollWait != nil
        )
    }

    private func explain(_ failure: TransportFailure, _ call: Call) -> StalkError {
        let place = self.settings.endpoint.authority
        switch failure {
        case .notSent(let why):
            return StalkError(.unavailable, "SQS can't be reached at \(place) (\(why)): check address and network.")
        case .ambiguous(let why):
            let doubt = call.operation == .sendMessageBatch ? " What was sent may have arrived." : ""
            return StalkError(.unavailable, "SQS at \(place) did not answer \(call.operation.action) (\(why)).\(doubt)")
        }
    }

    private func late(_ call: Call) -> StalkError {
        StalkError(.unavailable, "\(call.operation.action) on \(quoted(call.queue)) took longer than its time allows.")
    }
}

/// A random identifier in the form of RFC 9562, version 4.
func randomUUID() -> String {
    // The system is asked twice, not once a byte.
    var bytes = (0..<2).flatMap { _ in
        withUnsafeBytes(of: UInt64.random(in: .min ... .max)) { Array($0) }
    }
    bytes[6] = bytes[6] & 0x0F | 0x40
    bytes[8] = bytes[8] & 0x3F | 0x80
    let hex = Array(Signer.hex(bytes))
    return [hex[0..<8], hex[8..<12], hex[12..<16], hex[16..<20], hex[20..<32]].map { String($0) }.joined(separator: "-")
}
