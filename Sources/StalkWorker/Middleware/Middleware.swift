// What stands around a handler: a chain of steps, each of which may look, wait, refuse or go on.

public import StalkCore

/// What a middleware and a handler have in common: a delivery goes in, its disposition comes out.
public typealias DeliveryHandler = @Sendable (Delivery) async throws -> Disposition

/// A step around a handler: logging, a limit, whatever every message of a queue needs.
///
/// ```swift
/// let worker = Worker(collector: queue, middleware: [.logging(logger), .perKey(limit: 1) { $0.headers["customer"] }]) {
///     try await charge($0)
///     return .acknowledge
/// }
/// ```
///
/// The first one is outermost. A middleware that waits does so in its delivery's slot and under its lease.
public struct Middleware: Sendable {
    let body: @Sendable (Delivery, @escaping DeliveryHandler) async throws -> Disposition

    /// Makes a middleware.
    ///
    /// - Parameter body: What it does; its second argument goes on to what stands inside.
    public init(_ body: @escaping @Sendable (Delivery, @escaping DeliveryHandler) async throws -> Disposition) {
        self.body = body
    }

    /// Puts the middleware around a handler.
    ///
    /// - Parameter handler: What stands inside.
    public func around(_ handler: @escaping DeliveryHandler) -> DeliveryHandler {
        { try await self.body($0, handler) }
    }
}

extension Array<Middleware> {
    /// Puts all of them around a handler, the first one outermost.
    ///
    /// - Parameter handler: What stands inside.
    public func around(_ handler: @escaping DeliveryHandler) -> DeliveryHandler {
        self.reversed().reduce(handler) { $1.around($0) }
    }
}
