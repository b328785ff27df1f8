import StalkCore
import StalkLocal
import Testing

@testable import StalkAdmin

/// Who may ask for what, decided without a server.
@Suite struct GuardTests {
    private static let token = "0123456789abcdef"

    private static func request(
        _ method: String = "GET",
        _ path: String = "/health",
        host: String? = "localhost:1323",
        origin: String? = nil,
        authorization: String? = nil
    ) -> AdminRequest {
        AdminRequest(method: method, path: path, host: host, origin: origin, authorization: authorization)
    }

    private static func status(_ request: AdminRequest, token: String?) throws -> Int {
        switch AdminRoute.find(request) {
        case .failure(let refusal): refusal.response.status
        case .success(let route):
            AdminGuard(token: token).refusal(of: request, wanting: route.right)?.status ?? 200
        }
    }

    @Test(arguments: [
        ("GET", "/live", 200), ("GET", "/ready", 200), ("GET", "/", 200), ("GET", "/health", 200),
        ("GET", "/metrics", 200), ("GET", "/api/queues", 200), ("POST", "/sleep", 200), ("POST", "/scale", 200),
        ("GET", "/api/queues/q/messages", 200), ("POST", "/api/queues/q/pause", 403),
        ("POST", "/api/queues/q/redrive", 403), ("HEAD", "/health", 200), ("POST", "/api/queues/q/kick", 403),
        ("POST", "/api/queues/q/purge", 403), ("POST", "/api/messages/1/kick", 403),
        ("POST", "/api/messages/1/move", 403), ("POST", "/api/messages/1/delete", 403),
    ])
    func loopbackWithoutToken(method: String, path: String, status: Int) throws {
        #expect(try Self.status(Self.request(method, path), token: nil) == status)
        let elsewhere = try Self.status(Self.request(method, path, host: "evil.example"), token: nil)
        #expect(elsewhere == (["/live", "/ready", "/"].contains(path) ? 200 : 403))
    }

    @Test(arguments: [
        ("GET", "/live", 200), ("GET", "/ready", 200), ("GET", "/", 200), ("GET", "/health", 401),
        ("GET", "/metrics", 401), ("GET", "/api/queues", 401), ("POST", "/sleep", 401),
        ("POST", "/api/queues/q/pause", 401), ("POST", "/api/queues/q/kick", 401),
        ("POST", "/api/queues/q/purge", 401), ("POST", "/api/messages/1/kick", 401),
        ("POST", "/api/messages/1/move", 401), ("POST", "/api/messages/1/delete", 401),
    ])
    func withToken(method: String, path: String, status: Int) throws {
        #expect(try Self.status(Self.request(method, path), token: Self.token) == status)
        for wrong in ["Bearer 0123456789abcdeX", "Bearer ", "bearer", Self.token, "Basic \(Self.token)"] {
            let request = Self.request(method, path, authorization: wrong)
            #expect(try Self.status(request, token: Self.token) == status, "\(wrong)")
        }
        let right = Self.request(method, path, host: "queues.example", authorization: "Bearer \(Self.token)")
        #expect(try Self.status(right, token: Self.token) == 200)
    }

    @Test func pagesOfElsewhereControlNothing() throws {
        for (origin, status) in [
            ("http://evil.example", 403), ("null", 403), ("http://localhost:1323", 200), ("http://localhost:99", 403),
        ] {
            #expect(try Self.status(Self.request("POST", "/sleep", origin: origin), token: nil) == status, "\(origin)")
            #expect(try Self.status(Self.request("GET", "/health", origin: origin), token: nil) == 200)
        }
    }

    @Test func hostsThatAreThisMachine() throws {
        for (host, status) in [
            ("127.0.0.1", 200), ("127.0.0.1:1323", 200), ("[::1]:1323", 200), ("LOCALHOST:1", 200),
            ("127.0.0.1.evil.example", 403), ("", 403), ("[::2]", 403),
        ] {
            #expect(try Self.status(Self.request(host: host), token: nil) == status, "\(host)")
        }
        #expect(try Self.status(Self.request(host: nil), token: nil) == 403)
    }

    @Test(arguments: [
        ("GET", "/nothing", 404), ("GET", "/api", 404), ("GET", "/api/queues/q", 404), ("GET", "/sleep", 405),
        ("POST", "/health", 405), ("DELETE", "/", 405), ("GET", "/api/queues/a%20b/messages", 400),
        ("GET", "/api/queues/../messages", 400), ("POST", "/api/queues/q/delete", 404),
        ("GET", "/api/queues/q/purge", 405), ("GET", "/api/messages/1/delete", 405), ("POST", "/api/messages/1/x", 404),
        ("POST", "/api/messages/1", 404),
    ])
    func badPaths(method: String, path: String, status: Int) throws {
        #expect(try Self.status(Self.request(method, path), token: nil) == status)
    }

    @Test func badPagesAreRefused() throws {
        for query in [["state": "gone"], ["max": "0"], ["max": "-1"], ["max": "201"], ["max": "x"]] {
            var request = Self.request("GET", "/api/queues/q/messages")
            request.query = query
            #expect(try Self.status(request, token: nil) == 400, "\(query)")
        }
        for (path, query) in [
            ("purge", ["state": "leased"]), ("purge", ["state": "gone"]), ("kick", ["max": "0"]),
            ("kick", ["max": "x"]),
        ] {
            var request = Self.request("POST", "/api/queues/q/\(path)")
            request.query = query
            #expect(try Self.status(request, token: nil) == 400, "\(path) \(query)")
        }
        var request = Self.request("GET", "/api/queues/q/messages")
        request.query = ["state": "dead", "max": "200"]
        let found = try AdminRoute.find(request).get()
        let queue = try QueueName("q")
        #expect(found == .messages(queue, .dead, max: 200))
    }
}
