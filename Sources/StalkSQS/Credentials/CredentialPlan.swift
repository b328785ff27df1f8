// Where credentials may come from, and in which order: botocore's.

internal import StalkCore

/// One place that credentials may come from.
indirect enum CredentialSource: Hashable, Sendable {
    /// The variables AWS_ACCESS_KEY_ID and its companions.
    case environment
    /// Keys that stand in a file.
    case keys(Credentials, place: String)
    /// A role that the credentials of another place may take on.
    case assumeRole(AssumeRole, from: CredentialSource)
    /// A role that a token in a file may take on.
    case webIdentity(WebIdentity)
    /// What somebody who signed in with a browser may do.
    case singleSignOn(SingleSignOn)
    /// What a program prints.
    case process(String, profile: String)
    /// The container's own agent.
    case container
    /// The machine's own service.
    case instance
    /// A setting that can't work; the text says why.
    case broken(StalkError.Code, String)

    struct AssumeRole: Hashable, Sendable {
        var roleARN: String
        var externalID: String?
        var sessionName: String?
        var seconds: Int?
    }

    struct WebIdentity: Hashable, Sendable {
        var roleARN: String
        var tokenFile: String
        var sessionName: String?
    }

    struct SingleSignOn: Hashable, Sendable {
        /// What names the file of the token: the session, or the start address of an older set-up.
        var cacheKey: String
        var region: String
        var accountID: String
        var roleName: String
        var profile: String
    }

    /// The place in words, for the sentence that says where nothing was found.
    var place: String {
        switch self {
        case .environment: "the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        case .keys(_, let place): place
        case .assumeRole(let role, _): "the role \(role.roleARN)"
        case .webIdentity(let identity): "the web identity of \(identity.tokenFile)"
        case .singleSignOn(let login): "the sign-on of profile \(login.profile)"
        case .process(_, let profile): "the credential_process of profile \(profile)"
        case .container: "the container's agent (AWS_CONTAINER_CREDENTIALS_…)"
        case .instance: "the instance metadata service"
        case .broken(_, let why): why
        }
    }
}

/// The order of the places.
struct CredentialPlan: Hashable, Sendable {
    var sources: [CredentialSource]
    /// The profile that was looked at.
    var profile: String
    /// Whether any file had a section for it.
    var hasProfile: Bool

    /// Decides where to look.
    ///
    /// - Parameters:
    ///   - profile: The profile that the program was told to use; it beats the variables with keys.
    ///   - profiles: What the files say.
    ///   - surroundings: Where variables are looked up.
    init(profile explicit: String?, profiles: Profiles, surroundings: Surroundings) {
        let name =
            explicit ?? surroundings.variable("AWS_PROFILE") ?? surroundings.variable("AWS_DEFAULT_PROFILE")
            ?? "default"
        self.profile = name
        self.hasProfile = profiles.merged(name) != nil
        self.sources = []
        if explicit == nil { self.sources.append(.environment) }
        var resolution = ProfileResolution(profiles: profiles)
        if let role = resolution.assumeRole(name) { self.sources.append(role) }
        if let roleARN = surroundings.variable("AWS_ROLE_ARN"),
            let tokenFile = surroundings.variable("AWS_WEB_IDENTITY_TOKEN_FILE"), explicit == nil
        {
            let session = surroundings.variable("AWS_ROLE_SESSION_NAME")
            let identity = CredentialSource.WebIdentity(roleARN: roleARN, tokenFile: tokenFile, sessionName: session)
            self.sources.append(.webIdentity(identity))
        }
        self.sources += resolution.ownSources(name)
        self.sources.append(.container)
        self.sources.append(.instance)
    }
}

/// Follows the profiles that profiles name.
private struct ProfileResolution {
    let profiles: Profiles
    private var visited: [String] = []

    init(profiles: Profiles) {
        self.profiles = profiles
    }

    /// The role that a profile takes on with the credentials of another; `nil` when it names none.
    mutating func assumeRole(_ name: String) -> CredentialSource? {
        guard let settings = self.profiles.merged(name), let roleARN = settings["role_arn"],
            settings["web_identity_token_file"] == nil
        else { return nil }
        let role = CredentialSource.AssumeRole(
            roleARN: roleARN,
            externalID: settings["external_id"],
            sessionName: settings["role_session_name"],
            seconds: settings["duration_seconds"].flatMap { Int($0) }
        )
        if let source = settings["credential_source"] {
            switch source {
            case "Environment": return .assumeRole(role, from: .environment)
            case "Ec2InstanceMetadata": return .assumeRole(role, from: .instance)
            case "EcsContainer": return .assumeRole(role, from: .container)
            default:
                let known = "Environment, Ec2InstanceMetadata or EcsContainer"
                return .broken(.invalidArgument, "The credential_source of profile \(name) is unknown: write \(known).")
            }
        }
        guard let source = settings["source_profile"] else {
            return .broken(
                .invalidArgument,
                "The profile \(name) has a role_arn, but neither source_profile nor credential_source: add one."
            )
        }
        return .assumeRole(role, from: self.base(source, of: name))
    }

    /// What a role is taken on with.
    private mutating func base(_ source: String, of name: String) -> CredentialSource {
        guard self.profiles.merged(source) != nil else {
            return .broken(
                .invalidArgument,
                "The profile \(name) names the source_profile \(source), which is in no "
                    + "file."
            )
        }
        self.visited.append(name)
        // A profile may name itself where it has keys of its own.
        if source != name {
            guard !self.visited.contains(source) else {
                let path = (self.visited + [source]).joined(separator: " → ")
                return .broken(.invalidArgument, "The profiles name each other as source_profile: \(path).")
            }
            if let role = self.assumeRole(source) { return role }
        }
        let sources = self.ownSources(source)
        guard let first = sources.first else {
            return .broken(.invalidArgument, "The profile \(source), source_profile of \(name), has no credentials.")
        }
        return first
    }

    /// What a profile has itself, in order.
    func ownSources(_ name: String) -> [CredentialSource] {
        let settings = self.profiles.merged(name) ?? [:]
        var sources: [CredentialSource] = []
        if let roleARN = settings["role_arn"], let tokenFile = settings["web_identity_token_file"] {
            let session = settings["role_session_name"]
            sources.append(.webIdentity(.init(roleARN: roleARN, tokenFile: tokenFile, sessionName: session)))
        }
        if let login = self.singleSignOn(name, settings) { sources.append(login) }
        if let keys = Self.keys(self.profiles.credentials(name)) {
            sources.append(.keys(keys, place: "profile \(name) of the credentials file"))
        }
        if let command = settings["credential_process"], !command.isEmpty {
            sources.append(.process(command, profile: name))
        }
        if let keys = Self.keys(self.profiles.config(name)) {
            sources.append(.keys(keys, place: "profile \(name) of the config file"))
        }
        return sources
    }

    private static func keys(_ settings: ProfileFile.Section?) -> Credentials? {
        guard let id = settings?["aws_access_key_id"], let secret = settings?["aws_secret_access_key"], !id.isEmpty
        else {
            return nil
        }
        return Credentials(accessKeyID: id, secretAccessKey: secret, sessionToken: settings?["aws_session_token"])
    }

    private func singleSignOn(_ name: String, _ settings: ProfileFile.Section) -> CredentialSource? {
        guard let accountID = settings["sso_account_id"], let roleName = settings["sso_role_name"] else { return nil }
        var (key, region) = (settings["sso_start_url"], settings["sso_region"])
        if let session = settings["sso_session"] {
            guard let shared = self.profiles.shared("sso-session", session) else {
                return .broken(
                    .invalidArgument,
                    "The profile \(name) names the sso-session \(session), which is in "
                        + "no file."
                )
            }
            key = session
            region = shared["sso_region"] ?? region
        }
        guard let key, let region else {
            return .broken(.invalidArgument, "The profile \(name) lacks sso_region, and sso_session or sso_start_url.")
        }
        return .singleSignOn(
            .init(cacheKey: key, region: region, accountID: accountID, roleName: roleName, profile: name)
        )
    }
}
