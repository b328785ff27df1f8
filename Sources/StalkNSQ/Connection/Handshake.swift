// What is said before a connection can be used: IDENTIFY, then TLS, compression, AUTH and SUB, in nsqd's order.

internal import StalkCore

/// What nsqd said of itself.
package struct ServerFeatures: Hashable, Sendable {
    package var version = ""
    package var maxReadyCount = 2500
    package var messageTimeout: Duration = .seconds(60)
    package var maxMessageTimeout: Duration = .seconds(900)
}

/// What a connection is for: nsqd answers in order, so takers and publishers don't share one.
enum ConnectionRole: Hashable, Sendable {
    case publisher
    case subscriber(topic: String, channel: String)
}

/// Negotiates one connection, as a value: frames in, what to do next out.
struct Handshake {
    enum Action: Hashable {
        case send(NSQCommand)
        case startTLS
        case startDeflate(level: Int)
        case ready(ServerFeatures)
    }

    /// What is asked for.
    struct Wish {
        var clientID: String
        var heartbeatInterval: Duration
        var messageTimeout: Duration?
        var outputBufferTimeout: Duration?
        var tls: Bool
        var deflateLevel: Int?
        var authSecret: String?
        var role: ConnectionRole
    }

    private enum Step {
        case identifying, encrypting, compressing, authenticating, subscribing, ready
    }

    private let wish: Wish
    private var step = Step.identifying
    private var features = ServerFeatures()
    private var compresses = false
    private var needsAuth = false

    init(_ wish: Wish) {
        self.wish = wish
    }

    var isReady: Bool { self.step == .ready }

    /// What goes out first, after the magic.
    var identify: NSQCommand {
        var members: [String: JSON] = [
            "client_id": .string(self.wish.clientID),
            "user_agent": .string("stalk"),
            "feature_negotiation": .bool(true),
            "heartbeat_interval": .number(Double(self.wish.heartbeatInterval.wholeMillisecondsRoundedUp)),
            "tls_v1": .bool(self.wish.tls),
            "deflate": .bool(self.wish.deflateLevel != nil),
        ]
        if let level = self.wish.deflateLevel { members["deflate_level"] = .number(Double(level)) }
        if let timeout = self.wish.messageTimeout, self.wish.role != .publisher {
            members["msg_timeout"] = .number(Double(timeout.wholeMillisecondsRoundedUp))
        }
        if let timeout = self.wish.outputBufferTimeout, self.wish.role != .publisher {
            members["output_buffer_timeout"] = .number(Double(timeout.wholeMillisecondsRoundedUp))
        }
        return .identify(Array(JSON.object(members).text.utf8))
    }

    /// Takes the next frame.
    ///
    /// - Throws: ``StalkError`` when nsqd refuses, or answers with what was not asked for.
    mutating func received(_ frame: NSQFrame) throws(StalkError) -> [Action] {
        if frame == .heartbeat { return [.send(.nop)] }
        let data: [UInt8]
        switch frame {
        case .error(let text): throw StalkError(refusal: text)
        case .message: throw StalkError(.unavailable, "nsqd sent a message before the handshake was over.")
        case .response(let bytes): data = bytes
        }
        switch self.step {
        case .identifying:
            return try self.identified(data)
        case .encrypting, .compressing:
            guard frame == .ok else { throw Self.unexpected(data) }
            return self.step == .encrypting ? self.afterTLS() : self.afterCompression()
        case .authenticating:
            return self.afterAuth()
        case .subscribing:
            guard frame == .ok else { throw Self.unexpected(data) }
            return self.end()
        case .ready:
            return []
        }
    }

    private mutating func identified(_ data: [UInt8]) throws(StalkError) -> [Action] {
        guard let answer = try? JSON(parsing: data), case .object = answer else {
            throw StalkError(.unavailable, "nsqd answered IDENTIFY with no JSON: it is too old, or no nsqd.")
        }
        self.features.version = answer["version"]?.string ?? ""
        if let count = answer["max_rdy_count"]?.integer, count > 0 { self.features.maxReadyCount = count }
        if let millis = answer["msg_timeout"]?.integer, millis > 0 {
            self.features.messageTimeout = .milliseconds(millis)
        }
        if let millis = answer["max_msg_timeout"]?.integer, millis > 0 {
            self.features.maxMessageTimeout = .milliseconds(millis)
        }
        self.needsAuth = answer["auth_required"]?.bool ?? false
        self.compresses = answer["deflate"]?.bool ?? false
        if self.wish.deflateLevel == nil, self.compresses || answer["snappy"]?.bool == true {
            throw StalkError(.unavailable, "nsqd turned compression on although nobody asked for it.")
        }
        guard self.wish.tls else { return self.afterTLS() }
        guard answer["tls_v1"]?.bool == true else {
            throw StalkError(
                .permissionDenied,
                "nsqd offers no TLS, and nothing is sent in the clear when TLS was asked for: set its --tls-cert."
            )
        }
        self.step = .encrypting
        return [.startTLS]
    }

    private mutating func afterTLS() -> [Action] {
        // A server that has compression turned off says so, and the connection works without.
        guard self.compresses, let level = self.wish.deflateLevel else { return self.afterCompression() }
        self.step = .compressing
        return [.startDeflate(level: level)]
    }

    private mutating func afterCompression() -> [Action] {
        guard self.needsAuth || self.wish.authSecret != nil else { return self.afterAuth() }
        self.step = .authenticating
        return [.send(.auth(Array((self.wish.authSecret ?? "").utf8)))]
    }

    private mutating func afterAuth() -> [Action] {
        guard case .subscriber(let topic, let channel) = self.wish.role else { return self.end() }
        self.step = .subscribing
        return [.send(.subscribe(topic: topic, channel: channel))]
    }

    private mutating func end() -> [Action] {
        self.step = .ready
        return [.ready(self.features)]
    }

    private static func unexpected(_ data: [UInt8]) -> StalkError {
        StalkError(.unavailable, "nsqd answered \(quoted(String(decoding: data, as: UTF8.self))) in the handshake.")
    }
}

extension StalkError {
    /// What an error frame of nsqd means.
    init(refusal text: String) {
        let code: Code =
            switch text.split(separator: " ").first {
            case "E_AUTH_FAILED", "E_AUTH_DISABLED", "E_AUTH_FIRST", "E_AUTH_ERROR", "E_UNAUTHORIZED": .permissionDenied
            case "E_BAD_TOPIC", "E_BAD_CHANNEL": .invalidQueueName
            case "E_BAD_BODY", "E_BAD_MESSAGE": text.contains("too big") ? .bodyTooLarge : .invalidArgument
            case "E_INVALID", "E_IDENTIFY_FAILED", "E_MISSING_PARAMS": .invalidArgument
            default: .unavailable
            }
        self.init(code, "nsqd refused: \(quoted(text)).")
    }

    /// Whether trying again can't help until somebody changes something.
    var isPermanent: Bool { self.code != .unavailable && self.code != .interrupted }
}

/// Error frames after which nsqd leaves the connection open, since they concern one delivery alone.
func isHarmless(errorFrame text: String) -> Bool {
    ["E_FIN_FAILED", "E_REQ_FAILED", "E_TOUCH_FAILED"].contains { text.hasPrefix($0) }
}
