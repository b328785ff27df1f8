internal import StalkCore
internal import StalkLocal

/// What a request asks for, as far as its head tells.
enum AdminRoute: Hashable, Sendable {
    case page, live, ready, health, metrics, queues
    case messages(QueueName, MessageState, max: Int)
    case sleep, wake, scale
    case pause(QueueName)
    case resume(QueueName)
    case redrive(QueueName)
    case kick(QueueName, max: Int?)
    case purge(QueueName, Set<MessageState>)
    case kickMessage(MessageID)
    case moveMessage(MessageID)
    case deleteMessage(MessageID)

    /// What one needs to be allowed.
    enum Right: Comparable, Sendable {
        /// Says nothing about messages: for probes, and the page without its figures.
        case open
        case look
        /// Changes how this process works.
        case control
        /// Changes what is stored.
        case change
    }

    var right: Right {
        switch self {
        case .page, .live, .ready: .open
        case .health, .metrics, .queues, .messages: .look
        case .sleep, .wake, .scale: .control
        case .pause, .resume, .redrive, .kick, .purge, .kickMessage, .moveMessage, .deleteMessage: .change
        }
    }

    static let largestPage = 200

    /// Finds out what a request asks for.
    ///
    /// - Returns: The route, or the answer that says why there is none.
    static func find(_ request: AdminRequest) -> Result<AdminRoute, Refusal> {
        do throws(StalkError) {
            let parts = request.path.split(separator: "/").map(String.init)
            guard let (method, route) = try Self.route(parts, request.query) else {
                return .failure(
                    Refusal(.error(404, "There is nothing at \(request.path): see / or docs/worker.md."))
                )
            }
            let isAllowed = request.method == method || request.method == "HEAD" && method == "GET"
            guard isAllowed else {
                let answer = AdminResponse.error(405, "\(request.path) is for \(method), not for \(request.method).")
                return .failure(Refusal(answer.with("Allow", method)))
            }
            return .success(route)
        } catch {
            return .failure(Refusal(.error(error)))
        }
    }

    private static func route(
        _ parts: [String],
        _ query: [String: String]
    ) throws(StalkError) -> (method: String, AdminRoute)? {
        switch parts.count {
        case 0: return ("GET", .page)
        case 1:
            switch parts[0] {
            case "live": return ("GET", .live)
            case "ready": return ("GET", .ready)
            case "health": return ("GET", .health)
            case "metrics": return ("GET", .metrics)
            case "sleep": return ("POST", .sleep)
            case "wake": return ("POST", .wake)
            case "scale": return ("POST", .scale)
            default: return nil
            }
        case 2 where parts == ["api", "queues"]: return ("GET", .queues)
        case 4 where parts[0] == "api" && parts[1] == "queues":
            return try Self.route(of: QueueName(parts[2]), parts[3], query)
        case 4 where parts[0] == "api" && parts[1] == "messages":
            let id = MessageID(parts[2])
            switch parts[3] {
            case "kick": return ("POST", .kickMessage(id))
            case "move": return ("POST", .moveMessage(id))
            case "delete": return ("POST", .deleteMessage(id))
            default: return nil
            }
        default: return nil
        }
    }

    private static func route(
        of queue: QueueName,
        _ word: String,
        _ query: [String: String]
    ) throws(StalkError) -> (method: String, AdminRoute)? {
        switch word {
        case "messages":
            let (state, max) = try Self.page(query)
            return ("GET", .messages(queue, state, max: max))
        case "pause": return ("POST", .pause(queue))
        case "resume": return ("POST", .resume(queue))
        case "redrive": return ("POST", .redrive(queue))
        case "kick": return try ("POST", .kick(queue, max: Self.most(query)))
        case "purge": return try ("POST", .purge(queue, Self.purged(query)))
        default: return nil
        }
    }

    private static func most(_ query: [String: String]) throws(StalkError) -> Int? {
        guard let text = query["max"] else { return nil }
        guard let max = Int(text), max > 0 else {
            throw StalkError(.invalidArgument, "Give max as a whole number, at least 1.")
        }
        return max
    }

    private static func purged(_ query: [String: String]) throws(StalkError) -> Set<MessageState> {
        let all: Set<MessageState> = [.ready, .delayed, .dead]
        guard let text = query["state"] else { return all }
        guard let state = MessageState(rawValue: text), all.contains(state) else {
            throw StalkError(.invalidArgument, "Can't purge what is \(quoted(text)): give ready, delayed or dead.")
        }
        return [state]
    }

    private static func page(_ query: [String: String]) throws(StalkError) -> (MessageState, Int) {
        let text = query["state"] ?? MessageState.ready.rawValue
        guard let state = MessageState(rawValue: text) else {
            let states = MessageState.allCases.map(\.rawValue).joined(separator: ", ")
            throw StalkError(.invalidArgument, "There is no state \(quoted(text)): give one of \(states).")
        }
        guard let max = Int(query["max"] ?? "50"), (1...Self.largestPage).contains(max) else {
            throw StalkError(.invalidArgument, "Give max as a whole number from 1 to \(Self.largestPage).")
        }
        return (state, max)
    }

    /// An answer that says no.
    struct Refusal: Error {
        var response: AdminResponse

        init(_ response: AdminResponse) {
            self.response = response
        }
    }
}

/// Who may ask for what.
struct AdminGuard: Sendable {
    /// The token that is asked for; `nil` where only this machine reaches the server and none was set.
    var token: String?

    /// Why a request is not answered; `nil` when it is.
    func refusal(of request: AdminRequest, wanting right: AdminRoute.Right) -> AdminResponse? {
        if right >= .control, let origin = request.origin, !Self.isSameSite(origin, request.host) {
            return .error(403, "A page from \(origin) may not control this: send the request without it.")
        }
        guard let token = self.token else {
            // A name that was made to point here, so that a page of elsewhere can read what only this machine may.
            if right > .open, !Self.isLoopback(request.host) {
                return .error(403, "Without a token this answers to localhost, not to \(request.host ?? "no host").")
            }
            if right == .change {
                return .error(403, "Changing what is stored needs a token, and this server was started without one.")
            }
            return nil
        }
        if right == .open { return nil }
        guard let authorization = request.authorization else {
            return AdminResponse.error(401, "This needs the header 'Authorization: Bearer TOKEN'.")
                .with("WWW-Authenticate", "Bearer")
        }
        guard Self.isEqual(authorization, "Bearer \(token)") else {
            return AdminResponse.error(401, "The token is not the one that this server was started with.")
                .with("WWW-Authenticate", #"Bearer error="invalid_token""#)
        }
        return nil
    }

    private static func isSameSite(_ origin: String, _ host: String?) -> Bool {
        guard let host, let start = origin.firstRange(of: "://") else { return false }
        return origin[start.upperBound...].lowercased() == host.lowercased()
    }

    private static func isLoopback(_ host: String?) -> Bool {
        guard let host else { return false }
        if host.hasPrefix("["), let end = host.firstIndex(of: "]") {
            return AdminAddress.isLoopback(host[host.index(after: host.startIndex)..<end])
        }
        return AdminAddress.isLoopback(host.prefix { $0 != ":" })
    }

    /// Takes as long for every wrong text of the same length, so that nothing can be found out byte by byte.
    private static func isEqual(_ left: String, _ right: String) -> Bool {
        let (left, right) = (Array(left.utf8), Array(right.utf8))
        guard left.count == right.count else { return false }
        return zip(left, right).reduce(0) { $0 | $1.0 ^ $1.1 } == 0
    }
}
