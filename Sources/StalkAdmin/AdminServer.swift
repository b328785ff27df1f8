// The driver: HTTP in front of the API.

internal import HTTPTypes
internal import Hummingbird
internal import HummingbirdCore
public import Logging
internal import NIOCore
public import ServiceLifecycle
internal import StalkCore
public import StalkLocal

#if canImport(Glibc)
    internal import Glibc
#endif

/// How the control listens.
public struct AdminOptions: Hashable, Sendable {
    /// Where it listens.
    public var address: AdminAddress
    /// What callers must know; needed for any address that other machines reach.
    public var token: String?
    /// How long a connection may be silent, and a request take to arrive.
    public var patience: Duration
    /// The largest body of a request, in bytes.
    public var maxRequestBytes: Int
    /// How many connections are served at a time; others wait.
    public var maxConnections: Int

    /// Makes the options.
    public init(
        address: AdminAddress = AdminAddress(),
        token: String? = nil,
        patience: Duration = .seconds(15),
        maxRequestBytes: Int = 64 << 10,
        maxConnections: Int = 64
    ) {
        self.address = address
        self.token = token
        self.patience = patience
        self.maxRequestBytes = maxRequestBytes
        self.maxConnections = maxConnections
    }

    func validate() throws(StalkError) {
        if let token = self.token, token.utf8.count < 8 || !token.utf8.allSatisfy({ 0x21...0x7E ~= $0 }) {
            throw StalkError(
                .invalidArgument,
                "A token is at least 8 characters of ASCII without spaces, for instance from 'openssl rand -hex 16'."
            )
        }
        guard self.address.isLoopback || self.token != nil else {
            throw StalkError(
                .invalidArgument,
                "Other machines can reach \(self.address), so it needs a token; without one, listen at 127.0.0.1."
            )
        }
        guard self.patience > .zero, self.maxRequestBytes >= 0, self.maxConnections >= 1 else {
            throw StalkError(.invalidArgument, "Patience and connections are more than zero, and sizes not negative.")
        }
    }
}

/// Shows and controls collectors and a store over HTTP: probes, metrics, sleep, wake, scale, and a page to look at.
///
/// Several collectors of any backends share one server. It is a service beside the workers: it never stops them, and when
/// its port is taken it says so with a typed error and leaves the rest alone, as far as its service group lets it.
public struct AdminServer: Service {
    private let options: AdminOptions
    private let collectors: [AdminCollector]
    private let failovers: [AdminFailover]
    private let store: LocalStore?
    private let logger: Logger?
    private let onRunning: (@Sendable (AdminAddress) async -> Void)?

    /// Makes a server.
    ///
    /// - Parameters:
    ///   - options: How it listens.
    ///   - collectors: What it shows and controls; their ids differ. What is a ``StalkFailover/FailoverCollector`` among
    ///     them is shown with its spool.
    ///   - failovers: Others that forward, with ids of their own.
    ///   - store: A local store whose queues it shows and pauses.
    ///   - logger: What it tells; `nil` for nothing.
    ///   - onRunning: Told the address once it listens, with the port that the system chose.
    public init(
        options: AdminOptions = AdminOptions(),
        collectors: [AdminCollector] = [],
        failovers: [AdminFailover] = [],
        store: LocalStore? = nil,
        logger: Logger? = nil,
        onRunning: (@Sendable (AdminAddress) async -> Void)? = nil
    ) {
        self.options = options
        self.collectors = collectors
        self.failovers = failovers
        self.store = store
        self.logger = logger
        self.onRunning = onRunning
    }

    /// Serves until a graceful shutdown, or until the task is cancelled.
    ///
    /// - Throws: ``StalkCore/StalkError``: `addressInUse` when somebody else listens there, `permissionDenied` when one may
    ///   not, `unavailable` for an address that this machine does not have, `invalidArgument` for options without sense.
    public func run() async throws {
        try self.options.validate()
        let ids = self.collectors.map(\.id) + self.failovers.map(\.id)
        guard Set(ids).count == ids.count else {
            let list = ids.sorted().joined(separator: ", ")
            throw StalkError(.invalidArgument, "Two collectors have the same id: \(list).")
        }
        let address = self.options.address
        do {
            try await self.makeApplication().run()
        } catch let error as IOError {
            throw StalkError(listeningAt: address, error)
        } catch let error as SocketAddressError {
            throw StalkError(.unavailable, "There is no host named \(address.host).", cause: error)
        }
    }

    private func makeApplication() -> some ApplicationProtocol {
        let address = self.options.address
        let onRunning = self.onRunning
        let quiet = Logger(label: "stalk.admin") { _ in SwiftLogNoOpLogHandler() }
        return Application(
            responder: AdminResponder(
                api: AdminAPI(collectors: self.collectors, failovers: self.failovers, store: self.store),
                door: AdminGuard(token: self.options.token),
                options: self.options
            ),
            server: .http1(
                configuration: .init(
                    idleTimeout: .init(self.options.patience),
                    httpDecoderConfiguration: .init(
                        maxHeaderFieldSize: 16 << 10,
                        maxHeaderListSize: 32 << 10,
                        maxHeaderFieldCount: 100
                    )
                )
            ),
            configuration: ApplicationConfiguration(
                address: .hostname(address.host, port: address.port),
                availableConnectionsDelegate: MaximumAvailableConnections(
                    self.options.maxConnections,
                    logger: self.logger ?? quiet
                )
            ),
            onServerRunning: { channel in
                let port = channel.localAddress?.port ?? address.port
                await onRunning?(AdminAddress(host: address.host, port: port))
            },
            logger: self.logger ?? quiet
        )
    }
}

/// Turns HTTP into values and back.
private struct AdminResponder: HTTPResponder {
    let api: AdminAPI
    let door: AdminGuard
    let options: AdminOptions

    func respond(to request: Request, context: BasicRequestContext) async throws -> Response {
        let head = AdminRequest(request)
        switch AdminRoute.find(head) {
        case .failure(let refusal): return refusal.response.http(for: request)
        case .success(let route):
            if let refusal = self.door.refusal(of: head, wanting: route.right) { return refusal.http(for: request) }
            switch await self.body(of: request) {
            case .failure(let refusal): return refusal.response.http(for: request)
            case .success(let body):
                return await self.api.respond(to: route, body: body, query: head.query).http(for: request)
            }
        }
    }

    /// Reads a request's body, of which nothing may be too large or too slow.
    private func body(of request: Request) async -> Result<[UInt8], AdminRoute.Refusal> {
        let limit = self.options.maxRequestBytes
        let patience = self.options.patience
        let tooLarge = AdminRoute.Refusal(.error(413, "The request's body is over \(limit) bytes."))
        if let length = request.headers[.contentLength].flatMap({ Int($0) }), length > limit {
            return .failure(tooLarge)
        }
        return await withTaskGroup(of: Result<[UInt8], AdminRoute.Refusal>?.self) { group in
            group.addTask {
                do {
                    let buffer = try await request.body.collect(upTo: limit)
                    return .success(Array(buffer.readableBytesView))
                } catch is NIOTooManyBytesError {
                    return .failure(tooLarge)
                } catch is CancellationError {
                    return nil
                } catch {
                    return .failure(AdminRoute.Refusal(.error(400, "The request's body could not be read: \(error)")))
                }
            }
            group.addTask {
                try? await Task.sleep(for: patience)
                return .failure(AdminRoute.Refusal(.error(408, "The request's body took longer than \(patience).")))
            }
            defer { group.cancelAll() }
            return await group.next().flatMap(\.self) ?? .failure(AdminRoute.Refusal(.error(503, "Shutting down.")))
        }
    }
}

extension AdminRequest {
    fileprivate init(_ request: Request) {
        self.init(
            method: request.method.rawValue,
            path: request.uri.path,
            query: Dictionary(request.uri.queryParameters.map { (String($0.key), String($0.value)) }) { $1 },
            host: request.head.authority,
            origin: request.headers[.origin],
            authorization: request.headers[.authorization]
        )
    }
}

extension AdminResponse {
    fileprivate func http(for request: Request) -> Response {
        var headers = HTTPFields()
        headers[.contentType] = self.contentType
        headers[.cacheControl] = "no-store"
        headers[.xContentTypeOptions] = "nosniff"
        for (name, value) in self.headers {
            if let name = HTTPField.Name(name) { headers[name] = value }
        }
        // What is left of a body that nobody wants to read would be taken for the next request.
        if self.status == 413 || self.status == 408 { headers[.connection] = "close" }
        let response = Response(
            status: .init(code: self.status),
            headers: headers,
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: self.body))
        )
        return request.method == .head ? response.createHeadResponse() : response
    }
}

extension StalkError {
    fileprivate init(listeningAt address: AdminAddress, _ error: IOError) {
        switch error.errnoCode {
        case EADDRINUSE:
            self.init(
                .addressInUse,
                "Somebody else listens at \(address): choose another port, or 0 for any that is free.",
                cause: error
            )
        case EACCES, EPERM:
            self.init(.permissionDenied, "Listening at \(address) is not allowed: take a port over 1023.", cause: error)
        default:
            self.init(.unavailable, "Can't listen at \(address).", cause: error)
        }
    }
}
