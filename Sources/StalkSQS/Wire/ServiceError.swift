// What AWS answers when it refuses, read from whatever form it comes in.

internal import StalkCore

/// An answer that is no success.
struct ServiceError: Error, Hashable, Sendable {
    /// What may help against an error.
    enum Kind: Hashable, Sendable {
        /// The same request again, soon.
        case transient
        /// The same request again, later.
        case throttle
        /// Fresh credentials.
        case credentials
        /// The server's clock.
        case clock
        /// Nothing that a client can do by itself.
        case permanent
    }

    var status: Int
    /// Without name space and address, as `QueueDoesNotExist`; empty where the answer has none.
    var code: String
    var message: String
    /// How long the service asks to be left alone.
    var retryAfter: Duration?
    /// What the server's clock showed.
    var serverTime: Timestamp?

    init(status: Int, code: String, message: String, retryAfter: Duration? = nil, serverTime: Timestamp? = nil) {
        self.status = status
        self.code = code
        self.message = message
        self.retryAfter = retryAfter
        self.serverTime = serverTime
    }

    /// Reads an answer: JSON, XML, or something that a proxy wrote.
    init(status: Int, headers: [String: String], body: [UInt8]) {
        let json = try? JSON(body)
        let text = String(decoding: body.prefix(16_384), as: UTF8.self)
        let code =
            headers["x-amzn-errortype"] ?? json?["__type"]?.text ?? json?["code"]?.text ?? json?["Code"]?.text
            ?? XMLText.element("Code", in: text) ?? headers["x-amzn-query-error"].flatMap(Self.legacyCode) ?? ""
        let message =
            json?["message"]?.text ?? json?["Message"]?.text ?? XMLText.element("Message", in: text) ?? ""
        self.init(
            status: status,
            code: Self.plain(code),
            message: message,
            retryAfter: headers["x-amz-retry-after"].flatMap { Int64($0) }.map { .milliseconds($0) },
            serverTime: headers["date"].flatMap { Timestamp(httpDate: $0) }
        )
    }

    /// `com.amazonaws.sqs#QueueDoesNotExist:http://…` is `QueueDoesNotExist`.
    private static func plain(_ code: String) -> String {
        let name = code.split(separator: ":", maxSplits: 1).first ?? ""
        return String(name.split(separator: "#").last ?? "").trimmingSpace
    }

    /// `AWS.SimpleQueueService.NonExistentQueue;Sender` in the names of the JSON protocol.
    private static func legacyCode(_ header: String) -> String? {
        let code = header.split(separator: ";").first?.split(separator: ".").last.map(String.init)
        return code == "NonExistentQueue" ? "QueueDoesNotExist" : code
    }

    /// What may help.
    var kind: Kind {
        if Self.clockCodes.contains(self.code) { return .clock }
        if Self.signatureCodes.contains(self.code) {
            let isClock = self.message.contains("Signature expired") || self.message.contains("not yet current")
            return isClock ? .clock : .permanent
        }
        if Self.credentialCodes.contains(self.code) { return .credentials }
        if Self.throttleCodes.contains(self.code) || self.status == 429 { return .throttle }
        if Self.transientCodes.contains(self.code) || [500, 502, 503, 504].contains(self.status) { return .transient }
        return .permanent
    }

    private static let clockCodes: Set<String> = ["RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"]
    private static let signatureCodes: Set<String> = ["SignatureDoesNotMatch", "InvalidSignatureException"]
    private static let credentialCodes: Set<String> = [
        "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException",
    ]
    private static let throttleCodes: Set<String> = [
        "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
        "TooManyRequestsException", "RequestLimitExceeded", "SlowDown", "KmsThrottled", "KMS.ThrottlingException",
        "PriorRequestNotComplete", "EC2ThrottledException", "BandwidthLimitExceeded", "LimitExceededException",
        "ProvisionedThroughputExceededException", "TransactionInProgressException",
    ]
    private static let transientCodes: Set<String> = [
        "InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "RequestTimeout",
        "RequestTimeoutException", "IDPCommunicationError",
    ]
}

/// Just enough of XML for error answers and the answers of STS: the text of the first element of a name.
enum XMLText {
    static func element(_ name: String, in text: String) -> String? {
        guard let start = text.firstRange(of: "<\(name)>"),
            let end = text[start.upperBound...].firstRange(of: "</\(name)>")
        else { return nil }
        var value = String(text[start.upperBound..<end.lowerBound])
        let entities = [
            ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#x27;", "'"), ("&amp;", "&"),
        ]
        for (entity, character) in entities { value = value.replacing(entity, with: character) }
        return value
    }
}

extension String {
    /// The text without spaces and line ends at both sides.
    var trimmingSpace: String {
        var rest = self[...]
        while rest.first?.isWhitespace == true { rest.removeFirst() }
        while rest.last?.isWhitespace == true { rest.removeLast() }
        return String(rest)
    }
}
