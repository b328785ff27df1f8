// What the tests of the command share: the built binary, temporary directories, and a collector that keeps notes.

import Foundation
import StalkCore
import Subprocess
import Synchronization

@testable import StalkCLI

/// The binary `stalk`, as it was built beside the tests.
enum Tool {
    struct Outcome {
        var status: TerminationStatus
        var output: [UInt8]
        var errors: String

        var text: String { String(decoding: self.output, as: UTF8.self) }
        var lines: [String] { self.text.split(separator: "\n").map(String.init) }
    }

    static let path: String = {
        let tests = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return URL(fileURLWithPath: tests).deletingLastPathComponent().appendingPathComponent("stalk").path
    }()

    /// Runs `stalk` to its end.
    static func run(_ arguments: String..., store: String? = nil, input: [UInt8] = []) async throws -> Outcome {
        try await Self.run(arguments, store: store, input: input)
    }

    /// Runs `stalk` to its end.
    static func run(_ arguments: [String], store: String? = nil, input: [UInt8] = []) async throws -> Outcome {
        let result = try await Subprocess.run(
            .path(literal(Self.path)),
            arguments: Arguments(arguments),
            environment: Self.environment(store: store),
            input: .inputWriter,
            output: .bytes(limit: 64 << 20),
            error: .string(limit: 1 << 20)
        ) { await feed(input, to: $0.standardInputWriter) }
        return Outcome(
            status: result.terminationStatus,
            output: result.standardOutput,
            errors: result.standardError
        )
    }

    /// As ``run(_:store:input:)``, through a shell: `$STALK` is the binary.
    static func shell(_ script: String, store: String? = nil) async throws -> Outcome {
        let result = try await Subprocess.run(
            .path(literal("/bin/bash")),
            arguments: ["-c", script],
            environment: Self.environment(store: store, ["STALK": Self.path]),
            output: .bytes(limit: 64 << 20),
            error: .string(limit: 1 << 20)
        )
        return Outcome(
            status: result.terminationStatus,
            output: result.standardOutput,
            errors: result.standardError
        )
    }

    private static func environment(store: String?, _ more: [String: String] = [:]) -> Environment {
        var changes: [Environment.Key: String?] = ["STALK_STORE": store, "XDG_STATE_HOME": nil]
        for (name, value) in more { changes[Environment.Key(stringLiteral: name)] = value }
        return .inherit.updating(changes)
    }
}

/// Writes all input that a command may not read: where it ends before, that is no failure.
///
/// `input: .string` would end the process of the tests then: its writer is thrown away without being closed.
func feed(_ input: [UInt8], to writer: StandardInputWriter) async {
    _ = try? await writer.write(input)
    try? await writer.finish()
}

extension Message {
    var text: String { String(decoding: self.body, as: UTF8.self) }
}

/// Runs `body` with the path of a directory that is gone afterwards.
func withTemporaryDirectory<Value>(_ body: (String) async throws -> Value) async throws -> Value {
    let path = NSTemporaryDirectory() + "/stalk-cli-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: path) }
    return try await body(path)
}

/// A pipe whose read end is a file handle.
func makePipe() -> (output: StalkCLI.OutputStream, handle: Pipe) {
    let pipe = Pipe()
    return (OutputStream(descriptor: pipe.fileHandleForWriting.fileDescriptor, label: "test"), pipe)
}

/// A collector without a store, which keeps notes of what it is told and can be told to fail.
final class NotingCollector: Collector {
    struct State {
        var published: [Message] = []
        var calls: [Int] = []
        var ready: [Delivery] = []
        var finished: [Completion] = []
    }

    let queue: QueueName
    let capabilities: CollectorCapabilities
    /// The message that is refused, counted from 1.
    let refused: Int?
    /// Ends once as many deliveries were finished as there were.
    let drained: AsyncStream<Never>
    private let draining: AsyncStream<Never>.Continuation
    private let total: Int
    private let state = Locked(State())

    init(maxBatch: Int = 1000, maxBodyBytes: Int = 1 << 20, ready: [[UInt8]] = [], refused: Int? = nil) throws {
        let queue = try QueueName("q")
        self.queue = queue
        self.refused = refused
        self.total = ready.count
        (self.drained, self.draining) = AsyncStream.makeStream(of: Never.self)
        self.capabilities = CollectorCapabilities(
            maxBodyBytes: maxBodyBytes,
            maxDelay: Message.maxDelay,
            maxLease: .seconds(3600),
            maxBatch: maxBatch,
            ordering: .firstInFirstOut,
            leaseExtension: true,
            atomicPublish: false,
            uncountedRelease: true,
            durableDelay: false
        )
        let deliveries = ready.enumerated().map { index, body in
            Delivery(
                id: MessageID("m\(index + 1)"),
                queue: queue,
                body: body,
                headers: [:],
                attempt: 1,
                publishedAt: Timestamp(millisecondsSince1970: 0),
                receipt: Receipt("r\(index + 1)")
            )
        }
        self.state.withLock { $0.ready = deliveries }
    }

    var published: [Message] { self.state.withLock { $0.published } }
    var calls: [Int] { self.state.withLock { $0.calls } }
    var finished: [Completion] { self.state.withLock { $0.finished } }

    func publish(_ messages: [Message], durability: Durability) async throws -> [Result<MessageID, StalkError>] {
        self.state.withLock { state in
            state.calls.append(messages.count)
            return messages.map { message in
                state.published.append(message)
                guard state.published.count != self.refused else {
                    return .failure(StalkError(.storageFull, "The disk is full."))
                }
                return .success(MessageID("m\(state.published.count)"))
            }
        }
    }

    func take(_ request: TakeRequest) async throws -> [Delivery] {
        let deliveries = self.state.withLock { state in
            let deliveries = Array(state.ready.prefix(request.max))
            state.ready.removeFirst(deliveries.count)
            return deliveries
        }
        // Nothing comes any more: only cancelling ends the wait early.
        if deliveries.isEmpty, request.wait > .zero { try await Task.sleep(for: request.wait) }
        return deliveries
    }

    func finish(_ completions: [Completion], durability: Durability) async throws -> [Result<Void, StalkError>] {
        let count = self.state.withLock { state in
            state.finished += completions
            return state.finished.count
        }
        if count == self.total { self.draining.finish() }
        return completions.map { _ in .success(()) }
    }

    func extend(_ receipts: [Receipt], lease: Duration) async throws -> [Result<Void, StalkError>] {
        receipts.map { _ in .success(()) }
    }

    func control(_ command: CollectorCommand) async throws -> CollectorStatus {
        CollectorStatus(isAsleep: false, maxInFlight: nil, inFlight: 0)
    }
}
