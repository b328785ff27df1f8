// Opening a collector: settings, credentials and what the queue says of itself.

internal import Crypto
internal import StalkCore

extension SQSCollector {
    /// Finds a queue and makes a collector for it, asleep.
    ///
    /// - Parameters:
    ///   - queue: The queue's name, or its `https://` address.
    ///   - configuration: How to reach it and to work.
    /// - Throws: ``StalkCore/StalkError``: `noSuchQueue`, `permissionDenied` when credentials are missing or refused,
    ///   `unavailable` when SQS can't be reached.
    public static func open(
        _ queue: String,
        configuration: SQSConfiguration = SQSConfiguration()
    ) async throws -> SQSCollector {
        let transport = HTTPTransport()
        do {
            return try await Self.open(
                queue,
                configuration: configuration,
                transport: transport,
                surroundings: .system(transport),
                clock: ElapsedClock(ContinuousClock())
            )
        } catch {
            await transport.close()
            throw error
        }
    }

    static func open(
        _ queue: String,
        configuration: SQSConfiguration,
        transport: any Transport,
        surroundings: Surroundings,
        clock: ElapsedClock
    ) async throws -> SQSCollector {
        let profiles = try await Profiles.load(surroundings)
        let settings = try Settings(
            queue: queue,
            configuration: configuration,
            profiles: profiles,
            surroundings: surroundings
        )
        let name = try QueueName(settings.queueName)
        let loader = CredentialLoader(
            surroundings: surroundings,
            profile: configuration.profile,
            region: settings.region
        )
        let client = SQSClient(
            settings: settings,
            transport: transport,
            credentials: CredentialCache(now: surroundings.now) { [fixed = configuration.credentials] in
                if let fixed { return fixed }
                return try await loader.load()
            },
            callTimeout: configuration.callTimeout,
            clock: clock,
            wallTime: surroundings.now
        )
        let (calls, redriveTarget) = try await QueueCalls.find(
            client,
            name: settings.queueName,
            url: settings.queueURL,
            account: settings.account,
            defaultGroup: configuration.defaultGroup
        )
        let errorCalls = try await Self.errorQueue(configuration, redriveTarget, client)
        return SQSCollector(
            queue: name,
            calls: calls,
            errorCalls: errorCalls,
            configuration: configuration,
            clock: clock
        )
    }

    /// The queue for what fails for good: the one that was named, or the target of the redrive policy.
    private static func errorQueue(
        _ configuration: SQSConfiguration,
        _ redriveTarget: String?,
        _ client: SQSClient
    ) async throws -> QueueCalls? {
        var (name, url, account) = (configuration.errorQueue, String?.none, configuration.account)
        if let named = name, named.contains("://") {
            url = named
            name = named.split(separator: "/").last.map { String($0) }
        } else if name == nil, let target = redriveTarget {
            // arn:aws:sqs:REGION:ACCOUNT:NAME
            let parts = target.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count == 6 else { return nil }
            (name, account) = (String(parts[5]), String(parts[4]))
        }
        guard let name else { return nil }
        return try await QueueCalls.find(
            client,
            name: name,
            url: url,
            account: account,
            defaultGroup: configuration.defaultGroup
        ).queue
    }
}

/// A short text that differs for different texts, for all that chance can do.
func fingerprint(_ text: String) -> String {
    String(Signer.hex(SHA256.hash(data: Array(text.utf8))).prefix(8))
}
