// What a program may say about how its queue is reached and worked.

/// How an ``SQSCollector`` reaches its queue and works; what is left out comes from variables and profiles, as with AWS's
/// own tools.
public struct SQSConfiguration: Sendable {
    /// The region, such as `eu-west-1`.
    public var region: String?
    /// The address of a server that speaks the SQS protocol, instead of AWS's own.
    public var endpoint: String?
    /// The account that owns the queue, when it is another one.
    public var account: String?
    /// The profile to take settings and credentials from; it beats keys in variables.
    public var profile: String?
    /// Fixed credentials, instead of looking for some.
    public var credentials: Credentials?
    /// The queue that takes what fails for good, by name or address; without one, the target of the queue's own redrive
    /// policy.
    public var errorQueue: String?
    /// The most messages that are received ahead of being taken; 0 receives only what is asked for.
    public var prefetch: Int
    /// How long a batch waits for more company before it is sent.
    public var linger: Duration
    /// The group of messages without the header `Stalk-Group`, in a FIFO queue.
    public var defaultGroup: String
    /// The most tries of one request.
    public var maxAttempts: Int?
    /// How long a request with all its tries may take; a long poll may take its wait besides.
    public var callTimeout: Duration

    /// Makes a configuration.
    public init(
        region: String? = nil,
        endpoint: String? = nil,
        account: String? = nil,
        profile: String? = nil,
        credentials: Credentials? = nil,
        errorQueue: String? = nil,
        prefetch: Int = 20,
        linger: Duration = .milliseconds(5),
        defaultGroup: String = "stalk",
        maxAttempts: Int? = nil,
        callTimeout: Duration = .seconds(15)
    ) {
        self.region = region
        self.endpoint = endpoint
        self.account = account
        self.profile = profile
        self.credentials = credentials
        self.errorQueue = errorQueue
        self.prefetch = prefetch
        self.linger = linger
        self.defaultGroup = defaultGroup
        self.maxAttempts = maxAttempts
        self.callTimeout = callTimeout
    }
}
