// Credentials from the agents that run beside a program: in its container, or on its machine.

internal import StalkCore

extension CredentialLoader {
    // MARK: Containers

    func container() async throws -> Credentials? {
        let url: String
        if let relative = self.surroundings.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            url = "http://169.254.170.2\(relative)"
        } else if let full = self.surroundings.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            url = full
        } else {
            return nil
        }
        let endpoint = try Endpoint(url)
        let isAllowed = endpoint.scheme == "https" || Self.agentHosts.contains(endpoint.host) || endpoint.isLoopback
        guard isAllowed else {
            throw StalkError(
                .permissionDenied,
                "AWS_CONTAINER_CREDENTIALS_FULL_URI names the host \(endpoint.host): only https, this machine and the "
                    + "agents of ECS and EKS are allowed."
            )
        }
        var headers: [String: String] = [:]
        if let token = try await self.containerToken() { headers["Authorization"] = token }
        let fetch = HTTPFetch(url: url, headers: headers, timeout: .seconds(2))
        return try await self.agentCredentials(fetch, of: "container's agent", tries: 3)
    }

    private static let agentHosts: Set<String> = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"]

    /// The file is read each time, since its content changes.
    private func containerToken() async throws -> String? {
        var token = self.surroundings.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN")
        if let path = self.surroundings.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            guard let text = try await self.surroundings.text(ofFile: path) else {
                throw StalkError(.permissionDenied, "The container's token \(path) is not there.")
            }
            token = text
        }
        guard token?.contains(where: \.isNewline) != true else {
            throw StalkError(
                .permissionDenied,
                "The container's token has a line end in it: it can't stand in a "
                    + "header."
            )
        }
        return token
    }

    // MARK: Instances

    func instance() async throws -> Credentials? {
        guard !self.surroundings.isSet("AWS_EC2_METADATA_DISABLED") else { return nil }
        let isIPv6 = self.surroundings.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")?.lowercased() == "ipv6"
        var base =
            self.surroundings.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT")
            ?? (isIPv6 ? "http://[fd00:ec2::254]" : "http://169.254.169.254")
        while base.last == "/" { base.removeLast() }
        let token = try? await self.surroundings.fetch(
            HTTPFetch(
                method: "PUT",
                url: "\(base)/latest/api/token",
                headers: ["X-aws-ec2-metadata-token-ttl-seconds": "21600"],
                timeout: .seconds(1)
            )
        )
        // Without a token there is no such service here; the older, tokenless way is not tried.
        guard let token, token.status == 200 else { return nil }
        let headers = ["X-aws-ec2-metadata-token": String(decoding: token.body, as: UTF8.self)]
        let path = "\(base)/latest/meta-data/iam/security-credentials/"
        let roles = try await self.surroundings.fetch(HTTPFetch(url: path, headers: headers, timeout: .seconds(1)))
        let role = String(decoding: roles.body, as: UTF8.self).split(whereSeparator: \.isNewline).first
        guard roles.status == 200, let role else { return nil }
        let fetch = HTTPFetch(url: path + role, headers: headers, timeout: .seconds(1))
        return try await self.agentCredentials(fetch, of: "instance metadata service", tries: 3)
    }

    private func agentCredentials(_ fetch: HTTPFetch, of agent: String, tries: Int) async throws -> Credentials {
        var failure = StalkError(.unavailable, "The \(agent) does not answer.")
        for _ in 0..<tries {
            let answer: (status: Int, body: [UInt8])
            do {
                answer = try await self.surroundings.fetch(fetch)
            } catch let error as CancellationError {
                throw error
            } catch {
                failure = StalkError(.unavailable, "The \(agent) does not answer: is it running?", cause: error)
                continue
            }
            guard answer.status == 200 else {
                let code: StalkError.Code =
                    answer.status >= 500 || answer.status == 429 ? .unavailable : .permissionDenied
                failure = StalkError(code, "The \(agent) answered HTTP \(answer.status): check its role.")
                if code == .permissionDenied { break }
                continue
            }
            guard let json = try? JSON(answer.body), let id = json["AccessKeyId"]?.text,
                let secret = json["SecretAccessKey"]?.text
            else {
                failure = StalkError(.unavailable, "The \(agent) answered without credentials.")
                continue
            }
            return Credentials(
                accessKeyID: id,
                secretAccessKey: secret,
                sessionToken: json["Token"]?.text,
                expiration: json["Expiration"]?.text.flatMap { Timestamp(iso8601: $0) }
            )
        }
        throw failure
    }
}

extension Endpoint {
    /// Whether the host is this machine.
    var isLoopback: Bool {
        self.host == "localhost" || self.host == "[::1]"
            || (self.host.hasPrefix("127.") && self.host.allSatisfy { $0.isNumber || $0 == "." })
    }
}
