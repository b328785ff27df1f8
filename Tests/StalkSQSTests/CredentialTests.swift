import StalkCore
import Synchronization
import Testing

@testable import StalkSQS

/// An outside world that a test writes down.
final class FakeWorld: Sendable {
    private struct State {
        var variables: [String: String] = [:]
        var files: [String: String] = [:]
        var answers: [String: [(status: Int, body: String)]] = [:]
        var programs: [[String]: String] = [:]
        var fetches: [HTTPFetch] = []
        var now = Timestamp(millisecondsSince1970: 1_795_000_000_000)
    }

    private let state = Mutex(State())

    init(_ variables: [String: String] = [:], files: [String: String] = [:], programs: [[String]: String] = [:]) {
        self.state.withLock { state in
            state.variables = variables.merging(["HOME": "/home/me"]) { given, _ in given }
            state.files = files
            state.programs = programs
        }
    }

    /// What a place answers, one after the other; the last answer stays.
    func answer(_ url: String, _ status: Int, _ body: String) {
        self.state.withLock { $0.answers[url, default: []].append((status, body)) }
    }

    var fetches: [HTTPFetch] { self.state.withLock { $0.fetches } }

    var surroundings: Surroundings {
        Surroundings(
            variable: { name in self.state.withLock { $0.variables[name] } },
            readFile: { path in self.state.withLock { $0.files[path].map { Array($0.utf8) } } },
            fetch: { fetch in
                let answer = self.state.withLock { state in
                    state.fetches.append(fetch)
                    let answer = state.answers[fetch.url]?.first
                    if state.answers[fetch.url]?.count ?? 0 > 1 { state.answers[fetch.url]?.removeFirst() }
                    return answer
                }
                guard let answer else { throw TransportFailure.notSent("nobody is there") }
                return (answer.status, Array(answer.body.utf8))
            },
            run: { words in
                guard let output = self.state.withLock({ $0.programs[words] }) else {
                    throw StalkError(.permissionDenied, "there is no such program.")
                }
                return Array(output.utf8)
            },
            now: { self.state.withLock { $0.now } }
        )
    }

    func load(profile: String? = nil) async throws -> Credentials {
        try await CredentialLoader(surroundings: self.surroundings, profile: profile, region: "eu-west-1").load()
    }
}

@Suite struct CredentialTests {
    private static let config = "/home/me/.aws/config"
    private static let shared = "/home/me/.aws/credentials"
    private static let answer = """
        {"AccessKeyId":"AGENT","SecretAccessKey":"s","Token":"t","Expiration":"2026-12-01T00:00:00Z"}
        """
    private static func stsAnswer(_ id: String) -> String {
        "<R><Credentials><AccessKeyId>\(id)</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            + "<SessionToken>a&amp;b</SessionToken><Expiration>2026-12-01T00:00:00Z</Expiration></Credentials></R>"
    }

    @Test func filesAreReadAsAWSReadsThem() {
        let file = ProfileFile(
            """
            # comment
            lost = 1
            [default]
            region = eu-west-1 # not this
            ; comment
            [profile two]
            services=local
            empty =
              nested = 1
            [services local]
            sqs =
                endpoint_url = http://localhost:1
            broken line
            """
        )
        #expect(file.sections["default"] == ["region": "eu-west-1"])
        #expect(file.sections["profile two"] == ["services": "local", "empty": "", "empty.nested": "1"])
        #expect(file.sections["services local"]?["sqs.endpoint_url"] == "http://localhost:1")
        #expect(file.sections.count == 3)
    }

    @Test func theOrderIsBotocores() throws {
        let text = """
            [profile p]
            aws_access_key_id = CONFIG
            aws_secret_access_key = s
            credential_process = /bin/keys
            role_arn = arn:role
            source_profile = p
            sso_account_id = 1
            sso_role_name = r
            sso_region = eu-west-1
            sso_start_url = https://x
            """
        let profiles = Profiles(
            config: ProfileFile(text),
            credentials: ProfileFile("[p]\naws_access_key_id = FILE\naws_secret_access_key = s")
        )
        let world = FakeWorld(["AWS_PROFILE": "p", "AWS_ROLE_ARN": "arn:web", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"])
        let plan = CredentialPlan(profile: nil, profiles: profiles, surroundings: world.surroundings)
        let kinds = plan.sources.map { source in
            switch source {
            case .environment: "environment"
            case .keys(let keys, _): keys.accessKeyID
            case .assumeRole: "role"
            case .webIdentity: "web identity"
            case .singleSignOn: "sso"
            case .process: "process"
            case .container: "container"
            case .instance: "instance"
            case .broken(_, let why): why
            }
        }
        let expected = [
            "environment", "role", "web identity", "sso", "FILE", "process", "CONFIG", "container", "instance",
        ]
        #expect(kinds == expected)
        let explicit = CredentialPlan(profile: "p", profiles: profiles, surroundings: world.surroundings)
        #expect(explicit.sources.first != .environment)
    }

    @Test func variablesComeFirst() async throws {
        let world = FakeWorld(
            ["AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"],
            files: [Self.shared: "[default]\naws_access_key_id = FILE\naws_secret_access_key = s"]
        )
        #expect(try await world.load() == Credentials(accessKeyID: "ENV", secretAccessKey: "s", sessionToken: "t"))
        #expect(try await world.load(profile: "default").accessKeyID == "FILE")
        await #expect(throws: StalkError.self) { try await FakeWorld(["AWS_ACCESS_KEY_ID": "HALF"]).load() }
    }

    @Test func rolesAreTakenOnOneByOne() async throws {
        let world = FakeWorld(files: [
            Self.config: """
            [profile a]
            role_arn = arn:a
            source_profile = b
            external_id = ext
            duration_seconds = 900
            [profile b]
            role_arn = arn:b
            source_profile = c
            [profile c]
            aws_access_key_id = BASE
            aws_secret_access_key = s
            """
        ])
        world.answer("https://sts.eu-west-1.amazonaws.com/", 200, Self.stsAnswer("FIRST"))
        world.answer("https://sts.eu-west-1.amazonaws.com/", 200, Self.stsAnswer("SECOND"))
        let credentials = try await world.load(profile: "a")
        #expect(credentials.accessKeyID == "SECOND")
        #expect(credentials.sessionToken == "a&b")
        #expect(credentials.expiration?.description == "2026-12-01T00:00:00.000Z")
        let bodies = world.fetches.map { String(decoding: $0.body, as: UTF8.self) }
        #expect(bodies[0].contains("RoleArn=arn%3Ab"))
        #expect(bodies[1].contains("RoleArn=arn%3Aa") && bodies[1].contains("ExternalId=ext&DurationSeconds=900"))
        let signers = world.fetches.compactMap { $0.headers["Authorization"] }
        #expect(signers[0].contains("Credential=BASE/") && signers[1].contains("Credential=FIRST/"))
    }

    @Test(arguments: [
        ("role_arn = a\nsource_profile = q\n[profile q]\nrole_arn = b\nsource_profile = p", "p → q → p"),
        ("role_arn = a\nsource_profile = gone", "gone"), ("role_arn = a", "neither"),
        ("role_arn = a\ncredential_source = Moon", "credential_source"),
        ("sso_account_id = 1\nsso_role_name = r\nsso_session = s", "sso-session s"),
    ])
    func brokenProfilesSayWhy(settings: String, words: String) async throws {
        let world = FakeWorld(files: [Self.config: "[profile p]\n\(settings)"])
        let error = try await #require(throws: StalkError.self) { try await world.load(profile: "p") }
        #expect(error.message.contains(words), "\(error)")
    }

    @Test func webIdentityIsNotSigned() async throws {
        let world = FakeWorld(
            ["AWS_ROLE_ARN": "arn:web", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_ROLE_SESSION_NAME": "me"],
            files: ["/token": "ey.J\n"]
        )
        world.answer("https://sts.eu-west-1.amazonaws.com/", 200, Self.stsAnswer("WEB"))
        #expect(try await world.load().accessKeyID == "WEB")
        let fetch = try #require(world.fetches.first)
        #expect(fetch.headers["Authorization"] == nil)
        #expect(String(decoding: fetch.body, as: UTF8.self).hasSuffix("RoleSessionName=me&WebIdentityToken=ey.J"))
    }

    @Test func programsPrintCredentials() async throws {
        let profile = "[profile p]\ncredential_process = /bin/keys --for 'a b' \"c\\\"d\""
        let output = #"{"Version":1,"AccessKeyId":"PROC","SecretAccessKey":"s","Expiration":"2026-12-01T00:00:00Z"}"#
        let words = ["/bin/keys", "--for", "a b", "c\"d"]
        let world = FakeWorld(files: [Self.config: profile], programs: [words: output])
        #expect(try await world.load(profile: "p").accessKeyID == "PROC")
        let bad = FakeWorld(
            files: [Self.config: profile],
            programs: [words: #"{"Version":2,"SecretAccessKey":"hush"}"#]
        )
        let error = try await #require(throws: StalkError.self) { try await bad.load(profile: "p") }
        #expect(!error.description.contains("hush"))
    }

    @Test(arguments: ["2026-12-01T00:00:00Z", "2020-12-01T00:00:00Z"])
    func signingOnUsesTheCachedToken(expiry: String) async throws {
        let world = FakeWorld(files: [
            Self.config: """
            [profile p]
            sso_account_id = 12
            sso_role_name = r
            sso_session = s
            [sso-session s]
            sso_region = eu-north-1
            """,
            // SHA-1 of "s".
            "/home/me/.aws/sso/cache/a0f1490a20d0211c997b44bc357e1972deab8ae3.json":
                #"{"accessToken":"tok","expiresAt":"\#(expiry)"}"#,
        ])
        world.answer(
            "https://portal.sso.eu-north-1.amazonaws.com/federation/credentials?role_name=r&account_id=12",
            200,
            #"{"roleCredentials":{"accessKeyId":"SSO","secretAccessKey":"s","sessionToken":"t","expiration":1796083200000}}"#
        )
        if expiry.hasPrefix("2026") {
            #expect(try await world.load(profile: "p").accessKeyID == "SSO")
            #expect(world.fetches.first?.headers["x-amz-sso_bearer_token"] == "tok")
        } else {
            let error = try await #require(throws: StalkError.self) { try await world.load(profile: "p") }
            #expect(error.message.contains("aws sso login --profile p"))
        }
    }

    @Test func containersHaveAnAgent() async throws {
        let pod = FakeWorld(
            [
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/token",
            ],
            files: ["/token": "bearer"]
        )
        pod.answer("http://169.254.170.23/v1/credentials", 503, "")
        pod.answer("http://169.254.170.23/v1/credentials", 200, Self.answer)
        #expect(try await pod.load().accessKeyID == "AGENT")
        #expect(pod.fetches.map { $0.headers["Authorization"] } == ["bearer", "bearer"])
        let task = FakeWorld(["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"])
        task.answer("http://169.254.170.2/v2/x", 200, Self.answer)
        #expect(try await task.load().sessionToken == "t")
        let away = FakeWorld(["AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://evil.example/"])
        #expect(try await #require(throws: StalkError.self) { try await away.load() }.message.contains("evil.example"))
        let split = FakeWorld([
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "a\r\nX: b",
        ])
        await #expect(throws: StalkError.self) { try await split.load() }
        #expect(away.fetches.isEmpty && split.fetches.isEmpty)
    }

    /// Nothing was sent without credentials, so nothing may count as sent without an answer.
    @Test func aTokenServiceThatIsAwayIsUnavailable() async throws {
        let world = FakeWorld(
            ["AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"],
            files: ["/token": "token"]
        )
        let error = try await #require(throws: StalkError.self) { try await world.load() }
        #expect(error.code == .unavailable && error.message.contains("/token"), "\(error.message)")
    }

    @Test func instancesHaveAService() async throws {
        let world = FakeWorld()
        let base = "http://169.254.169.254/latest"
        world.answer("\(base)/api/token", 200, "imds-token")
        world.answer("\(base)/meta-data/iam/security-credentials/", 200, "role\n")
        world.answer("\(base)/meta-data/iam/security-credentials/role", 200, Self.answer)
        #expect(try await world.load().accessKeyID == "AGENT")
        #expect(world.fetches.map(\.method) == ["PUT", "GET", "GET"])
        #expect(world.fetches[2].headers["X-aws-ec2-metadata-token"] == "imds-token")
        let off = FakeWorld(["AWS_EC2_METADATA_DISABLED": "true"])
        await #expect(throws: StalkError.self) { try await off.load() }
        #expect(off.fetches.isEmpty)
    }

    @Test func nothingFoundSaysWhereItLooked() async throws {
        let error = try await #require(throws: StalkError.self) { try await FakeWorld().load() }
        #expect(error.code == .permissionDenied)
        for word in ["AWS_ACCESS_KEY_ID", "container", "instance metadata"] { #expect(error.message.contains(word)) }
        let missing = try await #require(throws: StalkError.self) { try await FakeWorld().load(profile: "nobody") }
        #expect(missing.message.contains("nobody"))
    }

    // MARK: Keeping them

    private static func credentials(_ id: String, until minutes: Int64?) -> Credentials {
        Credentials(
            accessKeyID: id,
            secretAccessKey: "s",
            expiration: minutes.map { Timestamp(millisecondsSince1970: $0 * 60_000) }
        )
    }

    private static func minute(_ number: Int64) -> Timestamp { Timestamp(millisecondsSince1970: number * 60_000) }

    @Test func renewedAheadOfTheEnd() {
        var machine = CredentialCacheStateMachine()
        #expect(machine.ask(now: Self.minute(0)) == .fetch)
        #expect(machine.ask(now: Self.minute(0)) == .wait)
        let first = Self.credentials("A", until: 60)
        machine.fetched(first, now: Self.minute(0))
        #expect(machine.ask(now: Self.minute(44)) == .use(first))
        #expect(machine.ask(now: Self.minute(46)) == .useAndRenew(first))
        #expect(machine.ask(now: Self.minute(46)) == .use(first))
        #expect(machine.ask(now: Self.minute(51)) == .wait)
        #expect(machine.failed(now: Self.minute(51)) == first)
        #expect(machine.ask(now: Self.minute(51)) == .use(first))
        #expect(machine.ask(now: Self.minute(52)) == .fetch)
        #expect(machine.failed(now: Self.minute(61)) == nil)
        #expect(machine.ask(now: Self.minute(61)) == .fetch)
        machine.fetched(Self.credentials("B", until: nil), now: Self.minute(61))
        #expect(machine.ask(now: Self.minute(99_999)) == .use(Self.credentials("B", until: nil)))
    }

    @Test func shortLivedOnesAreNotRenewedAllTheTime() {
        var machine = CredentialCacheStateMachine()
        _ = machine.ask(now: Self.minute(0))
        let short = Self.credentials("A", until: 12)
        machine.fetched(short, now: Self.minute(0))
        #expect(machine.ask(now: Self.minute(1)) == .use(short))
        #expect(machine.ask(now: Self.minute(7)) == .useAndRenew(short))
    }

    /// The agent of an instance or the token service is away: what still holds is used, then askers are told, and the
    /// first answer mends it.
    @Test func anAgentThatIsAwayIsFeltOnlyWhenNothingHoldsAnyMore() async throws {
        let minute = Atomic<Int64>(0)
        let isAway = Atomic(false)
        let cache = CredentialCache(now: { Self.minute(minute.load(ordering: .relaxed)) }) {
            if isAway.load(ordering: .relaxed) { throw StalkError(.unavailable, "nobody answers at 169.254.169.254") }
            let now = minute.load(ordering: .relaxed)
            return Self.credentials("A\(now)", until: now + 60)
        }
        #expect(try await cache.credentials().accessKeyID == "A0")
        isAway.store(true, ordering: .relaxed)
        for now: Int64 in [46, 52, 55, 59] {
            minute.store(now, ordering: .relaxed)
            #expect(try await cache.credentials().accessKeyID == "A0", "minute \(now)")
        }
        minute.store(61, ordering: .relaxed)
        for _ in 0..<2 {
            let error = try await #require(throws: StalkError.self) { try await cache.credentials() }
            #expect(error.message.contains("169.254.169.254"))
        }
        isAway.store(false, ordering: .relaxed)
        #expect(try await cache.credentials().accessKeyID == "A61")
    }

    @Test func manyAskersMakeOneFlightAndAFailureIsNotKept() async throws {
        let loads = Atomic(0)
        let cache = CredentialCache(now: { Self.minute(0) }) {
            let count = loads.add(1, ordering: .relaxed).newValue
            for _ in 0..<50 { await Task.yield() }
            if count == 1 { throw StalkError(.unavailable, "the first fails") }
            return Self.credentials("A\(count)", until: nil)
        }
        await #expect(throws: StalkError.self) { try await cache.credentials() }
        try await withThrowingTaskGroup(of: String.self) { group in
            for _ in 0..<50 { group.addTask { try await cache.credentials().accessKeyID } }
            for try await id in group { #expect(id == "A2") }
        }
        await cache.refused(Self.credentials("A2", until: nil))
        #expect(try await cache.credentials().accessKeyID == "A3")
        #expect(loads.load(ordering: .relaxed) == 3)
    }
}
