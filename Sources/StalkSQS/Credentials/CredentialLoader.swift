// Fetches credentials from the places of a plan.

internal import Crypto
internal import StalkCore

/// Goes through a plan; the first place that has credentials decides, and one that fails ends the search.
struct CredentialLoader: Sendable {
    let surroundings: Surroundings
    /// The profile that the program was told to use.
    let profile: String?
    /// Where the token service is asked.
    let region: String

    /// Finds credentials.
    ///
    /// - Throws: ``StalkError`` with `permissionDenied`, naming the places that were looked at, or saying which one failed.
    func load() async throws -> Credentials {
        let profiles = try await Profiles.load(self.surroundings)
        let plan = CredentialPlan(profile: self.profile, profiles: profiles, surroundings: self.surroundings)
        if let profile = self.profile ?? self.surroundings.variable("AWS_PROFILE"), !plan.hasProfile {
            throw StalkError(
                .invalidArgument,
                "There is no AWS profile \(quoted(profile)) in ~/.aws/config or ~/.aws/credentials: add it or name "
                    + "another."
            )
        }
        for source in plan.sources {
            do {
                if let credentials = try await self.credentials(from: source) { return credentials }
            } catch let failure as TransportFailure {
                // Whatever was to be sent with them was not sent.
                throw StalkError(.unavailable, "No credentials: \(source.place) can't be asked.", cause: failure)
            }
        }
        throw StalkError(
            .permissionDenied,
            "There are no AWS credentials. Looked at: \(plan.sources.map(\.place).joined(separator: "; ")). "
                + "Set the variables, write a profile, or sign in."
        )
    }

    /// The credentials of one place; `nil` when it has none.
    func credentials(from source: CredentialSource) async throws -> Credentials? {
        switch source {
        case .environment: try self.environment()
        case .keys(let keys, _): keys
        case .assumeRole(let role, let base): try await self.assume(role, from: base)
        case .webIdentity(let identity): try await self.exchange(identity)
        case .singleSignOn(let login): try await self.signOn(login)
        case .process(let command, let profile): try await self.run(command, profile: profile)
        case .container: try await self.container()
        case .instance: try await self.instance()
        case .broken(let code, let why): throw StalkError(code, why)
        }
    }

    private func environment() throws(StalkError) -> Credentials? {
        guard let id = self.surroundings.variable("AWS_ACCESS_KEY_ID") else { return nil }
        guard let secret = self.surroundings.variable("AWS_SECRET_ACCESS_KEY") else {
            throw StalkError(
                .permissionDenied,
                "AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not: set both or "
                    + "none."
            )
        }
        return Credentials(
            accessKeyID: id,
            secretAccessKey: secret,
            sessionToken: self.surroundings.variable("AWS_SESSION_TOKEN")
                ?? self.surroundings.variable("AWS_SECURITY_TOKEN"),
            expiration: self.surroundings.variable("AWS_CREDENTIAL_EXPIRATION").flatMap { Timestamp(iso8601: $0) }
        )
    }

    // MARK: The token service

    private func assume(_ role: CredentialSource.AssumeRole, from base: CredentialSource) async throws -> Credentials {
        guard let credentials = try await self.credentials(from: base) else {
            throw StalkError(
                .permissionDenied,
                "There is nothing to take on \(role.roleARN) with: \(base.place) has "
                    + "no credentials."
            )
        }
        var form = [
            ("Action", "AssumeRole"), ("Version", "2011-06-15"), ("RoleArn", role.roleARN),
            ("RoleSessionName", role.sessionName ?? self.sessionName),
        ]
        if let externalID = role.externalID { form.append(("ExternalId", externalID)) }
        if let seconds = role.seconds { form.append(("DurationSeconds", String(seconds))) }
        return try await self.askTokenService(form, for: role.roleARN, signedBy: credentials)
    }

    private func exchange(_ identity: CredentialSource.WebIdentity) async throws -> Credentials {
        guard let token = try await self.surroundings.text(ofFile: identity.tokenFile)?.trimmingSpace else {
            throw StalkError(.permissionDenied, "The web identity token \(identity.tokenFile) is not there.")
        }
        let form = [
            ("Action", "AssumeRoleWithWebIdentity"), ("Version", "2011-06-15"), ("RoleArn", identity.roleARN),
            ("RoleSessionName", identity.sessionName ?? self.sessionName), ("WebIdentityToken", token),
        ]
        return try await self.askTokenService(form, for: identity.roleARN, signedBy: nil)
    }

    private var sessionName: String { "stalk-\(self.surroundings.now().millisecondsSince1970 / 1000)" }

    private func askTokenService(
        _ form: [(String, String)],
        for role: String,
        signedBy credentials: Credentials?
    ) async throws -> Credentials {
        let configured =
            self.surroundings.variable("AWS_ENDPOINT_URL_STS") ?? self.surroundings.variable("AWS_ENDPOINT_URL")
        let endpoint = try configured.map { try Endpoint($0) } ?? Endpoint(service: "sts", region: self.region)
        let body = form.map { "\($0.0)=\(Signer.percentEncoded($0.1))" }.joined(separator: "&")
        var request = SignableRequest(
            path: endpoint.path,
            headers: [
                (name: "Host", value: endpoint.authority),
                (name: "Content-Type", value: "application/x-www-form-urlencoded; charset=utf-8"),
            ],
            body: Array(body.utf8)
        )
        if let credentials {
            var signer = Signer(region: self.region, service: "sts")
            request.headers += signer.sign(request, with: credentials, at: self.surroundings.now())
        }
        let headers = request.headers.filter { $0.name != "Host" }.map { ($0.name, $0.value) }
        let answer = try await self.surroundings.fetch(
            HTTPFetch(
                method: "POST",
                url: endpoint.description,
                headers: Dictionary(headers) { $1 },
                body: request.body,
                timeout: .seconds(10)
            )
        )
        let text = String(decoding: answer.body, as: UTF8.self)
        guard answer.status == 200, let id = XMLText.element("AccessKeyId", in: text),
            let secret = XMLText.element("SecretAccessKey", in: text)
        else {
            let error = ServiceError(status: answer.status, headers: [:], body: answer.body)
            throw StalkError(
                error.kind == .transient || error.kind == .throttle ? .unavailable : .permissionDenied,
                "The role \(role) can't be taken on (\(answer.status) \(error.code)): check its trust policy.",
                cause: ServiceAnswer(error)
            )
        }
        return Credentials(
            accessKeyID: id,
            secretAccessKey: secret,
            sessionToken: XMLText.element("SessionToken", in: text),
            expiration: XMLText.element("Expiration", in: text).flatMap { Timestamp(iso8601: $0) }
        )
    }

    // MARK: Signing on, and programs

    private func signOn(_ login: CredentialSource.SingleSignOn) async throws -> Credentials {
        let name = Signer.hex(Insecure.SHA1.hash(data: Array(login.cacheKey.utf8)))
        let advice = "sign in with 'aws sso login --profile \(login.profile)'"
        guard
            let file = try await self.surroundings.readFile(
                self.surroundings.expanded("~/.aws/sso/cache/\(name).json")
            ),
            let token = try? JSON(file), let accessToken = token["accessToken"]?.text
        else { throw StalkError(.permissionDenied, "Nobody has signed in for profile \(login.profile): \(advice).") }
        let expiry = token["expiresAt"]?.text.flatMap { Timestamp(iso8601: $0) }
        guard let expiry, expiry > self.surroundings.now() else {
            throw StalkError(.permissionDenied, "The sign-on of profile \(login.profile) has expired: \(advice).")
        }
        let endpoint = try Endpoint(service: "portal.sso", region: login.region)
        let query =
            "role_name=\(Signer.percentEncoded(login.roleName))&account_id=\(Signer.percentEncoded(login.accountID))"
        let answer = try await self.surroundings.fetch(
            HTTPFetch(
                url: "\(endpoint)federation/credentials?\(query)",
                headers: ["x-amz-sso_bearer_token": accessToken],
                timeout: .seconds(10)
            )
        )
        guard answer.status == 200, let role = try? JSON(answer.body)["roleCredentials"],
            let id = role["accessKeyId"]?.text, let secret = role["secretAccessKey"]?.text
        else {
            throw StalkError(
                answer.status >= 500 ? .unavailable : .permissionDenied,
                "The sign-on of profile \(login.profile) gave no credentials (HTTP \(answer.status)): \(advice)."
            )
        }
        return Credentials(
            accessKeyID: id,
            secretAccessKey: secret,
            sessionToken: role["sessionToken"]?.text,
            expiration: role["expiration"]?.integer.map { Timestamp(millisecondsSince1970: Int64($0)) }
        )
    }

    private func run(_ command: String, profile: String) async throws -> Credentials {
        let output: [UInt8]
        do {
            output = try await self.surroundings.run(Self.words(of: command))
        } catch let error as StalkError {
            throw StalkError(error.code, "The credential_process of profile \(profile) failed: \(error.message)")
        }
        guard let json = try? JSON(output), json["Version"]?.integer == 1, let id = json["AccessKeyId"]?.text,
            let secret = json["SecretAccessKey"]?.text
        else {
            throw StalkError(
                .permissionDenied,
                "The credential_process of profile \(profile) printed no credentials of version 1: see its manual."
            )
        }
        return Credentials(
            accessKeyID: id,
            secretAccessKey: secret,
            sessionToken: json["SessionToken"]?.text,
            expiration: json["Expiration"]?.text.flatMap { Timestamp(iso8601: $0) }
        )
    }

    /// The words of a command, with quotes and backslashes as in a shell; no shell runs it.
    static func words(of command: String) -> [String] {
        var words: [String] = []
        var word: String?
        var quote: Character?
        var isEscaped = false
        for character in command {
            if isEscaped {
                word = (word ?? "") + String(character)
                isEscaped = false
            } else if character == "\\", quote != "'" {
                isEscaped = true
            } else if character == quote {
                quote = nil
            } else if quote == nil, character == "\"" || character == "'" {
                quote = character
                word = word ?? ""
            } else if quote == nil, character.isWhitespace {
                if let word { words.append(word) }
                word = nil
            } else {
                word = (word ?? "") + String(character)
            }
        }
        if let word { words.append(word) }
        return words
    }
}
