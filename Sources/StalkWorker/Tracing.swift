// Trace context in message headers, so that one trace spans publisher and handler on every backend.
//
// Which headers there are is the tracer's business: with a W3C propagator, `traceparent` and `tracestate`. The spans follow
// OpenTelemetry's semantic conventions for messaging.

public import StalkCore
internal import Tracing

/// Reads and writes trace context in message headers.
private struct HeaderCarrier: Injector, Extractor {
    func inject(_ value: String, forKey key: String, into headers: inout Headers) { headers[key] = value }

    func extract(key: String, from headers: Headers) -> String? { headers[key] }
}

/// A collector in front of another one that publishes each message in a span and puts the trace context into its headers.
///
/// Everything else goes through unchanged. A message that has a trace context already keeps it. Without a tracer in the
/// process it changes nothing.
public struct TracedCollector: Collector {
    private let base: any Collector
    private let system: String

    /// Puts tracing in front of a collector.
    ///
    /// - Parameters:
    ///   - base: The collector.
    ///   - system: What spans call the backend: `stalk`, `aws_sqs`, `nsq`, …
    public init(_ base: any Collector, system: String = "stalk") {
        self.base = base
        self.system = system
    }

    /// The queue of the collector behind it.
    public var queue: QueueName { self.base.queue }
    /// What the collector behind it can do.
    public var capabilities: CollectorCapabilities { self.base.capabilities }

    /// Publishes messages with the trace context in their headers; see ``StalkCore/Collector/publish(_:durability:)``.
    public func publish(
        _ messages: [Message],
        durability: Durability
    ) async throws -> [Result<MessageID, StalkError>] {
        try await withSpan("publish \(self.queue)", ofKind: .producer) { span in
            span.attributes["messaging.system"] = self.system
            span.attributes["messaging.operation.name"] = "publish"
            span.attributes["messaging.destination.name"] = self.queue.rawValue
            span.attributes["messaging.batch.message_count"] = messages.count
            let carrier = HeaderCarrier()
            var context = Headers()
            InstrumentationSystem.instrument.inject(span.context, into: &context, using: carrier)
            let traced = messages.map { message in
                var message = message
                guard !context.contains(where: { message.headers[$0.name] != nil }) else { return message }
                for field in context { message.headers[field.name] = field.value }
                return message
            }
            return try await self.base.publish(traced, durability: durability)
        }
    }

    /// Takes from the collector behind it.
    public func take(_ request: TakeRequest) async throws -> [Delivery] { try await self.base.take(request) }

    /// Ends deliveries of the collector behind it.
    public func finish(
        _ completions: [Completion],
        durability: Durability
    ) async throws -> [Result<Void, StalkError>] {
        try await self.base.finish(completions, durability: durability)
    }

    /// Extends leases of the collector behind it.
    public func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        try await self.base.extend(receipts, lease: lease)
    }

    /// Controls the collector behind it.
    @discardableResult
    public func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        try await self.base.control(command)
    }
}

extension Middleware {
    /// Runs what stands inside in a span that goes on with the trace in the message's headers.
    ///
    /// - Parameter system: What spans call the backend: `stalk`, `aws_sqs`, `nsq`, …
    public static func tracing(system: String = "stalk") -> Middleware {
        Middleware { delivery, next in
            var context = InstrumentationContext.topLevel
            InstrumentationSystem.instrument.extract(delivery.headers, into: &context, using: HeaderCarrier())
            return try await withSpan("process \(delivery.queue)", context: context, ofKind: .consumer) { span in
                span.attributes["messaging.system"] = system
                span.attributes["messaging.operation.name"] = "process"
                span.attributes["messaging.destination.name"] = delivery.queue.rawValue
                span.attributes["messaging.message.id"] = delivery.id.rawValue
                span.attributes["stalk.attempt"] = delivery.attempt
                let disposition = try await next(delivery)
                span.attributes["stalk.disposition"] = disposition.kind
                return disposition
            }
        }
    }
}
