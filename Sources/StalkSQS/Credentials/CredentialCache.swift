// Credentials that are kept while they hold and renewed before they end, by one flight at a time.

internal import StalkCore

/// Decides when credentials are fetched; nothing here waits or asks.
struct CredentialCacheStateMachine: Sendable {
    /// What an asker is to do.
    enum Answer: Hashable, Sendable {
        /// Take these.
        case use(Credentials)
        /// Take these, and somebody is to renew them meanwhile.
        case useAndRenew(Credentials)
        /// Fetch, and tell the outcome; others wait for it.
        case fetch
        /// Wait for the fetch that is under way.
        case wait
    }

    /// Renewing begins this long before the end, and from the second mark on it is waited for.
    private static let advisory = Duration.seconds(15 * 60)
    private static let mandatory = Duration.seconds(10 * 60)
    /// How long a failed renewal rests, while the old credentials still hold.
    private static let rest = Duration.seconds(5)

    private var current: Credentials?
    /// How long before the end to renew: less for credentials that were short-lived from the start.
    private var margins = (advisory: Self.advisory, mandatory: Self.mandatory)
    private var isFetching = false
    private var restsUntil: Timestamp?

    /// Somebody needs credentials.
    mutating func ask(now: Timestamp) -> Answer {
        guard let current = self.current else { return self.begin() }
        guard let expiration = current.expiration else { return .use(current) }
        let left = Duration.milliseconds(expiration.millisecondsSince1970 - now.millisecondsSince1970)
        if left > self.margins.advisory { return .use(current) }
        if left <= .zero { return self.begin() }
        // What still holds is better than a fetch that just failed.
        if let restsUntil = self.restsUntil, now < restsUntil { return .use(current) }
        if left <= self.margins.mandatory { return self.begin() }
        if self.isFetching { return .use(current) }
        self.isFetching = true
        return .useAndRenew(current)
    }

    private mutating func begin() -> Answer {
        if self.isFetching { return .wait }
        self.isFetching = true
        return .fetch
    }

    /// A fetch brought credentials.
    mutating func fetched(_ credentials: Credentials, now: Timestamp) {
        self.isFetching = false
        self.restsUntil = nil
        self.current = credentials
        guard let expiration = credentials.expiration else { return }
        let lifetime = Duration.milliseconds(expiration.millisecondsSince1970 - now.millisecondsSince1970)
        self.margins = (min(Self.advisory, lifetime / 2), min(Self.mandatory, lifetime / 3))
    }

    /// A fetch failed; the failure is not kept.
    ///
    /// - Returns: What still holds, for those who waited.
    mutating func failed(now: Timestamp) -> Credentials? {
        self.isFetching = false
        guard let current = self.current, let expiration = current.expiration, now < expiration else { return nil }
        self.restsUntil = Timestamp(
            millisecondsSince1970: now.millisecondsSince1970 + Self.rest.wholeMillisecondsRoundedUp
        )
        return current
    }

    /// AWS refused credentials: the next asker fetches, unless others took their place already.
    mutating func refused(_ credentials: Credentials) {
        if self.current == credentials { self.current = nil }
    }
}

/// Gives credentials to whoever asks.
actor CredentialCache {
    private let load: @Sendable () async throws -> Credentials
    private let now: @Sendable () -> Timestamp
    private var machine = CredentialCacheStateMachine()
    private var flight: Task<Credentials, any Error>?

    init(now: @escaping @Sendable () -> Timestamp, load: @escaping @Sendable () async throws -> Credentials) {
        self.now = now
        self.load = load
    }

    /// Credentials that hold.
    ///
    /// - Throws: What the fetch threw, to everybody who waited for it; the next call tries again.
    func credentials() async throws -> Credentials {
        switch self.machine.ask(now: self.now()) {
        case .use(let credentials):
            return credentials
        case .useAndRenew(let credentials):
            _ = self.takeOff()
            return credentials
        case .fetch:
            return try await self.takeOff().value
        case .wait:
            return try await (self.flight ?? self.takeOff()).value
        }
    }

    /// AWS refused credentials: they are not given out again.
    func refused(_ credentials: Credentials) {
        self.machine.refused(credentials)
    }

    /// A task of its own, since the caller that began it may be cancelled while others wait for it.
    private func takeOff() -> Task<Credentials, any Error> {
        let flight = Task {
            do {
                let credentials = try await self.load()
                self.machine.fetched(credentials, now: self.now())
                self.flight = nil
                return credentials
            } catch {
                self.flight = nil
                guard let current = self.machine.failed(now: self.now()) else { throw error }
                return current
            }
        }
        self.flight = flight
        return flight
    }
}
