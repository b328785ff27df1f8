// The server's clock, as far as this machine's differs from it.

internal import StalkCore
internal import Synchronization

/// How far the server's clock is ahead; one value for all calls of a client.
final class ServerClock: Sendable {
    private let offsetMillis = Atomic<Int64>(0)
    private let local: @Sendable () -> Timestamp

    init(local: @escaping @Sendable () -> Timestamp) {
        self.local = local
    }

    /// Now, by the server's clock.
    var now: Timestamp {
        let offset = self.offsetMillis.load(ordering: .relaxed)
        return Timestamp(millisecondsSince1970: self.local().millisecondsSince1970 + offset)
    }

    /// How far the server's clock is ahead.
    var offset: Duration { .milliseconds(self.offsetMillis.load(ordering: .relaxed)) }

    /// Takes the server's time from an answer.
    ///
    /// It is compared with the clock as it is now, not as it was when the request was signed.
    func correct(by serverTime: Timestamp) {
        let offset = serverTime.millisecondsSince1970 - self.local().millisecondsSince1970
        self.offsetMillis.store(offset, ordering: .relaxed)
    }
}
