import Foundation
import StalkCore
import StalkTesting
import Testing

@testable import StalkSQS

@Suite struct SignerTests {
    static let credentials = Credentials(
        accessKeyID: "AKIDEXAMPLE",
        secretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    )
    static let time = Timestamp(millisecondsSince1970: 1_440_938_160_000)

    /// A request of our own, signed by botocore 1.43 once.
    @Test func signsAnSQSRequest() {
        var signer = Signer(region: "eu-west-1", service: "sqs")
        let request = SignableRequest(
            headers: [
                (name: "Host", value: "sqs.eu-west-1.amazonaws.com"),
                (name: "Content-Type", value: "application/x-amz-json-1.0"),
                (name: "X-Amz-Target", value: "AmazonSQS.ListQueues"),
            ],
            body: Array("{}".utf8)
        )
        var credentials = Self.credentials
        credentials.sessionToken = "a/token=="
        let headers = signer.sign(request, with: credentials, at: Self.time)
        #expect(headers.map(\.name) == ["X-Amz-Date", "X-Amz-Security-Token", "Authorization"])
        #expect(headers[0].value == "20150830T123600Z")
        #expect(headers[1].value == "a/token==")
        #expect(
            headers[2].value.hasSuffix(
                "b2d2f5e043e3e8484f2ef0c15fb2ba195040f62b964f1e7a8f991371c1fffb67"
            )
        )
    }

    @Test func aNewDayAndNewCredentialsMakeANewKey() {
        var signer = Signer(region: "us-east-1", service: "sqs")
        let request = SignableRequest(headers: [(name: "Host", value: "a")])
        func signature(_ credentials: Credentials, _ time: Timestamp) -> String? {
            signer.sign(request, with: credentials, at: time).last?.value
        }
        let first = signature(Self.credentials, Self.time)
        var other = Self.credentials
        other.secretAccessKey = "another"
        let nextDay = Timestamp(millisecondsSince1970: Self.time.millisecondsSince1970 + 86_400_000)
        #expect(signature(other, Self.time) != first)
        #expect(signature(Self.credentials, nextDay) != first)
        #expect(signature(Self.credentials, Self.time) == first)
    }

    @Test(
        .enabled(if: PythonTools.signatureVectors != nil, "tools/test fetches the vectors from PyPI; they are not here")
    )
    func keepsToThePublicVectors() throws {
        let root = try #require(PythonTools.signatureVectors)
        let files = try #require(FileManager.default.enumerator(at: root, includingPropertiesForKeys: nil))
        var count = 0
        for case let file as URL in files where file.pathExtension == "req" {
            let vector = try SignatureVector(file)
            let canonical = Signer.canonicalRequest(vector.request)
            #expect(canonical == vector.text("creq"), "\(vector.name)")
            let signer = Signer(region: "us-east-1", service: "service")
            let text = Signer.stringToSign(canonical, date: "20150830T123600Z", scope: signer.scope(of: "20150830"))
            #expect(text == vector.text("sts"), "\(vector.name)")
            #expect(vector.authorization(by: signer) == vector.text("authz"), "\(vector.name)")
            count += 1
        }
        #expect(count >= 30, "only \(count) vectors were found")
    }

    @Test(.enabled(if: PythonTools.pythonWithBotocore != nil, "there is no Python with botocore here"))
    func signsRandomRequestsAsBotocoreDoes() throws {
        let python = try #require(PythonTools.pythonWithBotocore)
        var generator = SeededGenerator(seed: .random(in: .min ... .max))
        let cases = (0..<300).map { _ in RandomSignedRequest(using: &generator) }
        let input = try JSONEncoder().encode(cases)
        let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("Oracle/sign_with_botocore.py")
        let output = try PythonTools.run(python, [script.path], input: input)
        let expected = try JSONDecoder().decode([String].self, from: output)
        try #require(expected.count == cases.count)
        for (request, expected) in zip(cases, expected) {
            let authorization = request.authorization
            #expect(authorization == expected, "\(request)")
            // The negative control: another secret must give another signature.
            var other = request
            other.secretAccessKey += "x"
            #expect(other.authorization != expected)
        }
    }
}

/// One case of the public suite: a raw request, and what each step makes of it.
private struct SignatureVector {
    var name: String
    var request: SignableRequest
    private var base: URL

    init(_ file: URL) throws {
        self.base = file.deletingPathExtension()
        self.name = self.base.lastPathComponent
        let text = try String(contentsOf: file, encoding: .utf8)
        let parts = text.split(separator: "\n\n", maxSplits: 1, omittingEmptySubsequences: false)
        var lines = parts[0].split(separator: "\n").map(String.init)
        var target = lines.removeFirst()
        let method = String(target.prefix { $0 != " " })
        target = String(target.dropFirst(method.count + 1).dropLast(" HTTP/1.1".count))
        let pieces = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        var headers: [(name: String, value: String)] = []
        for line in lines {
            if line.hasPrefix(" "), let last = headers.popLast() {
                headers.append((name: last.name, value: last.value + line))
            } else {
                let colon = try #require(line.firstIndex(of: ":"))
                headers.append((name: String(line[..<colon]), value: String(line[line.index(after: colon)...])))
            }
        }
        self.request = SignableRequest(
            method: method,
            path: String(pieces[0]),
            query: pieces.count > 1 ? String(pieces[1]) : "",
            headers: headers,
            body: parts.count > 1 ? Array(parts[1].utf8) : []
        )
        // The token of this case comes from outside; its files have it among the headers.
        if self.name == "get-vanilla-with-session-token",
            let token = self.text("creq").components(
                separatedBy: "x-amz-security-token:"
            ).dropFirst().first?.prefix(while: { $0 != "\n" })
        {
            self.request.headers.append((name: "X-Amz-Security-Token", value: String(token)))
        }
    }

    func text(_ kind: String) -> String {
        let file = self.base.appendingPathExtension(kind)
        return ((try? String(contentsOf: file, encoding: .utf8)) ?? "").trimmingCharacters(in: .newlines)
    }

    /// The signer adds date and token itself, so they are taken out of the request first.
    func authorization(by signer: Signer) -> String? {
        var signer = signer
        var request = self.request
        var credentials = SignerTests.credentials
        if self.name.hasSuffix("session-token") {
            credentials.sessionToken = request.headers.first { $0.name.lowercased() == "x-amz-security-token" }?.value
        }
        let added = credentials.sessionToken == nil ? ["x-amz-date"] : ["x-amz-date", "x-amz-security-token"]
        request.headers.removeAll { added.contains($0.name.lowercased()) }
        return signer.sign(request, with: credentials, at: SignerTests.time).last?.value
    }
}

/// A request with everything random that a signature covers.
private struct RandomSignedRequest: Codable {
    var path: String
    var headers: [String: String]
    var body: String
    var accessKeyID: String
    var secretAccessKey: String
    var sessionToken: String?
    var seconds: Int64
    var region: String

    init(using generator: inout SeededGenerator) {
        func text(_ characters: String, _ length: Int) -> String {
            String((0..<length).map { _ in Array(characters)[generator.below(characters.count)] })
        }
        let letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
        self.path = "/" + text(letters + "-._~/", generator.below(12))
        self.headers = [
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": "AmazonSQS." + text(letters, 1 + generator.below(12)),
        ]
        for _ in 0..<generator.below(4) {
            let name = "X-Amz-" + text(letters, 1 + generator.below(8)).lowercased()
            self.headers[name] = text(letters, 1) + text(letters + "   ,;=/+\"", generator.below(20)) + "z"
        }
        self.body = text(letters + "{}\":äß漢👋\n", generator.below(200))
        self.accessKeyID = text(letters, 20)
        self.secretAccessKey = text(letters + "/+", 40)
        self.sessionToken = generator.below(2) == 0 ? nil : text(letters + "/+=", 1 + generator.below(300))
        self.seconds = 1_000_000_000 + Int64(generator.below(1_500_000_000))
        self.region = ["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1"][generator.below(4)]
    }

    var authorization: String? {
        var signer = Signer(region: self.region, service: "sqs")
        let host = [(name: "Host", value: "sqs.\(self.region).amazonaws.com:8443")]
        let request = SignableRequest(
            path: self.path,
            headers: host + self.headers.map { (name: $0.key, value: $0.value) },
            body: Array(self.body.utf8)
        )
        let credentials = Credentials(
            accessKeyID: self.accessKeyID,
            secretAccessKey: self.secretAccessKey,
            sessionToken: self.sessionToken
        )
        let time = Timestamp(millisecondsSince1970: self.seconds * 1000)
        return signer.sign(request, with: credentials, at: time).last?.value
    }
}
