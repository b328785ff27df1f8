import CoreMetrics
import InMemoryTracing
import MetricsTestKit
import StalkCore
import StalkTesting
import StalkWorker
import Testing
import Tracing

/// A tracer that travels as W3C Trace Context, `traceparent: 00-TRACE-SPAN-01`.
private struct W3CTracer: Tracer {
    let base = InMemoryTracer(
        idGenerator: .init(
            nextTraceID: { "0af7651916cd43dd8448eb211c80319c" },
            nextSpanID: { String(UInt64.random(in: (1 << 60)...(.max)), radix: 16) }
        )
    )

    func startSpan<Instant: TracerInstant>(
        _ operationName: String,
        context: @autoclosure () -> InstrumentationContext,
        ofKind kind: SpanKind,
        at instant: @autoclosure () -> Instant,
        function: String,
        file fileID: String,
        line: UInt
    ) -> InMemorySpan {
        self.base.startSpan(
            operationName,
            context: context(),
            ofKind: kind,
            at: instant(),
            function: function,
            file: fileID,
            line: line
        )
    }

    func forceFlush() {}

    func inject<Carrier, Inject: Injector>(
        _ context: InstrumentationContext,
        into carrier: inout Carrier,
        using injector: Inject
    ) where Inject.Carrier == Carrier {
        guard let span = context.inMemorySpanContext else { return }
        injector.inject("00-\(span.traceID)-\(span.spanID)-01", forKey: "traceparent", into: &carrier)
    }

    func extract<Carrier, Extract: Extractor>(
        _ carrier: Carrier,
        into context: inout InstrumentationContext,
        using extractor: Extract
    ) where Extract.Carrier == Carrier {
        let parts = extractor.extract(key: "traceparent", from: carrier)?.split(separator: "-") ?? []
        guard parts.count == 4 else { return }
        context.inMemorySpanContext = InMemorySpanContext(
            traceID: String(parts[1]),
            spanID: String(parts[2]),
            parentSpanID: nil
        )
    }
}

/// What the process's own metrics and tracing backends get to see.
@Suite(.timeLimit(.minutes(10))) struct ObservabilityTests {
    let clock = ManualClock()

    @Test func metricsHaveTheDocumentedNames() async throws {
        let metrics = TestMetrics()
        let collector = FaultyCollector(try .make(clock: self.clock))
        for text in ["fine", "fine", "retry", "bad"] { try await collector.base.publish(text) }
        let options = WorkerOptions(
            collectorID: "c1",
            backend: "memory",
            concurrency: 1,
            retryPolicy: try .every(.zero, max: 5)
        )
        let clock = self.clock
        let worker = withMetricsFactory(metrics) {
            Worker(acknowledging: collector, options: options, clock: clock) { delivery in
                if delivery.text == "bad" { throw DeadLetter("bad") }
                if delivery.text == "retry", delivery.attempt == 1 { throw Oops() }
            }
        }
        try await worker.whileRunning { try await collector.base.drained() }
        let labels = [("collector", "c1"), ("queue", "jobs"), ("backend", "memory")]
        func total(_ name: String) throws -> Int64 { try metrics.expectCounter(name, labels).totalValue }
        #expect(try total("stalk_messages_received") == 5)
        #expect(try total("stalk_messages_processed") == 3)
        #expect(try total("stalk_messages_retried") == 1)
        #expect(try total("stalk_messages_failed") == 1)
        #expect(try metrics.expectTimer("stalk_handler_duration", labels).values.count == 5)
        #expect(try metrics.expectMeter("stalk_messages_in_flight", labels).lastValue == 0)
    }

    @Test func traceGoesFromPublishToHandler() async throws {
        let tracer = W3CTracer()
        let collector = FaultyCollector(try .make(clock: self.clock))
        let parents = Recorder<String?>()
        let worker = Worker(
            acknowledging: collector,
            clock: self.clock,
            middleware: [.tracing(system: "memory")]
        ) { delivery in parents.record(delivery.headers["traceparent"]) }
        try await withTracer(tracer) {
            let traced = TracedCollector(collector, system: "memory")
            try await withSpan("request") { _ in
                try await traced.publish(Message("1"))
                // One that came from elsewhere with a context keeps it.
                let other = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
                try await traced.publish(Message("2", headers: ["traceparent": other]))
            }
            try await worker.whileRunning { try await collector.base.drained() }
        }
        let spans = tracer.base.finishedSpans
        let request = try #require(spans.first { $0.operationName == "request" })
        let publish = try #require(spans.first { $0.operationName == "publish jobs" })
        let processes = spans.filter { $0.operationName == "process jobs" }
        try #require(processes.count == 2)
        #expect(publish.kind == .producer && processes.allSatisfy { $0.kind == .consumer })
        #expect(publish.spanContext.parentSpanID == request.spanContext.spanID)
        #expect(processes[0].spanContext.traceID == request.spanContext.traceID)
        #expect(processes[0].spanContext.parentSpanID == publish.spanContext.spanID)
        #expect(processes[1].spanContext.traceID == "4bf92f3577b34da6a3ce929d0e0e4736")
        #expect(processes[1].spanContext.parentSpanID == "00f067aa0ba902b7")
        #expect(
            parents.values[0] == "00-\(request.spanContext.traceID)-\(publish.spanContext.spanID)-01"
        )
    }

    @Test func withoutTracerNothingIsAdded() async throws {
        let collector = FaultyCollector(try .make(clock: self.clock))
        try await TracedCollector(collector).publish(Message("1"))
        try await collector.base.wake()
        #expect(try await collector.base.take(TakeRequest())[0].headers.isEmpty)
    }
}
