public import Logging
internal import StalkCore

extension Middleware {
    /// Says at debug when a handler begins and how it ended, with the message's id and attempt; never a body.
    ///
    /// - Parameters:
    ///   - logger: Where to say it.
    ///   - clock: What durations are counted by.
    public static func logging(_ logger: Logger, clock: any Clock<Duration> = ContinuousClock()) -> Middleware {
        let clock = ElapsedClock(clock)
        return Middleware { delivery, next in
            var logger = logger
            logger[metadataKey: "queue"] = .string(delivery.queue.rawValue)
            logger[metadataKey: "id"] = .string(delivery.id.rawValue)
            logger[metadataKey: "attempt"] = .stringConvertible(delivery.attempt)
            logger.debug("The handler begins")
            let start = clock.elapsed()
            func milliseconds() -> Logger.MetadataValue {
                .stringConvertible((clock.elapsed() - start).wholeMillisecondsRoundedUp)
            }
            do {
                let disposition = try await next(delivery)
                logger.debug(
                    "The handler returned",
                    metadata: ["disposition": .string(disposition.kind), "milliseconds": milliseconds()]
                )
                return disposition
            } catch {
                logger.debug(
                    "The handler failed",
                    metadata: ["error": .string(String(describing: error)), "milliseconds": milliseconds()]
                )
                throw error
            }
        }
    }
}

extension Disposition {
    /// Whether the message is done.
    var isSuccess: Bool {
        switch self {
        case .acknowledge, .acknowledgeAndPublish: true
        case .retry, .deadLetter, .release: false
        }
    }

    /// Its name, without what it carries.
    var kind: String {
        switch self {
        case .acknowledge, .acknowledgeAndPublish: "acknowledge"
        case .retry: "retry"
        case .deadLetter: "deadLetter"
        case .release: "release"
        }
    }
}
