public import Logging
public import StalkCore

// Other shapes of handlers. Their first labels differ, because closures alone do not tell overloads apart.
extension Worker {
    /// Makes a worker whose handler only succeeds or throws: a message is acknowledged when the handler returns.
    ///
    /// - Parameters:
    ///   - collector: Where messages come from.
    ///   - options: How to work.
    ///   - clock: What leases, timeouts and waits are counted by.
    ///   - logger: What the worker tells about failures, at levels up to info; `nil` for nothing.
    ///   - middleware: What stands around the handler, the first one outermost.
    ///   - until: The worker stops as in a graceful shutdown once this returns.
    ///   - handler: What to do with a delivery. It should end soon after its task is cancelled.
    public convenience init(
        acknowledging collector: any Collector,
        options: WorkerOptions = WorkerOptions(),
        clock: any Clock<Duration> = ContinuousClock(),
        logger: Logger? = nil,
        middleware: [Middleware] = [],
        until: (@Sendable () async throws -> Void)? = nil,
        handler: @escaping @Sendable (Delivery) async throws -> Void
    ) {
        self.init(
            collector: collector,
            options: options,
            clock: clock,
            logger: logger,
            middleware: middleware,
            until: until
        ) { delivery in
            try await handler(delivery)
            return .acknowledge
        }
    }

    /// What became of a body, as three answers.
    ///
    /// | error | retry | fatal | the message |
    /// | --- | --- | --- | --- |
    /// | none | any | no | is done |
    /// | any | any | yes | goes to the error queue |
    /// | some | yes | no | is retried by its policy |
    /// | some | no | no | goes to the error queue |
    public struct Outcome: Sendable {
        /// What went wrong; `nil` for nothing.
        public var error: (any Error)?
        /// Whether another attempt can help.
        public var retry: Bool
        /// Whether the message failed for good, whatever the others say.
        public var fatal: Bool

        /// States what became of a body; without arguments, success.
        public init(error: (any Error)? = nil, retry: Bool = false, fatal: Bool = false) {
            self.error = error
            self.retry = retry
            self.fatal = fatal
        }

        /// The disposition that the answers mean.
        func disposition() throws -> Disposition {
            switch (self.error, self.retry, self.fatal) {
            case (let error, _, true):
                .deadLetter(reason: error.map { String(describing: $0) } ?? "the handler called it fatal")
            case (nil, _, false):
                .acknowledge
            case (let error?, true, false):
                throw error
            case (let error?, false, false):
                .deadLetter(reason: String(describing: error))
            }
        }
    }

    /// Makes a worker for a handler that sees only the body and answers whether it failed, and whether to retry.
    ///
    /// - Parameters:
    ///   - collector: Where messages come from.
    ///   - options: How to work.
    ///   - clock: What leases, timeouts and waits are counted by.
    ///   - logger: What the worker tells about failures, at levels up to info; `nil` for nothing.
    ///   - middleware: What stands around the handler, the first one outermost.
    ///   - until: The worker stops as in a graceful shutdown once this returns.
    ///   - handler: What to do with a body. It should end soon after its task is cancelled.
    public convenience init(
        bodiesOf collector: any Collector,
        options: WorkerOptions = WorkerOptions(),
        clock: any Clock<Duration> = ContinuousClock(),
        logger: Logger? = nil,
        middleware: [Middleware] = [],
        until: (@Sendable () async throws -> Void)? = nil,
        handler: @escaping @Sendable ([UInt8]) async -> Outcome
    ) {
        self.init(
            collector: collector,
            options: options,
            clock: clock,
            logger: logger,
            middleware: middleware,
            until: until
        ) { delivery in
            try await handler(delivery.body).disposition()
        }
    }
}
