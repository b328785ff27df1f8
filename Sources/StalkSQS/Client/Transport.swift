// How requests travel: a seam with HTTP behind it, and a script in tests.

internal import AsyncHTTPClient
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import StalkCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// A request on its way.
struct HTTPCall: Sendable {
    var method = "POST"
    var url: String
    var headers: [(name: String, value: String)]
    var body: [UInt8]
    /// How long the answer may take.
    var timeout: Duration
    /// Whether the server holds it back until there is something to say.
    var isLongPoll = false
}

/// What came back.
struct HTTPAnswer: Sendable {
    var status: Int
    /// By lower-case names.
    var headers: [String: String]
    var body: [UInt8]
}

/// Why nothing came back.
enum TransportFailure: Error, Hashable, Sendable {
    /// The request never left: nothing can have happened.
    case notSent(String)
    /// The request left, and no whole answer came: it may have been carried out.
    case ambiguous(String)
}

/// Carries requests.
protocol Transport: Sendable {
    /// Sends a request and waits for its answer.
    ///
    /// - Throws: ``TransportFailure``, or `CancellationError`.
    func send(_ call: HTTPCall) async throws -> HTTPAnswer

    /// Closes all connections.
    func close() async
}

/// Runs what tasks do on the thread of an event loop, where the connections are.
private final class EventLoopExecutor: TaskExecutor {
    private let eventLoop: any EventLoop

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        self.eventLoop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}

/// Carries requests over HTTP, long polls on connections of their own: they hold theirs for many seconds, and
/// everything else would have to wait for one.
final class HTTPTransport: Transport {
    /// The largest answer: ten messages of the largest size, escaped.
    private static let maxAnswerBytes = 64 << 20

    private let calls: HTTPClient
    private let polls: HTTPClient
    private let executor: EventLoopExecutor

    init(connectTimeout: Duration = .seconds(2)) {
        // One loop carries more than a queue takes, and what happens on one thread wakes no other.
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        self.executor = EventLoopExecutor(eventLoop: eventLoop)
        self.calls = Self.client(connectTimeout, eventLoop)
        self.polls = Self.client(connectTimeout, eventLoop)
    }

    private static func client(_ connectTimeout: Duration, _ eventLoop: any EventLoop) -> HTTPClient {
        var configuration = HTTPClient.Configuration()
        configuration.timeout.connect = .nanoseconds(connectTimeout.wholeMillisecondsRoundedUp * 1_000_000)
        // Otherwise a refused connection is tried again for ten seconds before anybody hears of it.
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = 64
        configuration.redirectConfiguration = .disallow
        configuration.httpVersion = .http1Only
        return HTTPClient(eventLoopGroupProvider: .shared(eventLoop), configuration: configuration)
    }

    func send(_ call: HTTPCall) async throws -> HTTPAnswer {
        // Each step of a request would wake a thread of the pool otherwise, and that one the loop again.
        try await withTaskExecutorPreference(self.executor) { try await self.sendOnLoop(call) }
    }

    private func sendOnLoop(_ call: HTTPCall) async throws -> HTTPAnswer {
        var request = HTTPClientRequest(url: call.url)
        request.method = HTTPMethod(rawValue: call.method)
        request.headers = HTTPHeaders(call.headers.map { ($0.name, $0.value) })
        request.body = .bytes(ByteBuffer(bytes: call.body))
        let client = call.isLongPoll ? self.polls : self.calls
        do {
            let deadline = NIODeadline.now() + .nanoseconds(call.timeout.wholeMillisecondsRoundedUp * 1_000_000)
            let response = try await client.execute(request, deadline: deadline)
            let body = try await response.body.collect(upTo: Self.maxAnswerBytes)
            var headers: [String: String] = [:]
            for (name, value) in response.headers { headers[name.lowercased()] = value }
            return HTTPAnswer(
                status: Int(response.status.code),
                headers: headers,
                body: Array(body.readableBytesView)
            )
        } catch {
            if Task.isCancelled { throw CancellationError() }
            throw Self.failure(error)
        }
    }

    /// Whether the request can have reached the server.
    private static func failure(_ error: any Error) -> TransportFailure {
        switch error {
        case let error as HTTPClientError:
            let isUnsent =
                [.connectTimeout, .getConnectionFromPoolTimeout, .tlsHandshakeTimeout].contains(error)
            let isLate = [.deadlineExceeded, .readTimeout].contains(error)
            return isUnsent
                ? .notSent("no connection in time")
                : .ambiguous(isLate ? "no answer in time" : error.shortDescription)
        case let error as IOError where error.errnoCode == ECONNREFUSED:
            return .notSent("connection refused")
        case let error as IOError where [ENETUNREACH, EHOSTUNREACH].contains(error.errnoCode):
            return .notSent("the host can't be reached")
        case is NIOConnectionError:
            return .notSent("the host name can't be resolved or the host can't be reached")
        default:
            let text = "\(error)"
            return text.contains("handshakeFailed") ? .notSent("no secure connection: \(text)") : .ambiguous(text)
        }
    }

    deinit {
        // Whoever forgot to close leaves no connections behind.
        let (calls, polls) = (self.calls, self.polls)
        Task {
            try? await calls.shutdown()
            try? await polls.shutdown()
        }
    }

    func close() async {
        try? await self.calls.shutdown()
        try? await self.polls.shutdown()
    }
}
