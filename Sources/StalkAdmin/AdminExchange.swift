// Requests and answers as values, so that what is decided about them needs no server.

internal import FoundationEssentials
internal import StalkCore

/// What of a request counts; the body comes later, if at all.
struct AdminRequest: Sendable {
    var method: String
    var path: String
    var query: [String: String] = [:]
    var host: String?
    var origin: String?
    var authorization: String?
}

/// An answer.
struct AdminResponse: Sendable {
    var status: Int
    var contentType: String
    var headers: [(name: String, value: String)] = []
    var body: [UInt8]

    static func text(_ status: Int, _ text: String) -> AdminResponse {
        AdminResponse(status: status, contentType: "text/plain; charset=utf-8", body: Array("\(text)\n".utf8))
    }

    static func json(_ value: some Encodable, status: Int = 200) -> AdminResponse {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else { return .error(500, "The answer can't be written as JSON.") }
        return AdminResponse(status: status, contentType: "application/json", body: [UInt8](data) + "\n".utf8)
    }

    static func error(_ status: Int, _ message: String) -> AdminResponse { .json(["error": message], status: status) }

    static func error(_ error: any Error) -> AdminResponse {
        guard let error = error as? StalkError else { return .error(500, "\(error)") }
        return .error(error.httpStatus, error.message)
    }

    func with(_ name: String, _ value: String) -> AdminResponse {
        var response = self
        response.headers.append((name, value))
        return response
    }
}

extension StalkError {
    fileprivate var httpStatus: Int {
        switch self.code {
        case .noSuchQueue, .noSuchMessage: 404
        case .invalidArgument, .invalidQueueName, .delayOutOfRange: 400
        case .messageLeased: 409
        case .bodyTooLarge: 413
        case .unsupported: 501
        case .storageFull: 507
        case .unavailable, .closed, .storeBusy: 503
        default: 500
        }
    }
}
