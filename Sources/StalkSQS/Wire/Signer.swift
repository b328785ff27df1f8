// AWS Signature Version 4.

internal import Crypto
internal import StalkCore

/// What is signed of a request: everything that goes over the wire but the signature itself.
struct SignableRequest: Sendable {
    var method = "POST"
    /// As it stands in the request line, before any `?`.
    var path = "/"
    /// As it stands in the request line, behind the `?`.
    var query = ""
    /// All headers that are signed; the date and the session token are added by the signer.
    var headers: [(name: String, value: String)]
    var body: [UInt8] = []
}

/// Signs requests to one service in one region.
struct Signer: Sendable {
    private static let algorithm = "AWS4-HMAC-SHA256"

    var region: String
    var service: String
    /// The key of the last day signed for: four HMACs that are the same for every request of a day.
    private var cached: (credentials: Credentials, day: String, key: SymmetricKey)?

    init(region: String, service: String) {
        self.region = region
        self.service = service
    }

    /// The headers to add to a request: date, session token and authorization.
    ///
    /// - Parameters:
    ///   - request: The request.
    ///   - credentials: Who asks.
    ///   - time: Now, by the server's clock.
    mutating func sign(
        _ request: SignableRequest,
        with credentials: Credentials,
        at time: Timestamp
    ) -> [(name: String, value: String)] {
        let date = Self.basicDate(time)
        var added = [(name: "X-Amz-Date", value: date)]
        if let token = credentials.sessionToken { added.append((name: "X-Amz-Security-Token", value: token)) }
        var signed = request
        signed.headers += added
        let canonical = Self.canonicalHeaders(signed.headers)
        let names = canonical.map(\.name).joined(separator: ";")
        let scope = self.scope(of: date)
        let text = Self.stringToSign(Self.canonicalRequest(signed), date: date, scope: scope)
        let key = self.key(for: credentials, day: String(date.prefix(8)))
        let signature = Self.hex(HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: key))
        added.append(
            (
                name: "Authorization",
                value: "\(Self.algorithm) Credential=\(credentials.accessKeyID)/\(scope), SignedHeaders=\(names), "
                    + "Signature=\(signature)"
            )
        )
        return added
    }

    func scope(of date: String) -> String { "\(date.prefix(8))/\(self.region)/\(self.service)/aws4_request" }

    private mutating func key(for credentials: Credentials, day: String) -> SymmetricKey {
        if let cached = self.cached, cached.day == day, cached.credentials == credentials { return cached.key }
        var key = SymmetricKey(data: Array("AWS4\(credentials.secretAccessKey)".utf8))
        for part in [day, self.region, self.service, "aws4_request"] {
            key = SymmetricKey(data: HMAC<SHA256>.authenticationCode(for: Array(part.utf8), using: key))
        }
        self.cached = (credentials, day, key)
        return key
    }

    // MARK: The steps of the specification

    static func canonicalRequest(_ request: SignableRequest) -> String {
        let headers = self.canonicalHeaders(request.headers)
        return [
            request.method,
            self.canonicalPath(request.path),
            self.canonicalQuery(request.query),
            headers.map { "\($0.name):\($0.value)\n" }.joined(),
            headers.map(\.name).joined(separator: ";"),
            self.hex(SHA256.hash(data: request.body)),
        ].joined(separator: "\n")
    }

    static func stringToSign(_ canonicalRequest: String, date: String, scope: String) -> String {
        [self.algorithm, date, scope, self.hex(SHA256.hash(data: Array(canonicalRequest.utf8)))]
            .joined(separator: "\n")
    }

    /// Lower-case names in order, values without needless spaces; several of one name in one line.
    static func canonicalHeaders(_ headers: [(name: String, value: String)]) -> [(name: String, value: String)] {
        var values: [String: [String]] = [:]
        for (name, value) in headers {
            let words = value.split(whereSeparator: \.isWhitespace)
            values[name.lowercased(), default: []].append(words.joined(separator: " "))
        }
        return values.map { (name: $0.key, value: $0.value.joined(separator: ",")) }.sorted { $0.name < $1.name }
    }

    private static func canonicalPath(_ path: String) -> String {
        var segments: [Substring] = []
        for segment in path.split(separator: "/") where segment != "." {
            if segment == ".." { _ = segments.popLast() } else { segments.append(segment) }
        }
        let isOpen = path.hasSuffix("/") && !segments.isEmpty
        return self.percentEncoded("/" + segments.joined(separator: "/") + (isOpen ? "/" : ""), keeping: "/")
    }

    private static func canonicalQuery(_ query: String) -> String {
        guard !query.isEmpty else { return "" }
        let pairs = query.split(separator: "&").map { pair in
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return (String(parts[0]), parts.count > 1 ? String(parts[1]) : "")
        }
        let printable = String(decoding: 0x21...0x7E as ClosedRange<UInt8>, as: UTF8.self)
        return pairs.map {
            (Self.percentEncoded($0.0, keeping: printable), Self.percentEncoded($0.1, keeping: printable))
        }
        .sorted { $0 < $1 }.map { "\($0.0)=\($0.1)" }.joined(separator: "&")
    }

    /// RFC 3986: unreserved characters stand for themselves, every other byte becomes `%XX`.
    static func percentEncoded(_ text: String, keeping: String = "") -> String {
        var encoded = ""
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."),
                UInt8(ascii: "~"):
                encoded.unicodeScalars.append(Unicode.Scalar(byte))
            case _ where keeping.utf8.contains(byte):
                encoded.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                encoded += (byte < 16 ? "%0" : "%") + String(byte, radix: 16, uppercase: true)
            }
        }
        return encoded
    }

    /// `20150830T123600Z`.
    static func basicDate(_ time: Timestamp) -> String {
        String(time.description.prefix(19).filter { $0 != "-" && $0 != ":" }) + "Z"
    }

    static func hex(_ bytes: some Sequence<UInt8>) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        for byte in bytes {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}
