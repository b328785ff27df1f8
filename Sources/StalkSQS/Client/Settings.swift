// Where the queue is and how it is reached: from options, variables and profiles, in the order of AWS's own tools.

internal import StalkCore

/// What is settled before the first request.
struct Settings: Hashable, Sendable {
    var endpoint: Endpoint
    var region: String
    /// The queue's address, where it was given; otherwise it is asked for by name.
    var queueURL: String?
    var queueName: String
    var account: String?
    var maxAttempts: Int

    /// Finds the settings.
    ///
    /// - Parameters:
    ///   - queue: A queue's name, or its `https://` address.
    ///   - configuration: What the program says; it beats everything else.
    ///   - profiles: What the files say.
    ///   - surroundings: Where variables are looked up.
    /// - Throws: ``StalkError`` with `invalidArgument`.
    init(
        queue: String,
        configuration: SQSConfiguration,
        profiles: Profiles,
        surroundings: Surroundings
    ) throws(StalkError) {
        let address = queue.contains("://") ? try Endpoint(queue) : nil
        self.queueURL = address == nil ? nil : queue
        self.queueName = address.map { String($0.path.split(separator: "/").last ?? "") } ?? queue
        self.account = configuration.account
        let profile = configuration.profile ?? surroundings.variable("AWS_PROFILE") ?? "default"
        let section = profiles.merged(profile) ?? [:]
        let configured = try Self.endpoint(configuration, profiles, section, surroundings)
        let region =
            configuration.region ?? address?.region ?? surroundings.variable("AWS_REGION")
            ?? surroundings.variable("AWS_DEFAULT_REGION") ?? section["region"] ?? configured?.region
        let ownEndpoint = configured ?? (address?.region == nil ? address : nil)
        // A server of one's own takes any region.
        guard let region = region ?? (ownEndpoint == nil ? nil : "us-east-1") else {
            throw StalkError(
                .invalidArgument,
                "There is no AWS region: name one with ?region=, AWS_REGION or the profile \(quoted(profile))."
            )
        }
        self.region = region
        if var ownEndpoint {
            if configured == nil { ownEndpoint.path = "/" }
            self.endpoint = ownEndpoint
        } else {
            self.endpoint = try Endpoint(
                service: "sqs",
                region: region,
                isFIPS: surroundings.isSet("AWS_USE_FIPS_ENDPOINT"),
                isDualStack: surroundings.isSet("AWS_USE_DUALSTACK_ENDPOINT")
            )
        }
        let attempts = surroundings.variable("AWS_MAX_ATTEMPTS") ?? section["max_attempts"]
        self.maxAttempts = max(1, configuration.maxAttempts ?? attempts.flatMap { Int($0) } ?? 3)
    }

    /// The endpoint that somebody wrote down; `AWS_ENDPOINT` is the name that Stalk's forerunner had for it.
    private static func endpoint(
        _ configuration: SQSConfiguration,
        _ profiles: Profiles,
        _ section: ProfileFile.Section,
        _ surroundings: Surroundings
    ) throws(StalkError) -> Endpoint? {
        if let endpoint = configuration.endpoint { return try Endpoint(endpoint) }
        guard !surroundings.isSet("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") else { return nil }
        for name in ["AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"] {
            if let text = surroundings.variable(name) { return try Endpoint(text) }
        }
        let services = section["services"].flatMap { profiles.shared("services", $0) }
        guard let text = services?["sqs.endpoint_url"] ?? section["endpoint_url"] else { return nil }
        return try Endpoint(text)
    }
}
