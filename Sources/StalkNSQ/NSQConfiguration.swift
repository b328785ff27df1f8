// How an NSQ collector reaches its servers, and what it may do there.

public import StalkCore

/// The address of an nsqd or nsqlookupd.
public struct NSQAddress: Hashable, Sendable, CustomStringConvertible {
    /// A name, or an IPv4 or IPv6 address without brackets.
    public var host: String
    /// The port.
    public var port: Int

    /// Names a server.
    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// Reads `host`, `host:port` or `[v6]:port`.
    ///
    /// - Parameters:
    ///   - text: The address.
    ///   - defaultPort: The port where the text has none: 4150 is nsqd's, 4161 nsqlookupd's.
    /// - Throws: ``StalkError`` with `invalidArgument`.
    public init(_ text: String, defaultPort: Int) throws(StalkError) {
        let host: Substring
        let rest: Substring
        if text.hasPrefix("["), let end = text.firstIndex(of: "]") {
            host = text[text.index(after: text.startIndex)..<end]
            rest = text[text.index(after: end)...]
        } else {
            let end = text.lastIndex(of: ":") ?? text.endIndex
            // An IPv6 address without brackets does not say where its port begins.
            host = text[..<end].contains { ":[]".contains($0) } ? "" : text[..<end]
            rest = text[end...]
        }
        let port = rest.isEmpty ? defaultPort : rest.hasPrefix(":") ? Int(rest.dropFirst()) : nil
        guard !host.isEmpty, let port, (1...65_535).contains(port) else {
            throw StalkError(.invalidArgument, "Can't read the address \(quoted(text)): write host:port.")
        }
        self.init(host: String(host), port: port)
    }

    /// The address as `host:port`.
    public var description: String {
        self.host.contains(":") ? "[\(self.host)]:\(self.port)" : "\(self.host):\(self.port)"
    }
}

/// How connections to nsqd are encrypted.
public struct NSQTLS: Hashable, Sendable {
    /// How the server's certificate is checked.
    public enum Verification: Hashable, Sendable {
        /// Its chain and its host name.
        case full
        /// Its chain alone.
        case chain
        /// Not at all: anybody on the way can read and change everything.
        case none
    }

    /// The PEM file of the authorities to trust; `nil` for those of the system.
    public var authorityFile: String?
    /// The PEM file of the client's certificate chain.
    public var certificateFile: String?
    /// The PEM file of the client's private key.
    public var privateKeyFile: String?
    /// How the server's certificate is checked.
    public var verification: Verification

    /// Encrypts with the authorities of the system, or of a file.
    public init(
        authorityFile: String? = nil,
        certificateFile: String? = nil,
        privateKeyFile: String? = nil,
        verification: Verification = .full
    ) {
        self.authorityFile = authorityFile
        self.certificateFile = certificateFile
        self.privateKeyFile = privateKeyFile
        self.verification = verification
    }
}

/// When and for how long a consumer that fails stops taking.
public struct NSQBackoff: Hashable, Sendable {
    /// How many failures in a row, without a success, begin a pause: one poison message pauses nobody.
    public var failures: Int
    /// The pause at the first level; each failed probe doubles it.
    public var base: Duration
    /// The longest pause.
    public var cap: Duration

    /// States when to pause.
    public init(failures: Int = 5, base: Duration = .seconds(2), cap: Duration = .seconds(120)) {
        self.failures = failures
        self.base = base
        self.cap = cap
    }
}

/// How an ``NSQCollector`` reaches its servers, and what it may do there.
public struct NSQConfiguration: Sendable {
    /// The topic, `#ephemeral` included where it is one.
    public var topic: String
    /// The channel to take from.
    public var channel = "stalk"
    /// The nsqds to take from; publishing goes to the first that answers.
    public var nsqds: [NSQAddress]
    /// The nsqlookupds that name more nsqds.
    public var lookupds: [NSQAddress]
    /// Where dead letters go; `nil` is the topic's name with `.errors` behind it.
    public var errorTopic: String?
    /// Deliveries beyond this many go to the error topic instead of to a taker; `nil` leaves that to the worker.
    public var maxAttempts: Int?
    /// The most unfinished deliveries; ``Collector/scale(to:)`` changes it.
    public var maxInFlight: Int?
    /// How many messages nsqd may send beyond what takers asked for; they count as attempts when they are given back.
    public var prefetch = 0
    /// Whether messages carry an id and headers in front of their bodies; see `docs/adapters.md`.
    public var envelope = false
    /// How connections are encrypted; `nil` for not at all.
    public var tls: NSQTLS?
    /// The level of compression, 1 to 9; `nil` for none.
    public var deflateLevel: Int?
    /// What is sent when nsqd asks who this is.
    public var authSecret: String?
    /// When and for how long a consumer that fails stops taking; `nil` for never.
    public var backoff: NSQBackoff? = NSQBackoff()
    /// How long nsqd waits for the end of a delivery before it hands it to another; `nil` is nsqd's own setting.
    public var messageTimeout: Duration?
    /// How long nsqd keeps one delivery at most, its `--max-msg-timeout`.
    public var maxMessageTimeout: Duration = .seconds(900)
    /// The longest delay, nsqd's `--max-req-timeout`.
    public var maxDelay: Duration = .seconds(3600)
    /// The largest message, nsqd's `--max-msg-size`.
    public var maxMessageBytes = 1 << 20
    /// The largest MPUB, nsqd's `--max-body-size`.
    public var maxBatchBytes = 5 << 20
    /// The most messages in one MPUB; 1 sends each alone.
    public var maxBatch = 1000
    /// How long a message waits for company while an earlier one is not answered yet.
    public var linger: Duration = .milliseconds(1)
    /// How long a publish may take, connecting and failing over included.
    public var publishDeadline: Duration = .seconds(10)
    /// How often each side tells the other that it is there; twice this without a byte ends the connection.
    public var heartbeatInterval: Duration = .seconds(30)
    /// How long nsqd may keep a message back to send more with it; nsqd allows 25 ms or more, `nil` is its own setting.
    public var outputBufferTimeout: Duration? = .milliseconds(25)
    /// How long a take that does not wait gives nsqd to send what it has: it pushes, so there is nothing to ask.
    public var pollGrace: Duration = .milliseconds(250)
    /// How long connecting may take, and the handshake after it.
    public var connectTimeout: Duration = .seconds(3)
    /// The longest wait between two tries to connect.
    public var reconnectCap: Duration = .seconds(30)
    /// How often nsqlookupd is asked, give or take 30 %.
    public var lookupInterval: Duration = .seconds(60)
    /// How often RDY moves on where there are more connections than deliveries allowed.
    public var rotationInterval: Duration = .seconds(5)
    /// What this client calls itself to nsqd.
    public var clientID = "stalk"

    /// Names a topic and where it is.
    ///
    /// - Parameters:
    ///   - topic: The topic.
    ///   - nsqds: nsqds to connect to.
    ///   - lookupds: nsqlookupds to ask for nsqds.
    public init(topic: String, nsqds: [NSQAddress] = [], lookupds: [NSQAddress] = []) {
        self.topic = topic
        self.nsqds = nsqds
        self.lookupds = lookupds
    }

    /// The variable that names the nsqd where nothing else does, as in the original Stalk.
    public static var hostVariable: String { "NSQ_HOST" }

    /// Where dead letters go.
    var deadLetterTopic: String {
        self.errorTopic ?? NSQName.stem(of: self.topic) + ".errors"
    }

    /// Checks the values that can be wrong.
    ///
    /// - Returns: The topic as a queue name.
    /// - Throws: ``StalkError`` naming the value.
    func validate() throws(StalkError) -> QueueName {
        try NSQName.validate(self.topic, "topic")
        try NSQName.validate(self.channel, "channel")
        try NSQName.validate(self.deadLetterTopic, "error topic")
        func check(_ condition: Bool, _ message: @autoclosure () -> String) throws(StalkError) {
            guard condition else { throw StalkError(.invalidArgument, message()) }
        }
        try check(!self.nsqds.isEmpty || !self.lookupds.isEmpty, "There is no nsqd and no nsqlookupd to ask: name one.")
        try check(self.maxBatch >= 1, "maxBatch is \(self.maxBatch): at least one message goes into a command.")
        try check(self.prefetch >= 0, "prefetch is \(self.prefetch): give 0 or more.")
        try check(self.maxInFlight ?? 0 >= 0, "maxInFlight is \(self.maxInFlight ?? 0): give 0 or more.")
        try check(
            self.maxAttempts ?? 1 >= 1,
            "maxAttempts is \(self.maxAttempts ?? 1): the first delivery is attempt 1."
        )
        try check((1...9).contains(self.deflateLevel ?? 1), "The deflate level must be 1 to 9.")
        let needed = (self.envelope ? Envelope.maxOverhead : 0) + 1
        try check(self.maxMessageBytes >= needed, "maxMessageBytes must be at least \(needed).")
        try check(
            self.maxBatchBytes >= self.maxMessageBytes + 8,
            "maxBatchBytes must hold the largest message and 8 bytes."
        )
        try check(
            (self.tls?.certificateFile == nil) == (self.tls?.privateKeyFile == nil),
            "A client certificate needs its private key, and the other way round."
        )
        return try QueueName(NSQName.stem(of: self.topic))
    }

    /// What a collector with this configuration can do.
    var capabilities: CollectorCapabilities {
        CollectorCapabilities(
            maxBodyBytes: self.maxMessageBytes - (self.envelope ? Envelope.maxOverhead : 0),
            maxDelay: self.maxDelay,
            maxLease: self.maxMessageTimeout,
            maxBatch: 1000,
            ordering: .bestEffort,
            leaseExtension: true,
            atomicPublish: false,
            uncountedRelease: false,
            durableDelay: false
        )
    }
}
