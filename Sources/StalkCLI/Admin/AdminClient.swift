// Reads what another process's server shows; for `stalk top`.

internal import AsyncHTTPClient
internal import FoundationEssentials
internal import NIOCore
internal import NIOHTTP1
internal import StalkAdmin
internal import StalkCore

/// Asks a server for its figures, one connection for each question.
struct AdminClient: Sendable {
    let address: AdminAddress
    let token: String?

    /// One for the process, which ends with it.
    private static let client: HTTPClient = {
        var configuration = HTTPClient.Configuration()
        configuration.timeout.connect = .seconds(5)
        // Otherwise a refused connection is tried again for ten seconds before anybody hears of it.
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.redirectConfiguration = .disallow
        configuration.httpVersion = .http1Only
        return HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }()

    /// Everything that the server shows.
    ///
    /// - Throws: ``StalkCore/StalkError``: `unavailable` when nobody answers, `permissionDenied` for the wrong token.
    func overview() async throws -> AdminOverview {
        let (status, body) = try await self.get("/api/queues")
        switch status {
        case 200: break
        case 401, 403:
            throw StalkError(.permissionDenied, "The server at \(self.address) wants its token: see --token-file.")
        default:
            throw StalkError(.unavailable, "The server at \(self.address) answered \(status).")
        }
        do {
            return try JSONDecoder().decode(AdminOverview.self, from: Data(body))
        } catch {
            throw StalkError(
                .unavailable,
                "What answers at \(self.address) is no stalk, or another version.",
                cause: error
            )
        }
    }

    private func get(_ path: String) async throws -> (status: UInt, body: [UInt8]) {
        var request = HTTPClientRequest(url: "http://\(self.address)\(path)")
        request.headers.add(name: "Connection", value: "close")
        if let token = self.token { request.headers.add(name: "Authorization", value: "Bearer \(token)") }
        do {
            let response = try await Self.client.execute(request, timeout: .seconds(10))
            let body = try await response.body.collect(upTo: 64 << 20)
            return (response.status.code, Array(body.readableBytesView))
        } catch {
            throw StalkError(
                .unavailable,
                "Nobody answers at \(self.address): start 'stalk work --http' or 'stalk serve' there.",
                cause: error
            )
        }
    }
}
