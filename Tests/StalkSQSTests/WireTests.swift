import StalkCore
import Testing

@testable import StalkSQS

@Suite struct JSONTests {
    @Test(arguments: [
        (#"{}"#, JSON.object([:])), (#" [ 1 , -2.5e3 ] "#, .array([.number("1"), .number("-2.5e3")])),
        (
            #"{"a":{"b":[true,false,null]}}"#,
            .object(["a": .object(["b": .array([.bool(true), .bool(false), .null])])])
        ),
        (#""Grüße \"\\\/\b\f\n\r\t 漢 \u00e9 \ud83d\udc4b""#, .string("Grüße \"\\/\u{8}\u{C}\n\r\t 漢 é 👋")),
    ])
    func reads(text: String, value: JSON) throws {
        #expect(try JSON(Array(text.utf8)) == value)
    }

    @Test(arguments: [
        "", " ", "{", "[1,]", "{\"a\"}", "{\"a\":1,}", "{a:1}", "nul", "1 2", "\"", "\"\\", "\"\\u12\"", "\"\\u+123\"",
        "\"\\ud83d\"", "\"\\ud83dx\"", "\"\\x\"", "\"\n\"", "<html>", "--1", String(repeating: "[", count: 100_000),
    ])
    func refuses(text: String) {
        #expect(throws: StalkError.self) { try JSON(Array(text.utf8)) }
    }

    @Test func refusesBytesThatAreNotUTF8() {
        #expect(throws: StalkError.self) { try JSON([0x22, 0xFF, 0x22]) }
        #expect(throws: StalkError.self) { try JSON([0x22, 0x5C, 0x6E, 0xC3, 0x22]) }
    }

    @Test func writesWhatItReads() throws {
        let text = "a\"b\\c\n\u{1}\u{7F}Grüße 漢 👋"
        var writer = JSONWriter()
        writer.object { writer in
            writer.member("text", text)
            writer.member("absent", nil as String?)
            writer.member("number", 42)
            writer.member("list", ["x", ""])
            writer.key("ascii")
            writer.string(text, asciiOnly: true)
            writer.key("empty")
            writer.array { _ in }
        }
        let value = try JSON(writer.bytes)
        #expect(value["text"]?.text == text)
        #expect(value["ascii"]?.text == text)
        #expect(value["absent"] == nil)
        #expect(value["number"]?.integer == 42)
        #expect(value["list"]?.elements == [.string("x"), .string("")])
        #expect(value["empty"]?.elements == [])
        let ascii = writer.bytes.split(separator: UInt8(ascii: ":"))
        #expect(ascii.contains { $0.starts(with: #""a\"b\\c\u000a\u0001\u007fGr\u00fc"#.utf8) })
    }
}

@Suite struct EndpointTests {
    @Test(arguments: [
        ("eu-west-1", "https://sqs.eu-west-1.amazonaws.com/"),
        ("cn-north-1", "https://sqs.cn-north-1.amazonaws.com.cn/"),
        ("us-gov-west-1", "https://sqs.us-gov-west-1.amazonaws.com/"),
        ("us-iso-east-1", "https://sqs.us-iso-east-1.c2s.ic.gov/"),
        ("us-isob-east-1", "https://sqs.us-isob-east-1.sc2s.sgov.gov/"),
        ("us-isof-south-1", "https://sqs.us-isof-south-1.csp.hci.ic.gov/"),
        ("eusc-de-east-1", "https://sqs.eusc-de-east-1.amazonaws.eu/"),
    ])
    func regionsHaveTheirEndpoints(region: String, address: String) throws {
        let endpoint = try Endpoint(service: "sqs", region: region)
        #expect(endpoint.description == address)
        #expect(endpoint.region == region)
        #expect(try Endpoint(address) == endpoint)
    }

    @Test func variants() throws {
        #expect(
            try Endpoint(service: "sqs", region: "us-east-1", isFIPS: true).host == "sqs-fips.us-east-1.amazonaws.com"
        )
        let dual = try Endpoint(service: "sqs", region: "us-east-1", isDualStack: true)
        #expect(dual.host == "sqs.us-east-1.api.aws")
        #expect(dual.region == "us-east-1")
        #expect(try Endpoint("https://eu-west-1.queue.amazonaws.com/1/q").region == "eu-west-1")
    }

    @Test func addressesAreTakenApart() throws {
        let local = try Endpoint("HTTP://localhost:9324/a/b?x=1")
        #expect(local.authority == "localhost:9324")
        #expect(local.path == "/a/b")
        #expect(local.region == nil)
        #expect(try Endpoint("https://example.com:443").authority == "example.com")
        #expect(try Endpoint("http://[::1]:80/").description == "http://[::1]/")
    }

    @Test(arguments: ["", "localhost", "ftp://x", "http://", "http://:80", "http://a:b", "http://a:0", "http://u@h/"])
    func refuses(text: String) {
        #expect(throws: StalkError.self) { try Endpoint(text) }
    }

    @Test(arguments: ["", "eu west", "EU", "a.b", "-a", "a/b", "evil.com#"])
    func refuses(region: String) {
        #expect(throws: StalkError.self) { try Endpoint(service: "sqs", region: region) }
    }
}

@Suite struct ServiceErrorTests {
    private func error(_ status: Int, _ body: String, _ headers: [String: String] = [:]) -> ServiceError {
        ServiceError(status: status, headers: headers, body: Array(body.utf8))
    }

    @Test func everyFormIsRead() {
        let forms = [
            self.error(400, #"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"gone"}"#),
            self.error(400, #"{"__type":"QueueDoesNotExist:http://x/","Message":"gone"}"#),
            self.error(400, #"{"code":"QueueDoesNotExist","message":"gone"}"#),
            self.error(400, #"{"message":"gone"}"#, ["x-amzn-errortype": "QueueDoesNotExist:http://x"]),
            self.error(400, "<R><Error><Code>QueueDoesNotExist</Code><Message>gone</Message></Error></R>"),
            self.error(
                400,
                #"{"message":"gone"}"#,
                ["x-amzn-query-error": "AWS.SimpleQueueService.NonExistentQueue;Sender"]
            ),
        ]
        for form in forms {
            #expect(form.code == "QueueDoesNotExist")
            #expect(form.message == "gone")
            #expect(form.kind == .permanent)
        }
    }

    @Test(arguments: [
        (500, "<html>oops</html>", ServiceError.Kind.transient), (503, "", .transient), (502, "{", .transient),
        (504, "<?xml?>", .transient), (429, "", .throttle), (400, "", .permanent), (404, "<html>", .permanent),
        (400, #"{"__type":"RequestThrottled"}"#, .throttle), (400, #"{"__type":"x#KmsThrottled"}"#, .throttle),
        (403, #"{"__type":"ExpiredToken"}"#, .credentials), (400, #"{"__type":"InternalError"}"#, .transient),
        (403, #"{"__type":"SignatureDoesNotMatch","message":"no match"}"#, .permanent),
        (403, #"{"__type":"SignatureDoesNotMatch","message":"Signature expired: x"}"#, .clock),
        (403, #"{"__type":"InvalidSignatureException","message":"Signature not yet current: x"}"#, .clock),
        (403, #"{"__type":"RequestTimeTooSkewed"}"#, .clock), (403, #"{"__type":"AccessDenied"}"#, .permanent),
        (400, #"{"__type":"OverLimit"}"#, .permanent), (501, "", .permanent),
    ])
    func kinds(status: Int, body: String, kind: ServiceError.Kind) {
        #expect(self.error(status, body).kind == kind)
    }

    @Test func headersOfTheAnswerAreKept() {
        let headers = ["date": "Sun, 06 Nov 1994 08:49:37 GMT", "x-amz-retry-after": "1500"]
        let error = self.error(503, "", headers)
        #expect(error.serverTime?.description == "1994-11-06T08:49:37.000Z")
        #expect(error.retryAfter == .milliseconds(1500))
    }

    @Test(arguments: [
        ("AccessDenied", "", StalkError.Code.permissionDenied, "sqs:SendMessage"),
        ("QueueDoesNotExist", "", .noSuchQueue, "eu-west-1"), ("InvalidClientTokenId", "", .permissionDenied, "AKID"),
        ("ExpiredToken", "", .permissionDenied, "expired"), ("RequestTimeTooSkewed", "", .unavailable, "20 minutes"),
        ("SignatureDoesNotMatch", "", .permissionDenied, "secret key of AKID"),
        ("SignatureDoesNotMatch", "should be scoped to a valid region", .invalidArgument, "?region="),
        ("KmsAccessDenied", "", .permissionDenied, "encrypts"), ("OverLimit", "", .unavailable, "unfinished"),
        ("Odd", "why", .invalidArgument, "Odd: why"), ("ReceiptHandleIsInvalid", "", .staleReceipt, "come again"),
    ])
    func sentencesSayWhatToDo(code: String, message: String, expected: StalkError.Code, words: String) {
        let context = CallContext(
            action: "sqs:SendMessage",
            queue: "mail",
            region: "eu-west-1",
            accessKeyID: "AKID",
            clockOffset: .seconds(-1234)
        )
        let error = ServiceError(status: 403, code: code, message: message).stalkError(context)
        #expect(error.code == expected)
        #expect(error.message.contains(words), "\(error.message)")
    }

    @Test(arguments: [
        ("2026-11-23T12:00:00Z", "2026-11-23T12:00:00.000Z"), ("2026-11-23T12:00:00.123Z", "2026-11-23T12:00:00.000Z"),
        ("2026-11-23T12:00:00+02:30", "2026-11-23T09:30:00.000Z"),
        ("2026-02-28T23:59:59-01:00", "2026-03-01T00:59:59.000Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000Z"),
    ])
    func datesOfCredentials(text: String, moment: String) {
        #expect(Timestamp(iso8601: text)?.description == moment)
    }

    @Test(arguments: [
        "", "2026-11-23", "2026-13-01T00:00:00Z", "yesterday", "2026-11-23T12:00Z", "2026-11-23T12:00:00",
    ])
    func noDates(text: String) {
        #expect(Timestamp(iso8601: text) == nil)
    }

    @Test func printedCredentialsShowNoSecret() {
        let credentials = Credentials(accessKeyID: "AKID", secretAccessKey: "hidden", sessionToken: "token")
        var dumped = ""
        dump(credentials, to: &dumped)
        for text in [
            "\(credentials)", String(reflecting: credentials), "\([credentials])", "\(Optional(credentials) as Any)",
            dumped,
        ] {
            #expect(text.contains("AKID"))
            #expect(!text.contains("hidden") && !text.contains("token"), "\(text)")
        }
    }
}
